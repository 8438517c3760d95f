"""How the work of a function grows with its text: a ratio of CPU times, so that no machine is too slow for a test."""

from __future__ import annotations

import time
from collections.abc import Callable

FACTOR = 8
NOISE_S = 0.03


def cpu_seconds(work: Callable[[str], object], text: str, repeats: int) -> float:
    """Give the shortest of several CPU times of this process."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work(text)
        seconds.append(time.process_time() - start)
    return min(seconds)


def assert_grows_linearly(work: Callable[[str], object], text: str) -> None:
    """Fail if a text takes far more than the 8 times of its eighth: twice that is noise, 64 times is quadratic."""
    half = len(text) // FACTOR // 2
    short = cpu_seconds(work, text[:half] + text[-half:], 3)
    for _ in range(3):  # a busy machine disturbs one of them
        whole = cpu_seconds(work, text, 1)
        if whole < 3 * FACTOR * short + NOISE_S:
            return
    raise AssertionError(f"{text[:30]!r}…: {len(text)} characters take {whole:.2f} s, an eighth of them {short:.4f} s")
