"""How well predicted time spans meet gold ones: temporal IoU, IoU of sets of spans, mIoU, R@K. Runs without torch.

mIoU and R@K as in Video-Thinker (arXiv 2510.23473): each gold segment takes the predicted span that meets it best. A
span that meets no gold segment costs nothing, so read these figures beside the number of predicted spans.
"""

from __future__ import annotations

from collections.abc import Sequence

from video_thinker.schema import Segment, TraceBlock

Span = Segment | TraceBlock
Interval = tuple[float, float]


def temporal_iou(a: Span, b: Span) -> float:
    """Length of the intersection of two spans over that of their union; 0.0 for spans without length.

    4-8 s and 6-10 s share 2 s of 6 s: 0.333.
    """
    intersection = max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))
    union = (a.end_s - a.start_s) + (b.end_s - b.start_s) - intersection
    return intersection / union if intersection > 0 else 0.0


def set_iou(pred: Sequence[Interval], gold: Sequence[Interval]) -> float:
    """Time that two sets of intervals (start, end; seconds) share, over the time that either covers.

    With one interval on each side this is the temporal IoU. Intervals of one set that overlap count once, so naming
    more of them costs where they miss. Intervals that do not start before they end cover nothing.
    """
    pred, gold = _merged(pred), _merged(gold)
    shared_s = sum(max(0.0, min(end, e) - max(start, s)) for start, end in pred for s, e in gold)
    pred_s, gold_s = (sum(end - start for start, end in spans) for spans in (pred, gold))
    union_s = pred_s + gold_s - shared_s  # of a set with itself: exactly what is shared
    return shared_s / union_s if shared_s > 0 else 0.0


def mean_best_iou(pred: Sequence[Span], gold: Sequence[Span]) -> float | None:
    """Mean over the gold spans of the best IoU with a predicted one; 0.0 without predictions, `None` without gold."""
    if not gold:
        return None
    return sum(_best_ious(pred, gold)) / len(gold)


def recall_at(pred: Sequence[Span], gold: Sequence[Span], k: float) -> float | None:
    """Share of the gold spans that some predicted one meets with an IoU of at least `k`; `None` without gold spans."""
    if not gold:
        return None
    return sum(iou >= k for iou in _best_ious(pred, gold)) / len(gold)


def _merged(intervals: Sequence[Interval]) -> list[Interval]:
    """Join intervals that overlap; sorted, without those that do not start before they end."""
    merged: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _best_ious(pred: Sequence[Span], gold: Sequence[Span]) -> list[float]:
    return [max((temporal_iou(span, target) for span in pred), default=0.0) for target in gold]
