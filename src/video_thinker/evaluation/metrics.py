"""Predictions -> figures. Pure functions; runs without torch.

Four things are told apart: correct, wrong, **unanswered** (the model gave no readable answer; it counts as not correct)
and **failed** (its media could not be read, so the model was never asked; it is counted beside the accuracy, never in
it). A sample whose gold itself is unusable is "unscorable" and left out of the accuracy as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from video_thinker.grounding import mean_best_iou, recall_at
from video_thinker.schema import Score, TraceBlock, VideoSample
from video_thinker.scoring import score_completion
from video_thinker.trace import extract_answer, format_violations, has_tags, parse_trace

CONFIDENCE = 0.95
RECALL_THRESHOLDS = (0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came back for one sample.

    `completion` is the text, `num_tokens` its length; `finished` is false if it was cut off at the token limit.
    `duration_s` is that of the sample's only video, else `None`. `error` says why there is no completion.
    """

    problem_id: str
    completion: str = ""
    num_tokens: int = 0
    finished: bool = True
    duration_s: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Graded:
    """One prediction with all that is counted about it; `score` is `None` for a failed one."""

    prediction: Prediction
    sample: VideoSample
    score: Score | None = None
    answer: str | None = None
    valid_format: bool = False
    blocks: tuple[TraceBlock, ...] = ()


def grade(prediction: Prediction, sample: VideoSample) -> Graded:
    """Score a prediction with the grader of the rewards, read leniently; `valid_format` is the strict rule."""
    if prediction.error is not None:
        return Graded(prediction, sample)
    text = prediction.completion
    trace = parse_trace(text)
    answer = extract_answer(text)
    if answer is None and not has_tags(text):
        answer = text.strip() or None  # plain words, which `score_completion` grades as a whole
    return Graded(
        prediction=prediction,
        sample=sample,
        score=score_completion(text, sample),
        answer=answer,
        valid_format=not format_violations(text, prediction.duration_s),
        blocks=trace.blocks if trace else (),
    )


def compute_metrics(graded: Sequence[Graded]) -> dict[str, Any]:
    """Compute the figures of one split.

    `num_samples` = scored + unscorable + failed. `accuracy` is the mean score of the scored ones, unanswered ones at 0.
    `format_rate`, `miou`, `recall@K` and the lengths are over all that did not fail; grounding over those with gold
    segments, each sample with equal weight. A figure without any sample is `None`. `chance` is the mean of
    1 / number of options.
    """
    asked = [one for one in graded if one.score is not None]
    metrics: dict[str, Any] = {
        **_accuracy(graded),
        "format_rate": mean(float(one.valid_format) for one in asked),
        "miou": mean(mean_best_iou(one.blocks, one.sample.segments) for one in asked),
    }
    for threshold in RECALL_THRESHOLDS:
        metrics[f"recall@{threshold}"] = mean(recall_at(one.blocks, one.sample.segments, threshold) for one in asked)
    metrics |= {
        "chance": mean(1 / len(one.sample.options) for one in graded if one.sample.options),
        "num_correct": _count(graded, lambda one: one.score is not None and one.score.status == "correct"),
        "num_unanswered": _count(graded, lambda one: one.score is not None and one.score.status == "unanswered"),
        "num_unscorable": _count(graded, lambda one: one.score is not None and one.score.value is None),
        "num_truncated": _count(asked, lambda one: not one.prediction.finished),
        "mean_completion_tokens": mean(float(one.prediction.num_tokens) for one in asked),
    }
    sources = sorted({one.sample.data_source for one in graded} - {""})
    if sources:
        metrics["by_source"] = {
            source: _accuracy([one for one in graded if one.sample.data_source == source]) for source in sources
        }
    return metrics


def _accuracy(graded: Sequence[Graded]) -> dict[str, Any]:
    values = [one.score.value for one in graded if one.score is not None and one.score.value is not None]
    return {
        "accuracy": mean(values),
        "ci95": confidence_interval(values),
        "num_samples": len(graded),
        "num_scored": len(values),
        "num_failed": _count(graded, lambda one: one.score is None),
    }


def _count(graded: Iterable[Graded], condition: Callable[[Graded], bool]) -> int:
    return sum(map(condition, graded))


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
