"""Scoring a group in one row: the prompt once, then each of its completions, which do not see each other.

G completions of one prompt share P prompt tokens, of which a video makes hundreds or thousands. Scored as G rows they
cost G (P + C) tokens; here they cost P + G C, with the same log-probabilities: attention is causal and blocked between
completions, and the positions of each completion go on from the prompt's.

    row of a group:  p0 … p(P-2) | p(P-1) c0 … c(n-2) | p(P-1) d0 … d(m-2) | …
    predicts:        –           | c0 c1 … c(n-1)     | d0 d1 … d(m-1)     | …

The prompt's last token is copied in front of each completion, so that each has a predecessor of its own.

With SDPA the attention of a long row is computed in two calls that skip what the mask forbids: the prompt sees itself,
causally; then all completions, side by side, see the prompt and themselves. One call with a mask would do all L x L
pairs (`packed_attention`).

Shapes: B rows (completions), R groups, P prompt, C completion, L packed row; H heads of the queries, K of the keys.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from video_thinker.data.encode import EncodedPrompt
from video_thinker.models import compat
from video_thinker.models.positions import continue_positions
from video_thinker.models.tower_calls import find_vision_model

Media = dict[str, torch.Tensor]

PADDING = -1
PACKED_SDPA = "video_thinker_packed_sdpa"
"""The name of `packed_attention` among transformers' attention implementations."""

SHARED_ATTENTION = ("sdpa", "eager", "flex_attention")
"""Attention implementations that take a mask of blocks; FlashAttention's kernels do not."""

MIN_LENGTH_IN_PARTS = 1024
"""Rows below this many tokens go through one call with a mask: several small calls would take longer."""


