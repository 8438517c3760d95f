"""Hints while GRPO cannot learn: what the log shows, and the command to look at it, once per stretch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

PATIENCE_STEPS = 10
"""So many steps in a row must show it: small batches look bad by chance now and then."""

LARGE_KL = 2.0
"""Nats per token. A policy that learns stays below 0.5; above 2 its text has little to do with the reference's."""


@dataclass(frozen=True)
class Trouble:
    """Something that keeps GRPO from learning.

    `found` looks at a log entry. `text` says what it is and what to do. `patience` is how many steps must show it.
    """

    name: str
    found: Callable[[Mapping[str, Any]], bool]
    text: str
    patience: int = PATIENCE_STEPS


def _is(logs: Mapping[str, Any], key: str, test: Callable[[float], bool]) -> bool:
    value = logs.get(key)
    return value is not None and not math.isnan(value) and test(value)


def _no_reward(logs: Mapping[str, Any]) -> bool:
    if _is(logs, "groups/ungraded", lambda share: share == 1):
        return True
    means = [value for key, value in logs.items() if key.startswith("rewards/") and key.endswith("/mean")]
    return bool(means) and all(value is None or math.isnan(value) for value in means)


TROUBLES = (
    Trouble(
        "format",
        lambda logs: _is(logs, "rewards/format_reward/mean", lambda mean: mean == 0),
        "no completion was in the trace format. SFT teaches the format: start from its checkpoint "
        "(model_name_or_path), with the same prompt_style, and leave room in max_completion_length",
    ),
    Trouble(
        "equal",
        lambda logs: _is(logs, "frac_reward_zero_std", lambda share: share == 1),
        "in each group all rewards were equal, so nothing was learned. Take questions that are answered right "
        "sometimes (`video-thinker difficulty`), raise temperature or num_generations, or set dynamic_sampling_rounds",
    ),
    Trouble(
        "clipped",
        lambda logs: _is(logs, "completions/clipped_ratio", lambda share: share == 1),
        "every completion was cut off at max_completion_length. Raise it, or look whether the completions end at all",
    ),
    Trouble(
        "kl",
        lambda logs: _is(logs, "kl", lambda kl: kl > LARGE_KL),
        f"the policy is more than {LARGE_KL:g} nats per token away from the reference (kl). Lower learning_rate, raise "
        "beta, or go back to an earlier checkpoint",
        patience=1,
    ),
    Trouble(
        "no reward",
        _no_reward,
        "no completion got a reward: each was None. The golds cannot be graded, or the rewards do not apply to these "
        "problem types (`video-thinker validate`)",
    ),
)


class Hints(TrainerCallback):
    """Says once per stretch what keeps a run from learning."""

    def __init__(self, completions_file: Path) -> None:
        """See the module; `completions_file` is where the run logs completions."""
        self.completions_file = completions_file
        self._since: dict[str, int] = {}
        self._said: set[str] = set()
        self._last_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count from the step that training goes on from."""
        self._last_step = state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at an entry of the training log, which is a mean over the steps since the last one."""
        if not logs or "reward" not in logs:
            return
        first, self._last_step = self._last_step, state.global_step
        for trouble in TROUBLES:
            if not trouble.found(logs):
                self._since.pop(trouble.name, None)
                self._said.discard(trouble.name)
                continue
            since = self._since.setdefault(trouble.name, first)
            num_steps = state.global_step - since
            if num_steps >= trouble.patience and trouble.name not in self._said:
                self._said.add(trouble.name)
                if state.is_world_process_zero:
                    command = f"video-thinker completions {self.completions_file}"
                    logger.warning(
                        "for %d steps (up to step %d), %s. Look: %s",
                        num_steps,
                        state.global_step,
                        trouble.text,
                        command,
                    )
