from __future__ import annotations

import time

import pytest
import torch

from video_thinker.training.logging import timeline as module
from video_thinker.training.logging.timeline import Timeline


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only by hand: `clock(2)` lets two seconds pass."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


@pytest.fixture
def timeline(clock) -> Timeline:
    return Timeline(torch.device("cpu"))


def test_the_innermost_phase_counts_and_all_add_up(timeline, clock):
    timeline.start()
    clock(1)
    with timeline.phase("forward"):
        clock(2)
        with timeline.phase("vision"):
            clock(4)
        clock(8)
    timeline.switch("backward")
    clock(16)
    with timeline.phase("optimizer"):
        clock(32)
    clock(64)
    timeline.stop()
    assert timeline.seconds() == {"other": 1, "forward": 10, "vision": 4, "backward": 80, "optimizer": 32}
    assert timeline.seconds() == {}


def test_time_between_steps_belongs_to_no_phase(timeline, clock):
    with timeline.phase("forward"):
        clock(1)
    for _ in range(2):
        timeline.start()
        clock(2)
        timeline.stop()
        with timeline.phase("generation"):  # an evaluation
            clock(50)
    assert timeline.seconds() == {"other": 4}


def test_a_pause_hides_what_happens_in_it(timeline, clock):
    timeline.start()
    with timeline.phase("forward"):
        clock(1)
        with timeline.paused():
            assert not timeline.is_running
            with timeline.phase("scoring"):
                clock(2)
        assert timeline.is_running
        clock(4)
    timeline.stop()
    with timeline.paused():
        clock(8)
    assert not timeline.is_running
    assert timeline.seconds() == {"forward": 5, "other": 2}


def test_an_error_leaves_its_phase(timeline, clock):
    timeline.start()
    with pytest.raises(RuntimeError), timeline.phase("reward"):
        clock(1)
        raise RuntimeError
    clock(2)
    timeline.stop()
    assert timeline.seconds() == {"reward": 1, "other": 2}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_work_of_a_gpu_counts_in_the_phase_that_started_it():
    timeline = Timeline(torch.device("cuda"))
    matrix = torch.randn(4096, 4096, device="cuda")
    matrix @ matrix
    torch.cuda.synchronize()
    start = time.perf_counter()
    timeline.start()
    with timeline.phase("forward"):
        for _ in range(50):
            matrix @ matrix
    with timeline.phase("backward"):
        pass
    timeline.stop()
    seconds = timeline.seconds()
    assert sum(seconds.values()) == pytest.approx(time.perf_counter() - start, rel=0.1)
    assert seconds["forward"] > 0.9 * sum(seconds.values())
