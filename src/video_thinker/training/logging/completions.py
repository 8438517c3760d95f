"""Sampled completions of a GRPO run, written to `completions.jsonl` for people to read."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from video_thinker.models import compat
from video_thinker.rewards.completions import completion_text
from video_thinker.runs.completions import CompletionRow, append_rows, keep_until
from video_thinker.runs.files import LogFile
from video_thinker.schema import VideoSample

FILE_NAME = "completions.jsonl"


@dataclass(frozen=True)
class Graded:
    """What was rewarded: completions and their ids of this rank (B), rewards of all ranks (B of all, functions)."""

    completions: list[Any]
    completion_ids: list[list[int]]
    rewards: torch.Tensor


class CompletionLog(TrainerCallback):
    """Writes the first completions of a batch every so many steps, on the first process.

    Args:
        path: The file.
        every: Steps from one sampling that is logged to the next, from step 1 on; 0 logs none.
        num_rows: Completions per sampling; a multiple of the group's size shows whole groups.
        steps_per_sampling: Optimizer steps that one sampling serves.
    """

    def __init__(self, path: Path, every: int, num_rows: int, steps_per_sampling: int) -> None:
        """See the class."""
        self.path, self.every, self.num_rows = path, every, num_rows
        self.steps_per_sampling = steps_per_sampling
        self._last_step = 0
        self._file = LogFile(path, "completions")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the steps that come again."""
        self._last_step = state.global_step
        if self.every and state.is_world_process_zero:
            keep_until(self.path, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say how many completions could not be written."""
        self._file.close()

    def is_due(self, step: int) -> bool:
        """Tell whether this sampling is logged: that of step 1, and the first one that serves a multiple of `every`.

        Every sampling asks once, with the step (from 1) it is for. The answer depends on the steps alone, so that all
        ranks agree, and a run that was continued logs what it would have.
        """
        if not self.every or step <= self._last_step:
            return False
        self._last_step = step
        return step == 1 or -step % self.every < self.steps_per_sampling

    def log(self, trainer: Any, graded: Graded, samples: Sequence[VideoSample], advantages: torch.Tensor) -> None:
        """Write the first completions of all ranks, where this step's are due.

        Args:
            trainer: A `VideoGRPOTrainer` between two steps.
            graded: What was rewarded.
            samples: The sample of each row of this rank (B).
            advantages: (B,).
        """
        step = trainer.state.global_step + 1
        if not self.is_due(step):
            return
        rows = completion_rows(
            graded,
            samples,
            advantages.tolist(),
            step=step,
            rank=trainer.accelerator.process_index,
            reward_names=trainer.reward_func_names,
            end_token_ids={*trainer.eos_token_ids, compat.tokenizer_of(trainer).pad_token_id},
        )
        gathered = gather_object(rows)
        if trainer.accelerator.is_main_process:
            append_rows(self._file, gathered[: self.num_rows])


def completion_rows(
    graded: Graded,
    samples: Sequence[VideoSample],
    advantages: Sequence[float],
    *,
    step: int,
    rank: int,
    reward_names: Sequence[str],
    end_token_ids: Container[int],
) -> list[CompletionRow]:
    """Describe the completions of this rank."""
    first = rank * len(samples)
    local_rewards = graded.rewards[first : first + len(samples)].tolist()
    return [
        CompletionRow(
            step=step,
            problem_id=sample.id,
            path=paths[0] if len(paths := [media.path for media in sample.media]) == 1 else paths,
            question=sample.problem,
            options=list(sample.options),
            gold=sample.answer,
            completion=completion_text(completion),
            rewards={
                name: None if math.isnan(value) else value for name, value in zip(reward_names, values, strict=True)
            },
            advantage=advantage,
            num_tokens=len(completion_ids),
            truncated=completion_ids[-1] not in end_token_ids,
        )
        for sample, completion, completion_ids, values, advantage in zip(
            samples, graded.completions, graded.completion_ids, local_rewards, advantages, strict=True
        )
    ]
