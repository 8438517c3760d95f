"""Where the time of a training step goes: every moment of it belongs to one phase.

Phases nest, and the innermost one counts, so their seconds add up to the step's. On a CPU a border is a clock reading.
On a GPU, where calls return before the work is done, it is a CUDA event put into the stream: nothing waits for the GPU
until the seconds are asked for, once per logging step. The time between two events is the GPU's own, so work of the CPU
(decoding, say) counts as far as the GPU had to wait for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

OTHER = "other"


class Timeline:
    """Stopwatch over phases. Outside of `start` … `stop`, and while paused, everything is a no-op.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        """See the class."""
        self._on_gpu = device.type == "cuda"
        self._stack: list[str] = []
        self._borders: list[tuple[Any, str | None]] = []
        self.is_running = False

    def _border(self, phase: str | None) -> None:
        """Note that from now on `phase` runs, `None` for the time between two steps."""
        if self._on_gpu:
            now: Any = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self._borders.append((now, phase))

    def start(self) -> None:
        """Begin a step, in the phase "other"."""
        self._stack = [OTHER]
        self.is_running = True
        self._border(OTHER)

    def stop(self) -> None:
        """End a step."""
        if self.is_running:
            self.is_running = False
            self._border(None)

    def enter(self, phase: str) -> None:
        """Begin a phase inside the present one."""
        if self.is_running:
            self._stack.append(phase)
            self._border(phase)

    def leave(self) -> None:
        """End the innermost phase."""
        if self.is_running:
            self._stack.pop()
            self._border(self._stack[-1])

    @contextmanager
    def phase(self, phase: str) -> Iterator[None]:
        """Do something in a phase."""
        self.enter(phase)
        try:
            yield
        finally:
            self.leave()

    def switch(self, phase: str) -> None:
        """Go on in another phase on the same level."""
        if self.is_running:
            self._stack[-1] = phase
            self._border(phase)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do something whose phases do not count, all of it "other" (checks that are not part of the training)."""
        was_running = self.is_running
        self.enter(OTHER)
        self.is_running = False
        try:
            yield
        finally:
            self.is_running = was_running
            self.leave()

    def seconds(self) -> Counter[str]:
        """Seconds per phase of the steps since the last call. Waits for the GPU."""
        totals = Counter[str]()
        if self._borders and self._on_gpu:
            self._borders[-1][0].synchronize()
        for (start, phase), (end, _) in zip(self._borders, self._borders[1:], strict=False):
            if phase is not None:
                totals[phase] += start.elapsed_time(end) / 1000 if self._on_gpu else end - start
        self._borders = []
        return totals
