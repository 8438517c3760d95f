"""The watchdog over the training loop: `runs.watchdog`, which beats with the trainer's steps."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from video_thinker.data.decoding.process import files_in_work
from video_thinker.runs import watchdog
from video_thinker.runs.watchdog import EXIT_STUCK

__all__ = ["EXIT_STUCK", "Watchdog"]


class Watchdog(watchdog.Watchdog, TrainerCallback):
    """Ends the process with exit code 75 when no beat has come for `timeout_s` seconds.

    Args:
        timeout_s: Longest time between two beats; 0 turns the watchdog off.
        rank: This process' rank, for the message.
    """

    def __init__(self, timeout_s: float, rank: int) -> None:
        """See the class."""
        super().__init__(timeout_s, who=f"rank {rank}", files_in_work=files_in_work)
        self.rank, self.step = rank, 0

    def message(self) -> str:
        """Say where this process is stuck."""
        return (
            f"{super().message()} Either a file cannot be read in that time, or the ranks wait for each other (compare "
            "this message of the other ranks: one is somewhere else)."
        )

    def place(self) -> str:
        """Say which step this is."""
        return f" in step {self.step + 1}"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start watching."""
        self.beat("loading the first batch")
        self.start()

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
        self.stop()
