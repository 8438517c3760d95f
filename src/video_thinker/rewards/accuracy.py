"""Is the answer right? The outcome reward of Video-Thinker and Video-R1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from video_thinker.rewards.completions import Completion, completion_text
from video_thinker.schema import VideoSample
from video_thinker.scoring import score_completion


def accuracy_reward(
    completions: Sequence[Completion],
    sample: Sequence[VideoSample],
    strict: bool = False,
    **columns: Any,
) -> list[float | None]:
    """Grade each completion against its own sample, by its own problem type, exactly as evaluation does.

    `None` where the sample's gold cannot be used; 0.0 without an answer. With `strict` only a completion in the trace
    format has an answer, so that being right without a trace pays nothing.
    """
    return [
        score_completion(completion_text(completion), item, strict=strict).value
        for completion, item in zip(completions, sample, strict=True)
    ]
