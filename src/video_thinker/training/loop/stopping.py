"""Ctrl-C, SIGTERM, a closed terminal: end the step, save a checkpoint, stop, so that the same command continues."""

from __future__ import annotations

import logging
import os
import signal
import time
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP (the terminal was closed)"}
EXIT_SIGINT = 128 + signal.SIGINT
EXIT_SIGTERM = 128 + signal.SIGTERM

LAUNCHER_S = 3.0
"""A launcher passes Ctrl-C on to processes that the terminal has told already: within this time it is the same one."""


class StopCallback(TrainerCallback):
    """On SIGTERM (SLURM's pre-emption, a container's stop), Ctrl-C or SIGHUP: end the step, save a checkpoint, stop.

    SIGHUP comes when the terminal is closed or its connection is lost; a run under `nohup` goes on.

    The processes agree at the end of every step, since the signal may reach them in different steps. A second Ctrl-C
    ends the process at once.
    """

    def __init__(self, *, launched: bool = False) -> None:
        """Start without a signal; `launched` says that a launcher passes signals on."""
        self.received = 0
        self.stopped = 0
        self._grace_s = LAUNCHER_S if launched else 0.0
        self._since = 0.0

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._since = signum, now
            name = NAMES[signal.Signals(signum)]
            again = "; once more ends at once, without saving" if signum == signal.SIGINT else ""
            logger.warning("%s: the step in progress is finished and saved%s", name, again)
        elif signum == signal.SIGINT and now - self._since >= self._grace_s:
            os.write(2, b"\nended at once, without saving\n")
            os._exit(EXIT_SIGINT)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen."""
        for number in NAMES:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop if any process was told to."""
        received = torch.tensor(float(self.received), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX)
        if received.item() and state.global_step < state.max_steps:
            self.stopped = int(received.item())
            control.should_save = True
            control.should_training_stop = True

    def give_back(self) -> None:
        """Let the signals do what they did before."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
