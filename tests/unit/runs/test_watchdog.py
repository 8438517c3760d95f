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


def test_it_ends_with_its_block():
    watchdog = Watchdog(5.0)
    with watchdog.watching():
        assert watchdog._thread is not None and watchdog._thread.is_alive()
    assert watchdog._thread is None
