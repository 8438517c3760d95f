from __future__ import annotations

import pytest

from video_thinker.grounding import mean_best_iou, recall_at, set_iou, temporal_iou
from video_thinker.schema import Segment, TraceBlock


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((4, 8), (4, 8), 1.0),
        ((4, 8), (6, 10), 2 / 6),
        ((0, 10), (2, 4), 0.2),
        ((0, 1), (1, 2), 0.0),
        ((0, 1), (5, 6), 0.0),
        ((3, 3), (3, 3), 0.0),
        ((3, 3), (0, 6), 0.0),
    ],
)
def test_temporal_iou(a, b, iou):
    assert temporal_iou(Segment(*a), Segment(*b)) == pytest.approx(iou)
    assert temporal_iou(Segment(*b), TraceBlock(*a, caption="", think="")) == pytest.approx(iou)


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ([(4, 8)], [(4, 8)], 1.0),
        ([(4, 8)], [(6, 10)], 2 / 6),
        ([(4, 8), (4, 8), (5, 6)], [(4, 8)], 1.0),  # overlaps count once
        ([(0, 4), (2, 6), (20, 24)], [(0, 6)], 6 / 10),
        ([(0, 4), (10, 14)], [(0, 4)], 0.5),
        ([(0, 4), (10, 14)], [(12, 16), (2, 6)], 4 / 12),
        ([(0, 4), (4, 8)], [(0, 8)], 1.0),
        ([(8, 4)], [(4, 8)], 0.0),
        ([(9, 4), (4, 8)], [(4, 8)], 1.0),
        ([(4, 4)], [(4, 4)], 0.0),
        ([], [(4, 8)], 0.0),
        ([], [], 0.0),
    ],
)
def test_iou_of_sets_of_intervals(a, b, iou):
    assert set_iou(a, b) == pytest.approx(iou)
    assert set_iou(b, a) == pytest.approx(iou)


def test_a_set_of_intervals_against_itself_is_exactly_one():
    for start in range(300):
        spans = [(start / 7 + 3.3 * step, start / 7 + 3.3 * step + 0.1 * step) for step in range(1, 9)]
        assert set_iou(spans, spans) == set_iou(spans, spans[::-1]) == 1.0


def test_sets_of_intervals_that_do_not_meet_are_exactly_zero():
    for start in range(300):
        times = [start / 7 + step / 3 for step in range(8)]
        assert set_iou([(times[0], times[1]), (times[4], times[5])], [(times[2], times[3]), (times[6], times[7])]) == 0


GOLD = [Segment(0, 4), Segment(10, 14)]


def test_each_gold_segment_takes_its_best_span():
    pred = [Segment(0, 2), Segment(0, 4), Segment(11, 15), Segment(50, 60)]
    assert mean_best_iou(pred, GOLD) == pytest.approx((1.0 + 3 / 5) / 2)
    assert recall_at(pred, GOLD, 0.3) == 1.0
    assert recall_at(pred, GOLD, 0.6) == 1.0  # the threshold itself counts
    assert recall_at(pred, GOLD, 0.61) == 0.5


def test_one_span_may_serve_several_gold_segments():
    assert mean_best_iou([Segment(0, 8)], [Segment(0, 4), Segment(4, 8)]) == pytest.approx(0.5)


def test_the_order_does_not_matter():
    pred = [Segment(11, 15), Segment(0, 2)]
    assert mean_best_iou(pred, GOLD) == mean_best_iou(pred[::-1], GOLD[::-1])


def test_no_prediction_is_zero_and_no_gold_is_none():
    assert mean_best_iou([], GOLD) == 0.0
    assert recall_at([], GOLD, 0.3) == 0.0
    assert mean_best_iou(GOLD, []) is None
    assert recall_at(GOLD, [], 0.3) is None
    assert mean_best_iou([], []) is None
