from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_thinker.errors import DataError
from video_thinker.spotlight.frames import (
    LONG_VIEW,
    LOOK_RULES,
    SHORT_VIEW,
    first_view,
    frame_at,
    look_frames,
    resolve_look,
    spread,
    time_of,
    view_for,
    view_size,
)

TRAINING, INFERENCE = LOOK_RULES["frame_thinker"], LOOK_RULES["frame_thinker_infer"]


@pytest.mark.parametrize(
    ("num_frames", "num", "frames"),
    [
        (480, 8, (0, 68, 136, 205, 273, 342, 410, 479)),
        (97, 5, (0, 24, 48, 72, 96)),
        (100, 12, (0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99)),
        (3, 8, (0, 0, 0, 0, 1, 1, 1, 2)),
        (1, 8, (0,) * 8),
        (50, 1, (0,)),
    ],
)
def test_first_view(num_frames, num, frames):
    assert first_view(num_frames, num) == frames


@pytest.mark.parametrize(
    ("start", "end", "num", "frames"),
    [
        (120, 480, 8, (121, 172, 223, 274, 325, 376, 427, 479)),
        (0, 9, 8, (1, 2, 3, 4, 5, 6, 7, 8)),
        (24, 48, 5, (25, 30, 36, 41, 47)),
    ],
)
def test_look_frames(start, end, num, frames):
    assert look_frames(start, end, num) == frames


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([8, 12]))
def test_the_spread_is_that_of_linspace_cut_to_integers(first, length, num):
    assert spread(first, first + length, num) == tuple(np.linspace(first, first + length, num).astype(int).tolist())


@pytest.mark.parametrize(("first", "last", "num"), [(5, 4, 8), (-1, 4, 8), (0, 4, 0)])
def test_an_impossible_spread_is_refused(first, last, num):
    with pytest.raises(DataError):
        spread(first, last, num)
    with pytest.raises(DataError):
        first_view(0, 8)


def test_size_and_number_of_frames_go_by_duration():
    assert (view_for(300.0), view_for(300.01)) == (SHORT_VIEW, LONG_VIEW)


@pytest.mark.parametrize(
    ("size", "view", "expected"),
    [
        ((1920, 1080), SHORT_VIEW, (644, 364)),  # 23 x 13 = 299 tokens
        ((1920, 1080), LONG_VIEW, (448, 252)),  # 16 x 9 = 144 tokens
        ((320, 180), SHORT_VIEW, (308, 168)),  # not scaled up
        ((1080, 1920), SHORT_VIEW, (196, 364)),
        ((4000, 10), LONG_VIEW, (448, 28)),
    ],
)
def test_view_size(size, view, expected):
    assert view_size(*size, view) == expected


def test_a_frame_without_pixels_is_refused():
    with pytest.raises(DataError):
        view_size(0, 10, SHORT_VIEW)


@pytest.mark.parametrize(
    ("start", "end", "training", "inference"),
    [
        (100, 200, (100, 200), (100, 200)),
        (0, 99, (0, 99), (0, 99)),
        (0, 199, (0, 199), (0, 199)),
        (0, 200, (0, 200), (0, 200)),
        (0, 240, (0, 240), "ends at 240"),
        (0, 999, (0, 240), "ends at 999"),
        (231, 240, (231, 240), "ends at 240"),
        (232, 240, "8 wide", "ends at 240"),
        (232, 999, "8 wide", "ends at 999"),
        (100, 108, "8 wide", "8 wide"),
        (100, 109, (100, 109), (100, 109)),
        (200, 100, "-100 wide", "-100 wide"),
        (240, 300, "0 wide", "ends at 300"),
        (241, 300, "starts at 241", "starts at 241"),
        (-1, 100, "starts at -1", "starts at -1"),
    ],
)
def test_a_look_is_clamped_or_refused(start, end, training, inference):
    for rule, expected in ((TRAINING, training), (INFERENCE, inference)):
        found = resolve_look(start, end, 240, 8, rule)
        if isinstance(expected, str):
            assert isinstance(found, str)
            assert expected in found
        else:
            assert found == expected


@pytest.mark.parametrize("fps", [1.0, 4.0, 10.0, 24.0, 25.0, 30.0, 30000 / 1001])
def test_frame_at_a_constant_rate_is_time_times_rate(fps):
    times = np.arange(5000) / fps
    for time_s in range(int(5000 / fps)):
        assert frame_at(float(time_s), times) == int(time_s * fps)


@pytest.mark.parametrize(
    ("time_s", "frame"),
    [(0.0, 0), (0.4, 0), (0.5, 1), (1.99, 1), (2.0, 2), (2.0 - 1e-9, 2), (59.0, 2), (60.0, 3), (1e9, 3)],
)
def test_frame_at_real_times_is_the_last_one_not_after_it(time_s, frame):
    assert frame_at(time_s, [0.0, 0.5, 2.0, 60.0]) == frame


def test_before_the_first_frame_the_first_one_counts():
    assert frame_at(0.0, [0.25, 0.5]) == 0


@pytest.mark.parametrize("time_s", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(time_s):
    with pytest.raises(DataError):
        frame_at(time_s, [0.0])
    with pytest.raises(DataError):
        frame_at(1.0, [])


def test_time_of_a_frame():
    assert time_of(2, [0.0, 0.5, 2.0]) == 2.0
    for frame in (-1, 3):
        with pytest.raises(DataError):
            time_of(frame, [0.0, 0.5, 2.0])
