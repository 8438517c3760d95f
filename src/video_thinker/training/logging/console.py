"""One readable line per log entry on the terminal; the rest goes to TensorBoard, W&B or trackio as configured."""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from video_thinker.training.logging.log_file import file_only

SHOWN = {
    "loss": "loss {:.3g}",
    "eval_loss": "eval loss {:.3g}",
    "mean_token_accuracy": "token accuracy {:.1%}",
    "reward": "reward {:.2f}",
    "eval_reward": "eval reward {:.2f}",
    "rewards/accuracy_reward/mean": "acc {:.0%}",
    "rewards/format_reward/mean": "fmt {:.0%}",
    "groups/mixed": "mixed {:.0%}",
    "kl": "KL {:.3f}",
    "entropy": "entropy {:.2f}",
    "completions/mean_length": "len {:.0f}",
    "time/step": "{:.2f} s/step",
    "perf/tokens_per_s": "{:.0f} tok/s",
    "perf/mfu": "MFU {:.0%}",
    "data/wait_share": "wait {:.0%}",
}
"""What a line shows, in this order, where it was logged; at most 160 columns in all. `mixed` is the share of groups
with right and wrong answers, `wait` that of the time spent waiting for data."""


LAST_REWARD = "rewards/format_reward/mean"
"""After it come the rewards that have no place of their own."""


def format_logs(logs: dict[str, Any], step: int, max_steps: int) -> str:
    """Write the shown metrics of one log entry: "step 5/200  loss 1.23  token accuracy 71%  0.52 s/step".

    Rewards that are not in `SHOWN` (a user's own) come after those that are: "brevity 0.71".

    TRL logs `None` for a reward that no completion of the step could be given; it is left out.
    """
    shown = []
    for key, text in SHOWN.items():
        if logs.get(key) is not None:
            shown.append(text.format(float(logs[key])))
        if key == LAST_REWARD:
            shown += [_format_reward(key, value) for key, value in logs.items() if _is_other_reward(key, value)]
    return "  ".join([f"step {step}/{max_steps}", *shown])


def _is_other_reward(key: str, value: Any) -> bool:
    return key.startswith("rewards/") and key.endswith("/mean") and key not in SHOWN and value is not None


def _format_reward(key: str, mean: float) -> str:
    return f"{key.removeprefix('rewards/').removesuffix('/mean').removesuffix('_reward')} {mean:.2f}"


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
            line = format_logs(logs, state.global_step, state.max_steps)
            self.training_bar.write(line)
            file_only.info("%s", line)


def use_console(trainer: Trainer) -> None:
    """Replace a trainer's own terminal output."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ConsoleCallback())
