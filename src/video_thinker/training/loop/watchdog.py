"""A watchdog over the training loop: when nothing moves any more, say where, and end the process.

A hang has no traceback: one rank waits in a collective for another one that is stuck in a file system, a decoder, or a
different collective, and the job burns its hours. Every process watches itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXIT_STUCK = 75


class Watchdog(TrainerCallback):
    """Ends the process with exit code 75 when no beat has come for `timeout_s` seconds.

    Args:
        timeout_s: Longest time between two beats; 0 turns the watchdog off.
        rank: This process' rank, for the message.
    """

    def __init__(self, timeout_s: float, rank: int) -> None:
        """See the class."""
        self.timeout_s, self.rank = timeout_s, rank
        self.doing, self.step = "starting", 0
        self.sample_ids: Sequence[str] = ()
        self._last_beat: float | None = None
        self._thread: threading.Thread | None = None

    def beat(self, doing: str, sample_ids: Sequence[str] | None = None) -> None:
        """Note that the loop is alive: what it does now, and on which samples (`None`: the same as before)."""
        self.doing = doing
        if sample_ids is not None:
            self.sample_ids = tuple(dict.fromkeys(sample_ids))
        self._last_beat = time.monotonic()

    def message(self) -> str:
        """Say where this process is stuck."""
        samples = ", ".join(self.sample_ids) or "none yet"
        return (
            f"rank {self.rank} is stuck: nothing has moved for {self.timeout_s:g} s (step_timeout_s) in step "
            f"{self.step + 1}, {self.doing}; samples: {samples}. Either a file cannot be read in that time, or the "
            "ranks wait for each other (compare this message of the other ranks: one is somewhere else). Raise "
            "step_timeout_s if the step is just long."
        )

    def _watch(self) -> None:
        while self._last_beat is not None:
            if time.monotonic() - self._last_beat > self.timeout_s:
                stack = traceback.format_stack(sys._current_frames()[threading.main_thread().ident or 0])
                sys.stderr.write(f"\nStuckError: {self.message()}\nrank {self.rank} is here:\n{''.join(stack)}\n")
                sys.stderr.flush()
                os._exit(EXIT_STUCK)
            time.sleep(min(1.0, self.timeout_s / 10))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start watching."""
        self.beat("loading the first batch")
        if self.timeout_s and self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is done."""
        self.step = state.global_step
        self.beat("logging, saving or loading the next batch")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A batch of an evaluation is done."""
        self.beat("evaluating")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop watching."""
        self._last_beat = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None
