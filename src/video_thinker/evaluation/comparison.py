"""What a comparison of runs holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PairedDifference:
    """The first run against another one on the items of a result key that both have a score for.

    `difference` is the other's mean score minus the first's, a share; `ci95` its bootstrap interval, `None` below two
    items. `mcnemar_p` and the two counts are `None` where scores are partial.
    """

    key: str
    first: str
    other: str
    num_common: int
    difference: float
    ci95: tuple[float, float] | None
    num_only_first_correct: int | None
    num_only_other_correct: int | None
    mcnemar_p: float | None


@dataclass(frozen=True)
class PublishedRow:
    """A model's published accuracies, as shares, by the result key they stand beside."""

    model: str
    num_frames: int
    source: str
    accuracy: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """All that is printed. `results` are run label -> result key -> figures; `differences` is "" for like runs."""

    results: Mapping[str, Mapping[str, Mapping[str, Any]]]
    paired: Sequence[PairedDifference]
    published: Sequence[PublishedRow]
    notes: Sequence[str]
    differences: str = ""

    @property
    def keys(self) -> list[str]:
        """All result keys, in the order of the runs."""
        return list(dict.fromkeys(key for figures in self.results.values() for key in figures))
