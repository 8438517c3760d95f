"""Log-probabilities of completions: rows that share a prompt are packed into one, and scored in parts within a budget.

Every log-probability of the policy, the old policy and the reference comes from a `Scorer`. It is exact: values and
gradients are those of TRL's own path, which it takes where the attention cannot mask blocks.

Shapes: B rows of a batch, P prompt, C completion, L = P + C; b rows of a part, c <= C.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from video_thinker.data.encode import EncodedPrompt
from video_thinker.models import compat
from video_thinker.models.layers import SHARE_PREFIX_LAYERS, unshared_causes
from video_thinker.models.positions import continue_positions, pad_positions
from video_thinker.models.vision import FrozenFeatures, model_media
from video_thinker.training.packing import SHARED_ATTENTION, pack_groups, packed_attention_mask
from video_thinker.training.rollout import Batch
from video_thinker.training.token_budget import RowLengths, plan_parts, put_rows

logger = logging.getLogger(__name__)

Scored = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""Log-probabilities (B, C), entropies (B, C) or `None`, and a router's auxiliary loss or `None`."""


@dataclass(frozen=True)
class Rows:
    """Completions to score.

    `input_ids` and `attention_mask` are (B, L), prompts padded on the left, completions on the right;
    `completion_length` is C; row i continues `prompts[prompt_index[i]]`.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    completion_length: int
    prompts: Sequence[EncodedPrompt]
    prompt_index: Sequence[int]

    @classmethod
    def of_batch(cls, batch: Batch, prompts: Sequence[EncodedPrompt], prompt_index: Sequence[int]) -> Rows:
        """Take the rows of a micro-batch, as TRL holds it; row i continues `prompts[prompt_index[i]]`."""
        input_ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        attention_mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        return cls(input_ids, attention_mask, batch["completion_ids"].shape[1], prompts, prompt_index)

    def __len__(self) -> int:
        """B."""
        return len(self.prompt_index)

    @property
    def lengths(self) -> tuple[list[int], list[int]]:
        """Tokens of each row's prompt and of its completion."""
        prompt, completion = self.attention_mask.split(
            [self.attention_mask.shape[1] - self.completion_length, self.completion_length], dim=1
        )
        return prompt.sum(dim=1).tolist(), completion.sum(dim=1).tolist()

    def part(self, rows: Sequence[int]) -> Rows:
        """Take some rows, without the padding that none of them needs."""
        index = torch.tensor(rows, device=self.input_ids.device)
        mask = self.attention_mask[index]
        used = mask.any(dim=0).nonzero().squeeze(1)
        num_prompt = mask.shape[1] - self.completion_length
        end = max(int(used[-1]) + 1, num_prompt + 1)
        columns = slice(int(used[0]), end)
        return Rows(
            self.input_ids[index, columns],
            mask[:, columns],
            end - num_prompt,
            self.prompts,
            [self.prompt_index[row] for row in rows],
        )


