"""What one sampling of a GRPO batch holds, and how its rows pass through TRL's shuffle and split.

A rollout has R distinct prompts and B rows; row i continues prompt `prompt_index[i]`, an int column of TRL's batch that
TRL shuffles and splits by itself. TRL shuffles whatever lies along the first axis: here chunks of rows of one prompt
(`fold_rows`), so that the rows of a prompt stay together in a micro-batch and can share its work.

Shapes: B rows, R distinct prompts, S rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import CheckpointError
from video_thinker.schema import Media, Segment, VideoSample

Batch = dict[str, Any]
"""TRL's batch: tensors (B, …), lists of B, and values that all rows share."""


@dataclass
class Rollout:
    """Distinct prompts (R), the samples they were made of (R), and which of them each row continues (B)."""

    prompts: list[EncodedPrompt]
    samples: list[VideoSample]
    prompt_index: list[int]

    @classmethod
    def of_rows(cls, rows: Sequence[dict[str, Any]], encode: Callable[[dict[str, Any]], EncodedPrompt]) -> Rollout:
        """Make the rollout of a batch of rows `{"sample": VideoSample, …}`; each distinct sample is encoded once."""
        places: dict[str, int] = {}
        rollout = cls([], [], [])
        for row in rows:
            sample: VideoSample = row["sample"]
            if sample.id not in places:
                places[sample.id] = len(places)
                rollout.samples.append(sample)
                rollout.prompts.append(encode(row))
            rollout.prompt_index.append(places[sample.id])
        return rollout

    def row_samples(self, prompt_index: Sequence[int] | None = None) -> list[VideoSample]:
        """The sample of each row, of all rows or of those given."""
        return [self.samples[number] for number in (self.prompt_index if prompt_index is None else prompt_index)]

    def drop_unused(self, prompt_index: torch.Tensor) -> None:
        """Keep the prompts of some rows (B,) alone; their numbers in `prompt_index` are brought up to date in place."""
        used = sorted(set(prompt_index.tolist()))
        new = {old: number for number, old in enumerate(used)}
        self.prompts, self.samples = [self.prompts[i] for i in used], [self.samples[i] for i in used]
        self.prompt_index = [new[old] for old in prompt_index.tolist()]
        prompt_index.copy_(torch.tensor(self.prompt_index))

    def joined(self, other: Rollout) -> Rollout:
        """Hold the prompts of both; those of `other` are numbered from `len(self.prompts)` on. The rows stay."""
        return Rollout([*self.prompts, *other.prompts], [*self.samples, *other.samples], self.prompt_index)


def chunk_size(rows_per_micro_batch: int, num_generations: int) -> int:
    """Largest number of rows of one prompt that a micro-batch is made of: whole groups wherever they fit."""
    return math.gcd(rows_per_micro_batch, num_generations)


def fold_rows(batch: Batch, size: int) -> Batch:
    """Put chunks of `size` rows along the first axis: tensors (B, …) -> (B / size, size, …), lists likewise."""
    folded: Batch = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            folded[name] = value.unflatten(0, (-1, size))
        elif isinstance(value, list):
            folded[name] = [value[i : i + size] for i in range(0, len(value), size)]
        else:
            folded[name] = value
    return folded


def unfold_rows(batch: Batch) -> Batch:
    """Undo `fold_rows`, in the order in which the chunks now lie."""
    unfolded: Batch = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            unfolded[name] = value.flatten(0, 1)
        elif isinstance(value, list):
            unfolded[name] = [row for chunk in value for row in chunk]
        else:
            unfolded[name] = value
    return unfolded


def save_rollout(
    checkpoint: Path, rank: int, step: int, batches: list[Batch] | None, rollout: Rollout | None, generate_every: int
) -> None:
    """Save where in the life of its rollout a process is, and the rollout, if it is still to be used."""
    in_use = step % generate_every != 0
    state = {"step": step, "batches": batches if in_use else None, "rollout": rollout if in_use else None}
    torch.save(state, checkpoint / f"rollouts_{rank}.pt")


def load_rollout(checkpoint: Path, rank: int, device: torch.device) -> tuple[int, list[Batch] | None, Rollout | None]:
    """Load what `save_rollout` saved: the step, the micro-batches and the rollout.

    Raises:
        CheckpointError: an earlier version of this package saved them.
    """
    with torch.serialization.safe_globals([Rollout, EncodedPrompt, VideoSample, Segment, Media]):
        state = torch.load(checkpoint / f"rollouts_{rank}.pt", map_location=device, weights_only=True)
    if "rollout" not in state and state["rollouts"] is None:
        return state["step"], None, None
    if "rollout" not in state:
        raise CheckpointError(
            f"{checkpoint}: its rollouts are those of an earlier version of this package and cannot be used; start the "
            "run anew, from the model it began with, in another output_dir."
        )
    return state["step"], state["batches"], state["rollout"]
