"""Whether a training has a step at all, found out before the model is loaded: else it would train nothing, silently."""

from __future__ import annotations

from typing import Protocol

from video_thinker.errors import ConfigError


class StepArguments(Protocol):
    """What decides of a config how many rows a step takes."""

    per_device_train_batch_size: int
    dataloader_drop_last: bool

    @property
    def world_size(self) -> int:
        """Number of processes."""


class RolloutArguments(Protocol):
    """What decides of a GRPO config how many prompts a rollout takes."""

    generation_batch_size: int | None
    num_generations: int | None


def check_rows_for_sft(args: StepArguments, num_rows: int, name: str) -> None:
    """Refuse fewer rows than the smallest batch.

    Args:
        args: The config.
        num_rows: Rows to train on.
        name: Where they come from, for the message.

    Raises:
        ConfigError: `dataloader_drop_last` would drop all of them.
    """
    needed = args.per_device_train_batch_size * args.world_size if args.dataloader_drop_last else 1
    if num_rows < needed:
        raise ConfigError(
            f"{name} has {num_rows} rows, but a batch takes {needed} (per_device_train_batch_size="
            f"{args.per_device_train_batch_size} x {args.world_size} processes), and dataloader_drop_last=true drops a "
            "smaller one: no step would be trained. Set dataloader_drop_last=false, or lower the batch size."
        )


def check_rows_for_grpo(args: RolloutArguments, num_rows: int, name: str) -> None:
    """Refuse fewer rows than one rollout takes: TRL drops a rollout that is not full.

    Args:
        args: The config.
        num_rows: Rows to train on.
        name: Where they come from, for the message.

    Raises:
        ConfigError: there are fewer.
    """
    batch_size, num_generations = args.generation_batch_size or 1, args.num_generations or 1
    needed = batch_size // num_generations
    if num_rows < needed:
        raise ConfigError(
            f"{name} has {num_rows} prompts, but a rollout takes {needed} (generation_batch_size={batch_size} / "
            f"num_generations={num_generations}): no step would be trained. Lower per_device_train_batch_size or "
            "steps_per_generation, or give more prompts."
        )