class Scorer:
    """Scores rows with a model.

    Args:
        backbone: The module with `.visual` of the model that is trained; its attention decides what can be shared.
        autocast: The context of a forward.
        features: Features of a frozen tower, which the prompts' media then hold.
        share_prefix: Score a prompt and its completions in one row, where the attention can.
        max_tokens: Budget of a forward in tokens, padding included; `None` for none.
        length_order: Score rows of like length together.
        agree: The largest of a number over all ranks.
        on_packed: Called with the segments (R, L) of each packed forward.
    """

    def __init__(
        self,
        backbone: Any,
        autocast: Callable[[], AbstractContextManager[Any]],
        *,
        features: FrozenFeatures,
        share_prefix: bool = True,
        max_tokens: int | None = None,
        length_order: bool = False,
        agree: Callable[[int], int] = int,
        on_packed: Callable[[torch.Tensor], None] = lambda segments: None,
    ) -> None:
        """See the class."""
        self.attention: str = compat.attention_of(backbone.config)
        self._backbone, self._autocast, self._features = backbone, autocast, features
        self.max_tokens, self.length_order = max_tokens, length_order
        self._agree, self._on_packed = agree, on_packed
        causes = list(unshared_causes(backbone.config, SHARE_PREFIX_LAYERS))
        if self.attention not in SHARED_ATTENTION:
            causes.append(f"attention {self.attention!r} takes no mask of blocks; {SHARED_ATTENTION} do")
        self.shares_prefix = share_prefix and not causes
        if share_prefix and causes:
            logger.warning("share_prefix is off: %s; rows are scored one by one", ", ".join(causes))

    def plan(self, rows: Rows, max_rows: int) -> list[list[int]]:
        """Deal rows to forwards; under a budget as many on each rank (further ones are empty)."""
        if self.max_tokens is None and len(rows) <= max_rows:
            return [list(range(len(rows)))]
        lengths = RowLengths(*rows.lengths, keys=list(rows.prompt_index), packed=self.shares_prefix)
        parts = plan_parts(lengths, max_rows, self.max_tokens, self.length_order)
        if self.max_tokens is not None:
            parts += [[]] * (self._agree(len(parts)) - len(parts))
        return parts

    def score(self, model: Any, rows: Rows, plain: Callable[..., Scored], max_rows: int, **kwargs: Any) -> Scored:
        """Score rows in as many forwards as `plan` says.

        Args:
            model: The policy, an old one, or the reference.
            rows: What is scored.
            plain: TRL's own `_get_per_token_logps_and_entropies`.
            max_rows: Rows per forward, unless the budget bounds it.
            **kwargs: `compute_entropy` and `compute_aux_loss`, as TRL passes them on.
        """
        parts = self.plan(rows, max_rows)
        if len(parts) == 1 and parts[0] == list(range(len(rows))):
            return self.forward(model, rows, plain, **kwargs)
        shape, device = (len(rows), rows.completion_length), rows.input_ids.device
        logps = torch.zeros(shape, device=device)
        entropies = torch.zeros(shape, device=device) if kwargs.get("compute_entropy") else None
        aux_losses = []
        for part in parts:
            scored, scored_entropies, aux_loss = self.score_part(model, rows, part, plain, **kwargs)
            logps = put_rows(logps, part, scored)
            if entropies is not None and scored_entropies is not None:
                entropies = put_rows(entropies, part, scored_entropies)
            aux_losses += [aux_loss] if part and aux_loss is not None else []
        return logps, entropies, torch.stack(aux_losses).mean() if aux_losses else None

    def score_part(
        self, model: Any, rows: Rows, part: Sequence[int], plain: Callable[..., Scored], **kwargs: Any
    ) -> Scored:
        """Score some rows without the padding that none of them needs: (b, c). An empty part scores row 0."""
        return self.forward(model, rows.part(part or [0]), plain, **kwargs)

    def forward(self, model: Any, rows: Rows, plain: Callable[..., Scored], **kwargs: Any) -> Scored:
        """Score rows in one forward, packed by prompt or as TRL does."""
        if self.shares_prefix and not kwargs.get("compute_aux_loss"):
            return *self._packed(model, rows, kwargs.get("compute_entropy", False)), None
        device = rows.input_ids.device
        prompts = [rows.prompts[number] for number in rows.prompt_index]
        media = model_media([prompt.media for prompt in prompts], device, self._features.is_used)
        places = [
            torch.cat([prompt.position_ids, continue_positions(prompt.position_ids, rows.completion_length)], dim=1)
            for prompt in prompts
        ]
        position_ids = pad_positions(places, rows.input_ids.shape[1], "left").to(device)
        with_video = functools.partial(model, **media, position_ids=position_ids)
        return plain(with_video, rows.input_ids, rows.attention_mask, rows.completion_length, **kwargs)

    def _packed(self, model: Any, rows: Rows, compute_entropy: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        packed = pack_groups(
            rows.input_ids, rows.attention_mask, rows.completion_length, rows.prompts, rows.prompt_index
        )
        mask = packed_attention_mask(packed.segments, self.attention, self._backbone.dtype)
        self._on_packed(packed.segments)
        with self._autocast():
            outputs = model(
                input_ids=packed.input_ids,
                attention_mask=mask,
                position_ids=packed.position_ids,
                shift_labels=packed.shift_labels,
                fused_lm_head=True,
                packed_rows=packed.rows,
                **model_media(packed.media, rows.input_ids.device, self._features.is_used),
            )
        entropies = packed.unpack(outputs.entropy) if compute_entropy else None
        return packed.unpack(outputs.log_probs), entropies
