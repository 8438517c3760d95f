"""The watchdog ends a process in which nothing moves, and names what was in work."""

from __future__ import annotations

import subprocess
import sys

from video_thinker.runs.watchdog import EXIT_STUCK, Watchdog

STUCK = """
import threading
from video_thinker.runs.watchdog import Watchdog
with Watchdog(0.2, files_in_work=lambda: ["a.mp4 (sample 'q7', decoder pyav)"]).watching() as watchdog:
    watchdog.beat("reading media", ["q7"])
    threading.Event().wait(60)
"""


def test_a_process_in_which_nothing_moves_ends_and_says_where():
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == EXIT_STUCK
    assert "nothing has moved for 0.2 s (step_timeout_s), reading media; samples: q7. " in done.stderr
    assert "Files being decoded: a.mp4 (sample 'q7', decoder pyav)" in done.stderr
    assert "this process is here:" in done.stderr and "in wait" in done.stderr


def test_it_ends_with_its_block():
    watchdog = Watchdog(5.0)
    with watchdog.watching():
        assert watchdog._thread is not None and watchdog._thread.is_alive()
    assert watchdog._thread is None


def test_zero_watches_nothing():
    with Watchdog(0).watching() as watchdog:
        assert watchdog._thread is None


def test_a_beat_names_each_sample_once_and_keeps_the_last_ones():
    watchdog = Watchdog(5.0, "limit_s", "rank 1")
    assert "rank 1 is stuck: nothing has moved for 5 s (limit_s), starting; samples: none yet" in watchdog.message()
    watchdog.beat("reading media", ["a", "b", "a"])
    watchdog.beat("generating completions")
    assert "generating completions; samples: a, b. Files being decoded: none. Raise limit_s" in watchdog.message()


def test_what_moves_is_left_alone(monkeypatch):
    watchdog = Watchdog(1.0)
    clock, ended = [10.0], []
    monkeypatch.setattr("video_thinker.runs.watchdog.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("video_thinker.runs.watchdog.os._exit", lambda code: ended.append(clock[0]))

    def later(seconds):
        clock[0] += 0.75
        if clock[0] < 14:
            watchdog.beat("moving")
        elif clock[0] > 17:
            watchdog._last_beat = None

    monkeypatch.setattr("video_thinker.runs.watchdog.time.sleep", later)
    watchdog.beat("moving")
    watchdog._watch()
    assert ended and ended[0] > 14
