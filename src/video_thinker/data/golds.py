"""Golds that no answer can be graded against: counted before a run, and refused if a file has no other."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from video_thinker.errors import DataError
from video_thinker.schema import VideoSample
from video_thinker.scoring import has_usable_gold

logger = logging.getLogger(__name__)


def check_golds(samples: Sequence[VideoSample], path: str) -> int:
    """Count the samples of a file whose gold cannot be graded, and say so in the log.

    Such a gold is empty, is none of the options, is no number, or names no time span. Its accuracy reward is `None`,
    and an evaluation counts it as unscorable.

    Returns:
        How many there are.

    Raises:
        DataError: All samples are such.
    """
    unusable = [sample for sample in samples if not has_usable_gold(sample)]
    if not unusable:
        return 0
    first = unusable[0]
    example = (
        f"the first is {first.answer!r} for a {first.problem_type} problem (sample {first.id!r}, {first.location})"
    )
    if len(unusable) == len(samples):
        raise DataError(
            f"{path}: none of its {len(samples)} samples has a gold that can be graded; {example}. A gold must be an "
            "option, a number, a time span or a text, as its problem_type asks; see `video-thinker validate`."
        )
    logger.warning(
        "%s: %d of %d samples have a gold that cannot be graded; %s", path, len(unusable), len(samples), example
    )
    return len(unusable)
