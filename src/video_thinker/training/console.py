"""One readable line per log entry on the terminal; the rest goes to TensorBoard, W&B or trackio as configured."""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

SHOWN = {
    "loss": "loss",
    "eval_loss": "eval loss",
    "mean_token_accuracy": "token accuracy",
    "reward": "reward",
    "eval_reward": "eval reward",
    "rewards/accuracy_reward/mean": "accuracy",
    "rewards/format_reward/mean": "format",
    "groups/mixed": "mixed groups",
    "frac_reward_zero_std": "zero-advantage groups",
    "kl": "KL",
    "entropy": "entropy",
    "completions/mean_length": "tokens",
    "canary/log_prob_gap": "canary gap",
    "step_time": "s/step",
}


def format_logs(logs: dict[str, Any], step: int, max_steps: int) -> str:
    """Write the shown metrics of one log entry: "step 5/200  loss 1.23  token accuracy 0.71"."""
    shown = [f"{label} {float(logs[key]):.3g}" for key, label in SHOWN.items() if key in logs]
    return "  ".join([f"step {step}/{max_steps}", *shown])


class ConsoleCallback(ProgressCallback):
    """The progress bar of transformers, with `format_logs` instead of the whole dictionary."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line above the bar, on the first process only."""
        if state.is_world_process_zero and self.training_bar is not None and logs and SHOWN.keys() & logs.keys():
            self.training_bar.write(format_logs(logs, state.global_step, state.max_steps))


def use_console(trainer: Trainer) -> None:
    """Replace a trainer's own terminal output."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ConsoleCallback())
