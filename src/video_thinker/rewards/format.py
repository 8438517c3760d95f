"""Is the completion a valid trace? Video-Thinker's format reward, by the strict rule of `video_thinker.trace`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from video_thinker.rewards.completions import Completion, completion_text
from video_thinker.schema import VideoSample
from video_thinker.trace import format_violations


def format_reward(
    completions: Sequence[Completion],
    duration_s: Sequence[float | None] | None = None,
    sample: Sequence[VideoSample] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Give 1.0 to each completion without a format violation, else 0.0.

    `duration_s` holds the length of each completion's video; `None` leaves out the check that times lie within it.
    `sample` is used for one thing: a sample of still images has no timeline to write blocks for, so it gets `None`.
    """
    durations = [None] * len(completions) if duration_s is None else duration_s
    samples = [None] * len(completions) if sample is None else sample
    return [
        None if item is not None and item.only_stills else float(not format_violations(completion_text(text), duration))
        for text, duration, item in zip(completions, durations, samples, strict=True)
    ]
