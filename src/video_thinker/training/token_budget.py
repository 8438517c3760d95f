"""Scoring a batch in parts: by a token budget instead of a number of rows, and in the order of length.

Lengths of video prompts and completions differ by a factor of ten, so a fixed number of rows either wastes memory or
runs out of it. With `max_tokens_per_forward` the rows of a micro-batch, however many, are scored in parts that each
hold at most so many tokens, padding included. In training each part is followed by its backward, so that the
activations of one part are in memory at a time; the loss is TRL's, computed over all rows, and its gradient the same.

Shapes: B rows of a batch, P prompt, C completion, L = P + C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from video_thinker.errors import ConfigError
from video_thinker.models.compat import deepspeed_without_sync
from video_thinker.training.packing import group_rows


@dataclass(frozen=True)
class RowLengths:
    """Tokens of each row: `prompts` (B,), `completions` (B,); rows of equal `keys` have one prompt."""

    prompts: Sequence[int]
    completions: Sequence[int]
    keys: Sequence[int]
    packed: bool

    def cost(self, rows: Sequence[int]) -> int:
        """Tokens of a forward over some rows, padding included.

        Packed, a row is a prompt with its completions. Else prompts are padded on the left and completions on the
        right, so a row is as wide as the longest prompt and the longest completion together.
        """
        if not self.packed:
            width = max(self.prompts[row] for row in rows) + max(self.completions[row] for row in rows)
            return len(rows) * width
        groups = group_rows([self.keys[row] for row in rows])
        return len(groups) * max(self.length([rows[i] for i in group]) for group in groups)

    def length(self, group: Sequence[int]) -> int:
        """Tokens of rows that share a prompt."""
        return self.prompts[group[0]] + sum(self.completions[row] for row in group)

    def longest_first(self) -> list[int]:
        """Order rows by length; packed, those of a prompt stay together."""
        groups = group_rows(self.keys) if self.packed else [[row] for row in range(len(self.prompts))]
        return [row for group in sorted(groups, key=self.length, reverse=True) for row in group]


def plan_parts(lengths: RowLengths, max_rows: int, max_tokens: int | None, length_order: bool) -> list[list[int]]:
    """Deal rows to parts: of at most `max_tokens`, if given, or of `max_rows` rows.

    A single row above the budget is a part by itself.
    """
    parts: list[list[int]] = []
    for row in lengths.longest_first() if length_order else range(len(lengths.prompts)):
        fits = bool(parts) and (
            len(parts[-1]) < max_rows if max_tokens is None else lengths.cost([*parts[-1], row]) <= max_tokens
        )
        if fits:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def check_budget(args: Any, *, adaptive_entropy: bool, aux_loss: bool) -> None:
    """Refuse what needs all rows of a micro-batch at once.

    Raises:
        ConfigError: naming the option.
    """
    if args.max_tokens_per_forward is None:
        return
    needs_all = {
        "top_entropy_quantile below 1": args.top_entropy_quantile < 1,
        "an adaptive entropy coefficient": adaptive_entropy,
        "a router's auxiliary loss": aux_loss,
    }
    for name, wanted in needs_all.items():
        if wanted:
            raise ConfigError(
                f"max_tokens_per_forward={args.max_tokens_per_forward} does not go with {name}, which needs all "
                "rows of a micro-batch at once; leave one of them out."
            )


def loss_in_parts(
    parts: Sequence[Sequence[int]],
    known_logps: torch.Tensor,
    score_part: Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]],
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    backward: Callable[[torch.Tensor], None],
    last_part: Callable[[bool], AbstractContextManager[None]],
    quietly: Callable[[], AbstractContextManager[None]],
) -> torch.Tensor:
    """Compute a loss over rows that are scored in parts, with the backward of all parts but the last one.

    The loss of a part is that of all rows with the other rows' log-probabilities held constant: rows do not meet in it,
    so the gradients of all parts add up to that of the whole.

    Args:
        parts: The rows of each part.
        known_logps: (B, C) values for rows not scored yet. Any finite ones do; those near the policy's keep
            exp(reference - policy) of the KL term small.
        score_part: Gives log-probabilities and entropies (b, c) of some rows.
        loss_of: Gives the loss of log-probabilities and entropies (B, C).
        backward: Back-propagates the loss of a part.
        last_part: A context for a part, told whether it is the last; ranks add up gradients in the last one only.
        quietly: A context in which no metric is kept: a part's loss is computed from values that are not the rows'.

    Returns:
        The loss of all rows, whose gradient is still that of the last part.
    """
    logps, entropies = known_logps, torch.zeros_like(known_logps)
    loss = torch.zeros((), device=known_logps.device)
    for number, part in enumerate(parts, start=1):
        is_last = number == len(parts)
        with last_part(is_last):
            scored, scored_entropies = score_part(part)
            live = put_rows(logps, part, scored), put_rows(entropies, part, scored_entropies)
            with quietly():
                loss = loss_of(*live)
            if not is_last:
                backward(loss)
        logps, entropies = live[0].detach(), live[1].detach()
    with torch.no_grad():
        total = loss_of(logps, entropies)
    return loss + (total - loss).detach()


@contextmanager
def metrics_unchanged(metrics: dict[str, list[float]]) -> Iterator[None]:
    """Drop what is added to lists of metrics meanwhile."""
    lengths = {name: len(values) for name, values in metrics.items()}
    yield
    for name, values in metrics.items():
        del values[lengths.get(name, 0) :]


@contextmanager
def gradients_of_last_part(accelerator: Accelerator, model: Any, is_last: bool) -> Iterator[None]:
    """Let ranks add up gradients after the last part only; DeepSpeed counts one micro-batch, which ends there."""
    if is_last:
        yield
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:
        with deepspeed_without_sync(accelerator):
            yield
    else:
        with accelerator.no_sync(model):
            yield


def put_rows(values: torch.Tensor, part: Sequence[int], scored: torch.Tensor) -> torch.Tensor:
    """Put the values of a part's rows (b, c) in place (B, C); those of an empty part only keep their gradient path."""
    if not part:
        return values + 0.0 * scored.sum()
    padded = torch.nn.functional.pad(scored, (0, values.shape[1] - scored.shape[1]))
    return values.index_copy(0, torch.tensor(part, device=values.device), padded.to(values.dtype))