@dataclass(frozen=True)
class PackedRow:
    """What stands in one packed row: `prompt` tokens, then completions of `completions` tokens, then padding."""

    prompt: int
    completions: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens without padding."""
        return self.prompt + sum(self.completions)

    @property
    def is_cheaper_in_parts(self) -> bool:
        """Tell whether fewer pairs are computed side by side than with a mask over all pairs of the row."""
        longest = max(self.completions, default=0)
        pairs = self.prompt**2 // 2 + len(self.completions) * longest * (self.prompt + longest)
        return (
            bool(self.completions) and self.prompt > 1 and self.length >= MIN_LENGTH_IN_PARTS and pairs < self.length**2
        )


@dataclass(frozen=True)
class PackedGroups:
    """The groups of a batch, one row each, padded on the right.

    `rows` says what stands in each. `input_ids`, `segments` (0 prompt, 1 … completions, -1 padding) and `shift_labels`
    (what each position predicts, -100 for none) are (R, L); `position_ids` (3, R, L); `token_index` (B, C) says where
    in the flattened (R L) each completion token is predicted, and `token_mask` (B, C) which tokens there are.
    """

    rows: tuple[PackedRow, ...]
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    segments: torch.Tensor
    shift_labels: torch.Tensor
    token_index: torch.Tensor
    token_mask: torch.Tensor
    media: list[Media]

    def unpack(self, values: torch.Tensor) -> torch.Tensor:
        """Bring values of packed positions (R, L) back to rows (B, C); zero where there is no token."""
        return values.flatten()[self.token_index] * self.token_mask


def group_rows(keys: Sequence[Hashable]) -> list[list[int]]:
    """List the rows of each group, groups in the order of their first row."""
    groups: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def pack_groups(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    logits_to_keep: int,
    prompts: Sequence[EncodedPrompt],
    prompt_index: Sequence[int],
) -> PackedGroups:
    """Pack rows that share a prompt.

    Args:
        input_ids: (B, P + C) prompts padded on the left, completions on the right.
        attention_mask: (B, P + C).
        logits_to_keep: C.
        prompts: Distinct prompts.
        prompt_index: (B,) which of them each row continues.
    """
    device = input_ids.device
    num_rows = len(input_ids)
    prompt_mask, token_mask = attention_mask[:, :-logits_to_keep].bool(), attention_mask[:, -logits_to_keep:].bool()
    lengths = token_mask.sum(dim=1).tolist()
    token_index = torch.zeros(num_rows, logits_to_keep, dtype=torch.long, device=device)
    groups = group_rows(prompt_index)
    rows: list[dict[str, torch.Tensor]] = []
    starts: list[dict[int, int]] = []
    for group in groups:
        first = group[0]
        prompt = input_ids[first, :-logits_to_keep][prompt_mask[first]]
        positions = prompts[prompt_index[first]].position_ids.to(device)
        ids, places, segments, labels = [prompt[:-1]], [positions[:, :-1]], [torch.zeros_like(prompt[:-1])], []
        labels.append(torch.full_like(prompt[:-1], -100))
        start, offsets = len(prompt) - 1, {}
        for number, row in enumerate(group, start=1):
            length = lengths[row]
            if length == 0:  # masked as a whole (`mask_truncated_completions`)
                continue
            completion = input_ids[row, -logits_to_keep:][:length]
            ids += [prompt[-1:], completion[:-1]]
            places += [positions[:, -1:], continue_positions(positions, length - 1)]
            segments.append(torch.full_like(completion, number))
            labels.append(completion)
            offsets[row] = start
            start += length
        rows.append({"ids": torch.cat(ids), "places": torch.cat(places, dim=1).T, "segments": torch.cat(segments)})
        rows[-1]["labels"] = torch.cat(labels)
        starts.append(offsets)

    def padded(name: str, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=value)

    packed_ids = padded("ids", int(input_ids[groups[0][0], -logits_to_keep]))
    for number, offsets in enumerate(starts):
        for row, start in offsets.items():
            place = number * packed_ids.shape[1] + start
            token_index[row, : lengths[row]] = torch.arange(place, place + lengths[row], device=device)
    return PackedGroups(
        rows=tuple(
            PackedRow(int((row["segments"] == 0).sum()), tuple(lengths[i] for i in group if lengths[i]))
            for row, group in zip(rows, groups, strict=True)
        ),
        input_ids=packed_ids,
        position_ids=padded("places", 0).permute(2, 0, 1),
        segments=padded("segments", PADDING),
        shift_labels=padded("labels", -100),
        token_index=token_index,
        token_mask=token_mask,
        media=[prompts[prompt_index[group[0]]].media for group in groups],
    )


def packed_attention_mask(segments: torch.Tensor, attn_implementation: str, dtype: torch.dtype) -> Any:
    """Build the mask of packed rows in the form that the attention implementation takes.

    A token sees the tokens before it that belong to the prompt or to its own completion.

    Args:
        segments: (R, L), see `PackedGroups`.
        attn_implementation: One of `SHARED_ATTENTION`.
        dtype: The model's, for "eager".

    Returns:
        "sdpa": boolean (R, 1, L, L), True where a token is seen. "eager": the same, added to the scores (0 or lowest).
        "flex_attention": a `BlockMask`.
    """
    if attn_implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        def sees(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return (query >= key) & ((segments[batch, key] == 0) | (segments[batch, key] == segments[batch, query]))

        rows, length = segments.shape
        return create_block_mask(sees, rows, None, length, length, device=str(segments.device))
    keys = segments[:, None, :]
    seen = (keys == 0) | (keys == segments[:, :, None])
    seen = torch.tril(seen)[:, None]
    if attn_implementation == "sdpa":
        return seen
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def use_packed_attention(*models: torch.nn.Module | None) -> None:
    """Let the language models of these models attend by `packed_attention` where they attend by "sdpa" now.

    It is registered under a name of its own, and chosen on these objects only.
    """
    for model in models:
        if model is None:
            continue
        config: Any = find_vision_model(model).language_model.config
        if compat.attention_of(config) == "sdpa":
            AttentionInterface.register(PACKED_SDPA, packed_attention)
            AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
            compat.set_attention(config, PACKED_SDPA)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_rows: Sequence[PackedRow] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' "sdpa" does; rows that are packed and long, in parts.

    Args:
        module: The attention layer.
        query: (R, H, L, D).
        key: (R, K, L, D).
        value: (R, K, L, D).
        attention_mask: (R, 1, L, L) of packed rows, or whatever "sdpa" takes.
        packed_rows: What stands in each of the R rows, passed through the model's forward.
        **kwargs: Scaling and dropout.

    Returns:
        (R, L, H, D), zero at padding of rows in parts, and no weights.
    """
    if packed_rows is None or attention_mask is None or not any(row.is_cheaper_in_parts for row in packed_rows):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    outputs = []
    for number, row in enumerate(packed_rows):
        one = slice(number, number + 1)
        states = (query[one], key[one], value[one])
        if row.is_cheaper_in_parts:
            attended = _attend_in_parts(module, *states, row, **kwargs)
            outputs.append(torch.nn.functional.pad(attended, (0, 0, 0, 0, 0, query.shape[2] - row.length)))
        else:
            outputs.append(sdpa_attention_forward(module, *states, attention_mask[one], **kwargs)[0])
    return torch.cat(outputs), None


def _attend_in_parts(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row: PackedRow,
    **kwargs: Any,
) -> torch.Tensor:
    """Attend in one row without its padding: (1, `row.length`, H, D)."""
    prompt, size, longest = row.prompt, len(row.completions), max(row.completions)
    prompt_key, prompt_value = key[:, :, :prompt], value[:, :, :prompt]
    of_prompt, _ = sdpa_attention_forward(module, query[:, :, :prompt], prompt_key, prompt_value, None, **kwargs)
    lengths = torch.tensor(row.completions, device=query.device)
    places = torch.arange(longest, device=query.device)
    used = places < lengths[:, None]  # (G, C)
    index = (prompt + lengths.cumsum(0) - lengths)[:, None] + places * used

    def side_by_side(states: torch.Tensor) -> torch.Tensor:
        """Cut completions out of (1, H, L, D): (G, H, C, D)."""
        return states[0][:, index].transpose(0, 1)

    keys = torch.cat([prompt_key.expand(size, -1, -1, -1), side_by_side(key)], dim=2)
    values = torch.cat([prompt_value.expand(size, -1, -1, -1), side_by_side(value)], dim=2)
    itself = torch.ones(longest, longest, dtype=torch.bool, device=query.device).tril()
    mask = torch.nn.functional.pad(itself, (prompt, 0), value=True)[None, None]  # padding comes last: nobody sees it
    of_completions, _ = sdpa_attention_forward(module, side_by_side(query), keys, values, mask, **kwargs)
    return torch.cat([of_prompt, of_completions[used][None]], dim=1)
