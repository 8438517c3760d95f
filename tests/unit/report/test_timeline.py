from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from video_thinker.data.video import SampledVideo
from video_thinker.report.timeline import (
    SEGMENT_COLORS,
    assign_lanes,
    describe_span,
    draw_timeline,
    on_color,
    tick_step,
    wrap,
)
from video_thinker.schema import Trace, TraceBlock

TEN_S = 10.0


def block(start_s: float, end_s: float, caption: str = "a ball", think: str = "it rolls") -> TraceBlock:
    return TraceBlock(start_s, end_s, caption, think)


def video(num_frames: int = 6, duration_s: float = TEN_S, size: tuple[int, int] = (20, 36)) -> SampledVideo:
    frames = torch.full((num_frames, 3, *size), 200, dtype=torch.uint8)
    times = tuple(i * duration_s / num_frames for i in range(num_frames))
    return SampledVideo(frames, times, duration_s, num_frames / duration_s, "pyav")


def rows(*spans: tuple[float, float]) -> list[int | None]:
    return [lane.row if lane else None for lane in assign_lanes([block(*span) for span in spans], TEN_S)]


def test_moments_that_follow_each_other_share_a_row():
    assert rows((0, 3), (3, 5), (5, 10)) == [0, 0, 0]


def test_moments_that_meet_get_rows_of_their_own():
    assert rows((0, 5), (3, 7), (4, 6), (7, 9)) == [0, 1, 2, 0]


def test_the_order_in_the_text_does_not_matter():
    assert rows((5, 8), (0, 5)) == [0, 0]


def test_a_moment_is_cut_at_the_end_and_dropped_outside():
    cut, outside = assign_lanes([block(8, 30), block(12, 14)], TEN_S)
    assert (cut.start_s, cut.end_s) == (8, 10)
    assert outside is None


def test_a_span_says_if_the_video_does_not_have_it():
    assert describe_span(block(1, 3), TEN_S) == "00:01 – 00:03"
    assert describe_span(block(8, 10.9), 10.2) == "00:08 – 00:10.9"  # within the rounding of MM:SS
    assert "beyond the end" in describe_span(block(8, 30), TEN_S)
    assert "outside" in describe_span(block(12, 14), TEN_S)


@pytest.mark.parametrize("duration_s", [0.09, 0.5, 3, 22, 61, 600, 3599, 7200, 86400, 500_000])
def test_ticks_are_few_at_any_length(duration_s):
    assert duration_s / tick_step(duration_s) <= 12
    if duration_s >= 0.5:
        assert duration_s / tick_step(duration_s) >= 3


def test_wrapping():
    assert wrap("", 5) == []
    assert wrap("one two", 5) == ["one two"]
    assert wrap("word " * 400, 5, max_lines=3)[-1].endswith("…") and len(wrap("word " * 400, 5, max_lines=3)) == 3
    chinese, latin = wrap("球" * 60, 4), wrap("o" * 60, 4)
    assert len(chinese) == pytest.approx(2 * len(latin), abs=1)


def test_text_stands_out_on_every_color():
    assert {on_color(color) for color in SEGMENT_COLORS} == {"white", "#1A1A1A"}
    assert on_color("#0072B2") == "white" and on_color("#E69F00") == "#1A1A1A"


def draw(path, given: SampledVideo, trace: Trace | None, answer: str = "B. red"):
    return Image.open(draw_timeline(path, given, "Which ball?", answer, trace, note="model")).convert("RGB")


def test_every_moment_has_a_bar_in_its_color(tmp_path):
    trace = Trace((block(0, 3), block(3, 6), block(2, 4)), "B")
    picture = draw(tmp_path / "new" / "t.png", video(), trace)
    shades = {color for _, color in picture.getcolors(picture.width * picture.height)}
    expected = [tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in SEGMENT_COLORS]
    assert [color in shades for color in expected] == [True, True, True, False, False, False]


def test_a_bar_lies_where_its_span_is(tmp_path):
    picture = draw(tmp_path / "t.png", video(), Trace((block(5, 10, caption=""),), "B"))
    blue = tuple(int(SEGMENT_COLORS[0][i : i + 2], 16) for i in (1, 3, 5))
    columns = np.flatnonzero((np.asarray(picture) == blue).all(axis=2).any(axis=0))
    bar = columns[columns > picture.width * 0.1]  # without the badge at the left
    assert min(bar) == pytest.approx(picture.width / 2, abs=6)
    assert max(bar) == pytest.approx(picture.width * (1 - 0.45 / 14), abs=6)


def test_more_text_makes_a_taller_picture_and_nothing_is_squeezed(tmp_path):
    short = draw(tmp_path / "a.png", video(), Trace((block(0, 3),), "B"))
    long = draw(tmp_path / "b.png", video(), Trace((block(0, 3, caption="word " * 120),), "B"))
    assert long.width == short.width and long.height > short.height + 60


@pytest.mark.parametrize(
    ("given", "trace"),
    [
        (video(2, 0.1), None),
        (video(64, 7200.0), Trace(tuple(block(i * 100, i * 100 + 150) for i in range(40)), "B")),
        (video(size=(90, 20)), Trace((block(2, 2.01),), None)),
        (video(), Trace((block(0, 3, caption="from $\\frac{1 to $2, <b>50%</b> 球"),), "B")),
        (video(), Trace((), "B")),
    ],
    ids=["no trace", "two hours, many moments", "upright, very short", "signs", "answer only"],
)
def test_any_trace_can_be_drawn(given, trace, tmp_path):
    assert draw(tmp_path / "t.png", given, trace, answer="$\\alpha$ [x]").height > 250
