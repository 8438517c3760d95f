"""Scoring a batch in parts: by a token budget instead of a number of rows, and in the order of length.

Lengths of video prompts and completions differ by a factor of ten, so a fixed number of rows either wastes memory or
runs out of it. With `max_tokens_per_forward` the rows of a micro-batch, however many, are scored in parts that each
hold at most so many tokens, padding included. In training each part is followed by its backward, so that the
activations of one part are in memory at a time; the loss is TRL's, computed over all rows, and its gradient the same.

Shapes: B rows of a batch, P prompt, C completion, L = P + C.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import DistributedType

from video_thinker.errors import ConfigError
from video_thinker.training.packing import group_rows

Scored = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


@dataclass
class TokenBudgetArguments:
    """In what parts a batch is scored."""

    max_tokens_per_forward: int | None = field(
        default=None,
        metadata={
            "help": "Token budget of a forward, padding included: a micro-batch of more tokens is scored, and in "
            "training back-propagated, in parts. By default a forward holds per_device_train_batch_size rows."
        },
    )
    length_order: bool = field(
        default=False, metadata={"help": "Score rows of like length together, so that little padding is computed."}
    )


@dataclass(frozen=True)
class RowLengths:
    """Tokens of each row: `prompts` (B,), `completions` (B,); rows of equal `keys` have one prompt."""

    prompts: Sequence[int]
    completions: Sequence[int]
    keys: Sequence[int]
    packed: bool

    def cost(self, rows: Sequence[int]) -> int:
        """Tokens of a forward over some rows, padding included: packed by prompt, or each with its own prompt."""
        groups = group_rows([self.keys[row] for row in rows]) if self.packed else [[i] for i in range(len(rows))]
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


class TokenBudgetMixin:
    """Scores batches in parts. Put it before the trainer class, which has `_score(model, rows, …)` and `_row_media`."""

    _row_media: list[dict[str, torch.Tensor]]
    _scored: Scored | None = None

    def check_parts(self) -> None:
        """Refuse what needs all rows of a micro-batch at once.

        Raises:
            ConfigError: naming the option.
        """
        args: Any = self.args  # type: ignore[attr-defined]
        if args.max_tokens_per_forward is None:
            return
        needs_all = {
            "top_entropy_quantile below 1": args.top_entropy_quantile < 1,
            "an adaptive entropy coefficient": getattr(self, "use_adaptive_entropy", False),
            "a router's auxiliary loss": getattr(self, "aux_loss_enabled", False),
        }
        for name, wanted in needs_all.items():
            if wanted:
                raise ConfigError(
                    f"max_tokens_per_forward={args.max_tokens_per_forward} does not go with {name}, which needs all "
                    "rows of a micro-batch at once; leave one of them out."
                )

    def _plan(self, attention_mask: torch.Tensor, logits_to_keep: int, max_rows: int) -> list[list[int]]:
        """Deal the rows at hand to parts; under a budget as many on each rank (further ones are empty)."""
        args: Any = self.args  # type: ignore[attr-defined]
        if args.max_tokens_per_forward is None and len(attention_mask) <= max_rows:
            return [list(range(len(attention_mask)))]
        lengths = RowLengths(
            attention_mask[:, :-logits_to_keep].sum(dim=1).tolist(),
            attention_mask[:, -logits_to_keep:].sum(dim=1).tolist(),
            [id(media) for media in self._row_media],
            self.shares_prefix,  # type: ignore[attr-defined]
        )
        parts = plan_parts(lengths, max_rows, args.max_tokens_per_forward, args.length_order)
        if args.max_tokens_per_forward is not None:
            count = torch.tensor([len(parts)], device=attention_mask.device)
            parts += [[]] * (int(self.accelerator.gather(count).max()) - len(parts))  # type: ignore[attr-defined]
        return parts

    def _score_parts(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        parts: list[list[int]],
        **kwargs: Any,
    ) -> Scored:
        """Score all rows, part by part; see `VideoGRPOTrainer._get_per_token_logps_and_entropies`."""
        if len(parts) == 1 and parts[0] == list(range(len(input_ids))):
            return self._score(model, input_ids, attention_mask, logits_to_keep, self._row_media, **kwargs)  # type: ignore[attr-defined,no-any-return]
        shape = (len(input_ids), logits_to_keep)
        logps = torch.zeros(shape, device=input_ids.device)
        entropies = torch.zeros(shape, device=input_ids.device) if kwargs.get("compute_entropy") else None
        aux_losses = []
        for part in parts:
            scored, scored_entropies, aux_loss = self._score_part(
                model, input_ids, attention_mask, logits_to_keep, part, **kwargs
            )
            logps = _put(logps, part, scored)
            if entropies is not None:
                entropies = _put(entropies, part, scored_entropies)
            aux_losses += [aux_loss] if part and aux_loss is not None else []
        return logps, entropies, torch.stack(aux_losses).mean() if aux_losses else None

    def _score_part(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        part: list[int],
        **kwargs: Any,
    ) -> Scored:
        """Score some rows without the padding that none of them needs: (b, c), c <= C. An empty part scores row 0."""
        rows = torch.tensor(part or [0], device=input_ids.device)
        mask = attention_mask[rows]
        used = mask.any(dim=0).nonzero().squeeze(1)
        num_prompt = mask.shape[1] - logits_to_keep
        end = max(int(used[-1]) + 1, num_prompt + 1)
        columns = slice(int(used[0]), end)
        media = [self._row_media[int(row)] for row in rows]
        scored: Scored = self._score(  # type: ignore[attr-defined]
            model, input_ids[rows, columns], mask[:, columns], end - num_prompt, media, **kwargs
        )
        return scored

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Compute TRL's loss; over several parts, with the backward of all but the last one.

        The loss of a part is that of all rows with the other rows' log-probabilities held constant: rows do not meet in
        it, so the gradients of all parts add up to that of the whole.
        """
        attention_mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        length = inputs["completion_ids"].shape[1]
        parts = self._plan(attention_mask, length, len(attention_mask))
        if len(parts) == 1 or not torch.is_grad_enabled():
            return super()._compute_loss(model, inputs)  # type: ignore[misc,no-any-return]
        input_ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        # Any finite values do; those near the policy's keep exp(reference - policy) of the KL term small.
        known = inputs.get("old_per_token_logps", inputs.get("ref_per_token_logps"))
        logps = torch.zeros(inputs["completion_ids"].shape, device=input_ids.device) if known is None else known
        entropies = torch.zeros_like(logps)
        for number, part in enumerate(parts, start=1):
            with self._synchronizing(model, is_last=number == len(parts)):
                scored, scored_entropies, _ = self._score_part(
                    model, input_ids, attention_mask, length, part, compute_entropy=True
                )
                live = (_put(logps, part, scored), _put(entropies, part, scored_entropies), None)
                with self._metrics_unchanged():
                    loss = self._loss_of(model, inputs, live)
                if number < len(parts):
                    self._backward_part(loss)
            logps, entropies = live[0].detach(), live[1].detach()
        with torch.no_grad():
            total = self._loss_of(model, inputs, (logps, entropies, None))
        return loss + (total - loss).detach()

    def _loss_of(self, model: Any, inputs: dict[str, Any], scored: Scored) -> torch.Tensor:
        """Compute TRL's loss of log-probabilities that are known."""
        self._scored = scored
        try:
            return super()._compute_loss(model, inputs)  # type: ignore[misc,no-any-return]
        finally:
            self._scored = None

    @contextmanager
    def _synchronizing(self, model: Any, *, is_last: bool) -> Iterator[None]:
        """Let ranks add up gradients after the last part only; DeepSpeed counts one micro-batch, which ends there."""
        state = self.accelerator.gradient_state  # type: ignore[attr-defined]
        before = state.sync_gradients
        if is_last:
            yield
        elif self.accelerator.distributed_type == DistributedType.DEEPSPEED:  # type: ignore[attr-defined]
            state._set_sync_gradients(False)
            try:
                yield
            finally:
                state._set_sync_gradients(before)
        else:
            with self.accelerator.no_sync(model):  # type: ignore[attr-defined]
                yield

    def _backward_part(self, loss: torch.Tensor) -> None:
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED  # type: ignore[attr-defined]
        with self.telemetry.phase("backward"):  # type: ignore[attr-defined]
            self.accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))  # type: ignore[attr-defined]

    @contextmanager
    def _metrics_unchanged(self) -> Iterator[None]:
        """Drop what is noted meanwhile: a part's loss is computed from values that are not the rows'."""
        metrics = self._metrics["train" if self.model.training else "eval"]  # type: ignore[attr-defined]
        lengths = {name: len(values) for name, values in metrics.items()}
        yield
        for name, values in metrics.items():
            del values[lengths.get(name, 0) :]


def _put(values: torch.Tensor, part: list[int], scored: torch.Tensor | None) -> torch.Tensor:
    """Put the values of a part's rows (b, c) in place (B, C); those of an empty part only keep their gradient path."""
    if scored is None:
        raise AssertionError("a part was scored without entropies")
    if not part:
        return values + 0.0 * scored.sum()
    padded = torch.nn.functional.pad(scored, (0, values.shape[1] - scored.shape[1]))
    return values.index_copy(0, torch.tensor(part, device=values.device), padded.to(values.dtype))
