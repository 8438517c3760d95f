"""Predictions -> figures. Pure functions; runs without torch.

Every sample is one of six things: correct, wrong, partial (a score between 0 and 1, for the problem types that have
such), **unanswered** (the model gave no readable answer; it counts as not correct), **failed** (its media could not be
read, so the model was never asked; it is counted beside the accuracy, never in it) or **unscorable** (its gold itself
is unusable; left out of the accuracy as well).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from video_thinker.evaluation.caption_metrics import caption_figures
from video_thinker.grounding import mean_best_iou, recall_at
from video_thinker.runs.predictions import Graded, Prediction
from video_thinker.schema import VideoSample
from video_thinker.scoring import extract_choice, grade_completion, option_letters
from video_thinker.trace import format_violations, parse_trace

CONFIDENCE = 0.95
RECALL_THRESHOLDS = (0.3, 0.5, 0.7)
STATUSES = ("correct", "wrong", "partial", "unanswered", "unscorable", "failed")
DURATION_BUCKETS = ((60, "0-60 s"), (180, "1-3 min"), (600, "3-10 min"), (1800, "10-30 min"), (math.inf, "30+ min"))
"""Upper bound in seconds (not in the bucket itself, so that 60 s is "1-3 min"), and name."""

UNKNOWN_DURATION = "unknown"


def grade(prediction: Prediction, sample: VideoSample) -> Graded:
    """Score a prediction with the grader of the rewards, read leniently; `valid_format` is the strict rule."""
    if prediction.error is not None:
        return Graded(prediction, sample)
    text = prediction.completion
    trace = parse_trace(text)
    answer, score = grade_completion(text, sample)
    return Graded(
        prediction=prediction,
        sample=sample,
        score=score,
        answer=answer,
        valid_format=not format_violations(text, prediction.duration_s),
        blocks=trace.blocks if trace else (),
    )


def compute_metrics(graded: Sequence[Graded]) -> dict[str, Any]:
    """Compute the figures of one split.

    Counts: `num_samples` is the sum of `num_correct`, `num_wrong`, `num_partial`, `num_unanswered`, `num_unscorable`
    and `num_failed`; `num_scored` leaves out the last two. `accuracy` is the mean score of the scored ones, unanswered
    ones at 0.

    Over all that did not fail: `format_rate`; `miou` and `recall@K` over those with gold segments, and the figures of
    `caption_figures` over those with gold captions, each sample with equal weight; `mean_completion_tokens`, which is
    `None` where a backend did not count tokens, and then `mean_completion_characters` is there.

    `first_failure` is there if any failed: the id of the first, and its cause.

    What no model is needed for: `chance`, the mean of 1 / number of options, and `majority_letter`, the accuracy of
    always answering the letter that is most often right.

    `by_source`, `by_category` (a sample without a category counts under its source) and `by_duration` hold counts and
    accuracy of parts; each is there if any sample has the property. A figure without any sample is `None`.
    """
    asked = [one for one in graded if one.score is not None]
    metrics: dict[str, Any] = {
        **_accuracy(graded),
        "format_rate": mean(float(one.valid_format) for one in asked),
        "miou": mean(mean_best_iou(one.blocks, one.sample.segments) for one in asked),
    }
    for threshold in RECALL_THRESHOLDS:
        metrics[f"recall@{threshold}"] = mean(recall_at(one.blocks, one.sample.segments, threshold) for one in asked)
    metrics |= caption_figures([(one.blocks, one.sample.segments) for one in asked])
    metrics |= {
        "chance": mean(1 / len(one.sample.options) for one in graded if one.sample.options),
        "majority_letter": majority_letter([one.sample for one in graded]),
        "num_truncated": sum(not one.prediction.finished for one in asked),
        **_mean_length([one.prediction for one in asked]),
    }
    if failed := next((one.prediction for one in graded if one.score is None), None):
        metrics["first_failure"] = f"{failed.problem_id}: {failed.error}"
    groups = {
        "by_source": _by(graded, lambda one: one.sample.data_source),
        "by_category": _by(graded, _category),
        "by_duration": _by_duration(graded),
    }
    return {**metrics, **{name: parts for name, parts in groups.items() if parts}}


def majority_letter(samples: Iterable[VideoSample]) -> float | None:
    """Share of the usable multiple-choice samples whose gold is the most frequent gold letter; `None` without any."""
    letters = []
    for sample in samples:
        if sample.problem_type == "multiple choice":
            letter = extract_choice(sample.answer, sample.options)
            if letter is not None and (not sample.options or letter in option_letters(sample.options)):
                letters.append(letter)
    return max(Counter(letters).values()) / len(letters) if letters else None


def duration_bucket(duration_s: float | None) -> str:
    """Name the bucket of a duration: 59.9 is "0-60 s", 60 is "1-3 min", `None` is "unknown"."""
    if duration_s is None:
        return UNKNOWN_DURATION
    return next(name for bound_s, name in DURATION_BUCKETS if duration_s < bound_s)


def _accuracy(graded: Sequence[Graded]) -> dict[str, Any]:
    values = [one.score.value for one in graded if one.score is not None and one.score.value is not None]
    statuses = Counter(one.score.status if one.score else "failed" for one in graded)
    return {
        "accuracy": mean(values),
        "ci95": confidence_interval(values),
        "num_samples": len(graded),
        "num_scored": len(values),
        **{f"num_{status}": statuses[status] for status in STATUSES},
    }


def _mean_length(predictions: Sequence[Prediction]) -> dict[str, float | None]:
    if all(one.num_tokens or not one.completion for one in predictions):
        return {"mean_completion_tokens": mean(float(one.num_tokens or 0) for one in predictions)}
    characters = mean(float(len(one.completion)) for one in predictions)
    return {"mean_completion_tokens": None, "mean_completion_characters": characters}


def _by(graded: Sequence[Graded], name_of: Callable[[Graded], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Graded]] = {}
    for one in graded:
        groups.setdefault(name_of(one), []).append(one)
    return {name: _accuracy(groups[name]) for name in sorted(groups) if name}


def _category(one: Graded) -> str:
    return one.sample.category or one.sample.data_source


def _by_duration(graded: Sequence[Graded]) -> dict[str, dict[str, Any]]:
    parts = _by(graded, lambda one: duration_bucket(one.prediction.duration_s or one.sample.duration_s))
    if parts.keys() <= {UNKNOWN_DURATION}:
        return {}
    names = [name for _, name in DURATION_BUCKETS] + [UNKNOWN_DURATION]
    return {name: parts[name] for name in names if name in parts}


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not `None`; `None` if there are none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def confidence_interval(values: Sequence[float]) -> list[float] | None:
    """95% interval of a mean of scores in [0, 1].

    Right-or-wrong scores: Wilson's interval, which also holds near 0 and 1. Partial scores: Student's t, cut to [0, 1].
    One score that is neither 0 nor 1 says nothing about the spread: [0, 1]. No scores: `None`.
    """
    if not values:
        return None
    from scipy import stats

    if all(value in (0, 1) for value in values):
        interval = stats.binomtest(int(sum(values)), len(values)).proportion_ci(CONFIDENCE, method="wilson")
        return [float(interval.low), float(interval.high)]
    if len(values) == 1:
        return [0.0, 1.0]
    center, error = sum(values) / len(values), float(stats.sem(values))
    if error == 0:
        return [center, center]
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=center, scale=error)
    return [max(0.0, float(low)), min(1.0, float(high))]
