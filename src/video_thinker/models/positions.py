"""Positions of tokens, as the released checkpoints were trained: the one place that computes them.

A Qwen-VL model gives each token three positions: time, height and width. Text has the same number on all three axes.

**Qwen2.5-VL** (arXiv 2502.13923, section 2.1.2). A video that begins at position s has the positions

    time   = s + floor(pair * seconds_per_pair * tokens_per_second)
    height = s + row
    width  = s + column

for its merged patches, and the text after the video goes on at the largest of all three axes + 1. That is the rule of
`get_rope_index` in transformers 4.49 (the first release with the model), of vLLM and of verl. Two other rules exist:

- transformers 5 lets the text go on at s + max(rows, columns). The question about a long video then stands in the
  middle of the video's time: no released checkpoint was trained so.
- transformers 4.57 has the released rule for text, but cuts `seconds_per_pair` to a whole number before the product.
  Fractions are kept here, as in 4.49, vLLM, verl and transformers 5.

**Qwen3-VL** writes the time of every pair of frames as text. Each pair has a run of vision tokens of its own, with
positions as an image has: time = s, then s + max(rows, columns) for what follows. All versions agree.

**Qwen2-VL** knows no seconds: time = s + pair. The text goes on as after a video of Qwen2.5-VL.

An image has time = s in all families.

Shapes: B rows, P tokens of a prompt, L tokens of a padded row, I images, V videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from video_thinker.errors import ConfigError, DataError

TIME_AS_TEXT = frozenset({"qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"})
"""Families whose prompts name the time before each pair of frames; each pair is then placed like an image."""

_Grids = dict[int, list[tuple[list[int], torch.Tensor]]]

KINDS = {1: "image", 2: "video"}
"""Values of `mm_token_type_ids` that are no text."""


@dataclass(frozen=True)
class PositionRule:
    """How one checkpoint numbers its tokens; see the module.

    Attributes:
        spatial_merge_size: Patches along one side of a vision token.
        tokens_per_second: Steps of the time axis in a second; `None` if a pair of frames is one step.
        time_as_text: Whether each pair of frames has its own run of vision tokens.
    """

    spatial_merge_size: int
    tokens_per_second: float | None = None
    time_as_text: bool = False

    @classmethod
    def from_config(cls, config: Any) -> PositionRule:
        """Read the rule from a model's config.

        Raises:
            ConfigError: the family is not supported.
        """
        family = config.model_type
        if family == "qwen2_5_vl":
            return cls(config.vision_config.spatial_merge_size, config.vision_config.tokens_per_second)
        if family in TIME_AS_TEXT:
            return cls(config.vision_config.spatial_merge_size, time_as_text=True)
        if family == "qwen2_vl":
            return cls(config.vision_config.spatial_merge_size)
        known = ", ".join(sorted({"qwen2_5_vl", "qwen2_vl", *TIME_AS_TEXT}))
        raise ConfigError(
            f"model_type={family!r}: how this family numbers its tokens is not known here; supported are {known}."
        )

    def prompt_positions(
        self,
        token_types: Sequence[int] | torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the positions of one prompt without padding.

        Args:
            token_types: (P,) 0 text, 1 image, 2 video (`mm_token_type_ids`).
            image_grid_thw: (I, 3) patches of each image along time, height and width, in the prompt's order.
            video_grid_thw: (V, 3) the same of each video.
            second_per_grid_ts: (V,) seconds between pairs of frames of each video; 1 without it.

        Returns:
            (3, P) on the CPU.

        Raises:
            DataError: the vision tokens are not those of the grids.
        """
        grids = {1: self._grids(1, image_grid_thw, None), 2: self._grids(2, video_grid_thw, second_per_grid_ts)}
        positions = self._place(torch.as_tensor(token_types).tolist(), grids)
        _check_all_used(grids)
        return positions

    def rope_index(
        self,
        input_ids: torch.Tensor,
        mm_token_type_ids: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the positions of padded rows, in the form of transformers' `get_rope_index`.

        Args:
            input_ids: (B, L).
            mm_token_type_ids: (B, L).
            image_grid_thw: (I, 3) of all rows, in their order.
            video_grid_thw: (V, 3).
            second_per_grid_ts: (V,).
            attention_mask: (B, L), 0 at padding; no padding without it.

        Returns:
            Positions (3, B, L), 0 at padding, and (B, 1) the position of the next token less L.

        Raises:
            DataError: see `prompt_positions`.
        """
        grids = {1: self._grids(1, image_grid_thw, None), 2: self._grids(2, video_grid_thw, second_per_grid_ts)}
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        positions = torch.zeros(3, *input_ids.shape, dtype=torch.long)
        deltas = torch.zeros(len(input_ids), 1, dtype=torch.long)
        for row, used in enumerate(mask.bool().cpu()):
            placed = self._place(mm_token_type_ids[row].cpu()[used].tolist(), grids)
            positions[:, row, used] = placed
            deltas[row] = placed.max() + 1 - input_ids.shape[1]
        _check_all_used(grids)
        return positions.to(input_ids.device), deltas.to(input_ids.device)

    def _place(self, types: list[int], grids: _Grids) -> torch.Tensor:
        """Give tokens of some types their positions (3, P), and take the grids of their vision tokens off the lists."""
        blocks: list[torch.Tensor] = []
        place = start = 0
        while place < len(types):
            kind = types[place]
            if kind == 0:
                end = next((i for i in range(place, len(types)) if types[i]), len(types))
                block = torch.arange(end - place).expand(3, -1)
            else:
                if not grids[kind]:
                    raise DataError(f"a prompt has more runs of {KINDS[kind]} tokens than {KINDS[kind]} grids.")
                block = self._block(*grids[kind].pop(0))
                end = place + block.shape[1]
                if types[place:end] != [kind] * block.shape[1]:
                    raise DataError(
                        f"a prompt's {KINDS[kind]} has {block.shape[1]} vision tokens by its grid, but at token "
                        f"{place} there are fewer of them; do not truncate prompts."
                    )
            blocks.append(block + start)
            start += int(block.max()) + 1
            place = end
        return torch.cat(blocks, dim=1) if blocks else torch.zeros(3, 0, dtype=torch.long)

    def _grids(
        self, kind: int, grid_thw: torch.Tensor | None, seconds: torch.Tensor | None
    ) -> list[tuple[list[int], torch.Tensor]]:
        """List the runs of vision tokens of a kind: their grid, and the step of the time axis per pair of frames."""
        if grid_thw is None:
            return []
        grids: list[list[int]] = grid_thw.tolist()
        if kind == 1:
            return [(grid, torch.tensor(0)) for grid in grids]
        if self.time_as_text:
            return [([1, h, w], torch.tensor(0)) for t, h, w in grids for _ in range(t)]
        if self.tokens_per_second is None or seconds is None:
            return [(grid, torch.tensor(1)) for grid in grids]
        return list(zip(grids, seconds.cpu(), strict=True))

    def _block(self, grid_thw: list[int], seconds: torch.Tensor) -> torch.Tensor:
        """Place the vision tokens of one grid from 0: (3, t h w / merge²)."""
        num_pairs, rows, columns = grid_thw[0], *(n // self.spatial_merge_size for n in grid_thw[1:])
        # In this order of products, in float32, as the released code: floor() must fall on the same side.
        times = (torch.arange(num_pairs) * seconds * (self.tokens_per_second or 1)).long()
        axes = torch.meshgrid(times, torch.arange(rows), torch.arange(columns), indexing="ij")
        return torch.stack(axes).reshape(3, -1)


def _check_all_used(grids: _Grids) -> None:
    if left := [KINDS[kind] for kind, rest in grids.items() if rest]:
        raise DataError(f"a prompt has fewer runs of {' and '.join(left)} tokens than grids.")


def use_released_positions(model: Any) -> None:
    """Let one loaded model number tokens by its `PositionRule` where a caller of `forward` or `generate` does not.

    This package passes `position_ids` to every forward. The model's own `get_rope_index`, which transformers 5 has
    changed for videos, is replaced on this object only, so that no call of it can disagree.

    Args:
        model: A Qwen-VL model with its language-model head, before adapters are put around it.

    Raises:
        ConfigError: the family is not supported.
    """
    model.model.get_rope_index = PositionRule.from_config(model.config).rope_index


def continue_positions(prompt_positions: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Give the positions (3, C) of what follows a prompt (3, P): token n stands at its last position + 1 + n."""
    return prompt_positions[:, -1:] + 1 + torch.arange(num_tokens, device=prompt_positions.device)


def pad_positions(rows: Sequence[torch.Tensor], length: int, side: str) -> torch.Tensor:
    """Pad positions (3, P) of several rows to (3, B, L) on the "left" or "right"; padding is masked, its value is 0."""
    pads = [(length - row.shape[1], 0) if side == "left" else (0, length - row.shape[1]) for row in rows]
    return torch.stack([torch.nn.functional.pad(row, pad) for row, pad in zip(rows, pads, strict=True)], dim=1)
