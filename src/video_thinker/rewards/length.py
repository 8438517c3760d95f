"""Is a right answer reasoned at a proper length? Video-R1's length reward (arXiv 2503.21776), there weighted 0.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from video_thinker.rewards.accuracy import accuracy_reward
from video_thinker.rewards.completions import Completion
from video_thinker.schema import VideoSample


def length_reward(
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]],
    sample: Sequence[VideoSample],
    min_tokens: int = 320,
    max_tokens: int = 512,
    min_accuracy: float = 1.0,
    **columns: Any,
) -> list[float | None]:
    """Give 1.0 to each completion that is right and has `min_tokens` to `max_tokens` tokens, both included, else 0.0.

    Right means an accuracy of at least `min_accuracy`, which matters for the problem types with partial credit. `None`
    where the sample's gold cannot be used.
    """
    accuracies = accuracy_reward(completions=completions, sample=sample)
    return [
        None if accuracy is None else float(accuracy >= min_accuracy and min_tokens <= len(ids) <= max_tokens)
        for accuracy, ids in zip(accuracies, completion_ids, strict=True)
    ]
