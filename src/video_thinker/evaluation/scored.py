"""Runs -> results: the figures of each model on each split, and its predictions, graded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from video_thinker.errors import DataError
from video_thinker.evaluation.metrics import compute_metrics, grade, mean
from video_thinker.runs.predictions import Graded
from video_thinker.runs.reading import EvalRun, split_of, variant_of
from video_thinker.schema import VideoSample

STATUSES = ("correct", "partial", "wrong", "unanswered", "unscorable", "failed")


@dataclass(frozen=True)
class Result:
    """One model under one variant ("" or "blank", …) on one split: its figures and its predictions by sample id.

    `stale` says how metrics.json differs from what the stored predictions give, which is then shown.
    """

    run: EvalRun
    key: str
    figures: Mapping[str, Any]
    graded: Mapping[str, Graded]
    stale: str = ""

    @property
    def split(self) -> str:
        """Its split."""
        return split_of(self.key)

    @property
    def entry(self) -> str:
        """Its model and variant, as shown: "grpo" or "grpo · blank"."""
        return " · ".join(filter(None, (self.run.label, variant_of(self.key))))

    def count(self, status: str) -> int:
        """How many predictions have a status of `STATUSES`."""
        return sum(status_of(one) == status for one in self.graded.values())


def status_of(graded: Graded) -> str:
    """Name one of `STATUSES`; "failed" has no score."""
    return graded.score.status if graded.score else "failed"


def score_runs(runs: Sequence[EvalRun], items: Mapping[str, Sequence[VideoSample]]) -> list[Result]:
    """Grade the stored predictions of all runs, in the order of runs, real videos before their controls.

    Raises:
        DataError: a prediction belongs to no item.
    """
    samples = {name: {sample.id: sample for sample in split} for name, split in items.items()}
    keys = [(run, key) for run in runs for key in sorted(run.predictions, key=lambda k: (variant_of(k), k))]
    return [_score(run, key, samples[split_of(key)]) for run, key in keys]


def _score(run: EvalRun, key: str, samples: Mapping[str, VideoSample]) -> Result:
    predictions = run.predictions[key]
    if unknown := sorted(predictions.keys() - samples.keys()):
        raise DataError(
            f"{run.folder}: predictions/{key}.jsonl has sample {unknown[0]!r} ({len(unknown)} such), which is none of "
            "its items; the folder holds predictions of other data; evaluate again."
        )
    graded = {name: grade(predictions[name], sample) for name, sample in samples.items() if name in predictions}
    stored = run.metrics.get(key)
    stale = find_difference(stored, graded) if stored else ""
    figures = compute_metrics(list(graded.values())) if not stored or stale else stored
    return Result(run, key, figures, graded, stale)


def find_difference(stored: Mapping[str, Any], graded: Mapping[str, Graded]) -> str:
    """Say how stored figures differ from those of the predictions; "" if they agree."""
    values = [one.score.value for one in graded.values() if one.score]
    found = {
        "num_samples": len(graded),
        "num_failed": sum(one.score is None for one in graded.values()),
        "accuracy": mean(values),
    }
    return "; ".join(
        f"{name} is {stored.get(name)!r}, the predictions give {value!r}"
        for name, value in found.items()
        if not _equal(stored.get(name), value)
    )


def _equal(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isclose(a, b, abs_tol=1e-9))
