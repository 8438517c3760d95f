"""Scoring a batch in parts: by a token budget instead of a number of rows, and in the order of length.

Lengths of video prompts and completions differ by a factor of ten, so a fixed number of rows either wastes memory or
runs out of it. With `max_tokens_per_forward` the rows of a micro-batch, however many, are scored in parts that each
hold at most so many tokens, padding included. `loss.py` computes TRL's loss over such parts.

Shapes: B rows of a batch, P prompt, C completion, L = P + C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from video_thinker.errors import ConfigError
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


def put_rows(values: torch.Tensor, part: Sequence[int], scored: torch.Tensor) -> torch.Tensor:
    """Put the values of a part's rows (b, c) in place (B, C); those of an empty part only keep their gradient path."""
    if not part:
        return values + 0.0 * scored.sum()
    padded = torch.nn.functional.pad(scored, (0, values.shape[1] - scored.shape[1]))
    return values.index_copy(0, torch.tensor(part, device=values.device), padded.to(values.dtype))
