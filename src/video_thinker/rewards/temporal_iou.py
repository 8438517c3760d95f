"""Does the trace look at the moments that matter? Optional, and not in the paper: it needs gold `segments`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from video_thinker.grounding import mean_best_iou
from video_thinker.rewards.completions import Completion, completion_text
from video_thinker.schema import VideoSample
from video_thinker.trace import parse_trace


def temporal_iou_reward(
    completions: Sequence[Completion], sample: Sequence[VideoSample], **columns: Any
) -> list[float | None]:
    """Give each completion the mean over its gold segments of the best IoU with a span it names.

    `None` for samples without gold segments; 0.0 if no span can be read. Naming more spans never lowers it: use it
    together with a reward that does not pay for length, and watch the completion length.
    """
    rewards = []
    for completion, item in zip(completions, sample, strict=True):
        trace = parse_trace(completion_text(completion))
        rewards.append(mean_best_iou(trace.blocks if trace else (), item.segments))
    return rewards
