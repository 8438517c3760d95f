"""Is the answer right? The outcome reward of Video-Thinker and Video-R1."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from video_thinker.rewards.completions import Completion, completion_text
from video_thinker.schema import VideoSample
from video_thinker.scoring import score_completion


def accuracy_reward(
    completions: Sequence[Completion],
    sample: Sequence[VideoSample],
    duration_s: Sequence[float | None] | None = None,
    strict: bool = False,
    **columns: Any,
) -> list[float | None]:
    """Grade each completion against its own sample, by its own problem type, exactly as evaluation does.

    `None` where the sample's gold cannot be used; 0.0 without an answer. With `strict` only a completion in the trace
    format has an answer, so that being right without a trace pays nothing. Its times must lie within the video:
    `duration_s` holds the length of each completion's file, as for the format reward; where that is `None` or not
    given, the sample's own counts.
    """
    durations = [None] * len(completions) if duration_s is None else duration_s
    rewards = []
    for completion, item, duration in zip(completions, sample, durations, strict=True):
        measured = item if duration is None else dataclasses.replace(item, duration_s=duration)
        rewards.append(score_completion(completion_text(completion), measured, strict=strict).value)
    return rewards
