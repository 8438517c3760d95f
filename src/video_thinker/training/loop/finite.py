"""A training stops at the first number that is not finite, before it reaches the weights or a checkpoint.

Transformers logs a loss of NaN as 0 (`logging_nan_inf_filter`) and goes on: every later step is lost, and the
checkpoints made before it rotate away. Here each micro-batch's loss and log-probabilities are noted, without waiting
for the device. All ranks look at them once per step, with the norm of the gradient, before the optimizer moves the
weights. (DeepSpeed has moved them by then, in memory; nothing is saved any more.) Weights are looked at before they
are saved.

With float16, a gradient that overflows is no error: the scaler skips the step and lowers its scale. A loss that is not
finite is one, since the loss is computed without the scale; so is a scale that does not recover.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from video_thinker.errors import DataError, NonFiniteError
from video_thinker.models.weights import check_finite, name_some, not_finite, not_finite_anywhere
from video_thinker.training.loop.checkpoints import last_good_checkpoint

MAX_SKIPPED_STEPS = 25
"""So many float16 steps in a row may overflow: each halves the scale, which starts at 65536."""


class FiniteGuard(TrainerCallback):
    """Notes what a step computes, and stops all ranks at what is not finite.

    Args:
        trainer: A Transformers trainer that has a `watchdog`, which knows the samples in work.
    """

    def __init__(self, trainer: Any) -> None:
        """See the class."""
        self._trainer = trainer
        self._noted: list[tuple[str, torch.Tensor, tuple[str, ...]]] = []
        self._samples: dict[str, None] = {}
        self._num_skipped = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the weights that training starts or goes on with.

        Raises:
            CheckpointError: they are not finite.
        """
        where = f"the weights of step {state.global_step}" if state.global_step else "the weights to start with"
        check_finite(where, not_finite_anywhere(self._trainer.model))

    def note_loss(self, loss: torch.Tensor) -> None:
        """Note the loss of a micro-batch; it is looked at when the step ends."""
        ids = tuple(self._trainer.watchdog.sample_ids)
        self._samples |= dict.fromkeys(ids)
        self._noted.append(("loss", loss.detach().reshape(-1), ids))

    def note_log_probs(self, log_probs: torch.Tensor, mask: torch.Tensor, sample_ids: Sequence[str], who: str) -> None:
        """Note log-probabilities (B, C) where `mask` (B, C) is set; `who` computed them, for one sample per row."""
        rows = torch.where(mask.bool(), log_probs.detach(), 0).sum(dim=1)
        self._noted.append((f"log-probability of {who}", rows, tuple(sample_ids)))

    def check_step(self, grad_norm: Any) -> None:
        """Look at what was noted since the last step, and at the norm of the gradient; to be called by all ranks.

        Raises:
            NonFiniteError: on every rank, with the findings of all.
        """
        norm = None if grad_norm is None else float(grad_norm)
        bad_norm = norm is not None and not 0 <= norm < float("inf")  # DeepSpeed writes -1 for one that overflowed
        skips = bad_norm and self._overflow_is_skipped()
        self._num_skipped = self._num_skipped + 1 if skips else 0
        findings = self._findings()
        if bad_norm and (not skips or self._num_skipped >= MAX_SKIPPED_STEPS):
            findings.append(self._explain_norm(norm))
        samples = tuple(self._samples)
        self._noted, self._samples = [], {}
        if not self.of_any_rank(bool(findings)):
            return
        everything = self._of_all_ranks((findings, samples))
        said = list(dict.fromkeys(text for found, _ in everything for text in found))
        ids = list(dict.fromkeys(name for _, names in everything for name in names))
        raise NonFiniteError(self._message(said, ids))

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Let all ranks stop where one finds something that is not finite; to be entered by all.

        Raises:
            NonFiniteError: on every rank; a `DataError` stays one.
        """
        error: NonFiniteError | DataError | None = None
        try:
            yield
        except (NonFiniteError, DataError) as found:
            error = found
        if not self.of_any_rank(error is not None):
            return
        step = self._trainer.state.global_step + 1
        said = "" if error is None else str(error)
        everything = [text for text in self._of_all_ranks(said) if text]
        if isinstance(error, DataError):
            raise error
        ids = name_some(list(self._trainer.watchdog.sample_ids)) or "unknown"
        raise NonFiniteError(
            f"step {step}: {everything[0]} Samples in work on this rank: {ids}. The run stops here; {self._kept()}."
        ) from error

    def _findings(self) -> list[str]:
        """Say what of the noted is not finite, with one wait for the device if all is well."""
        if not self._noted or bool(torch.isfinite(torch.cat([values.float() for _, values, _ in self._noted])).all()):
            return []
        rank = self._trainer.args.process_index
        found = []
        for what, values, ids in self._noted:
            bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
            if bad:
                rows = [ids[row] for row in bad] if len(ids) == len(values) else ids
                names = name_some(list(dict.fromkeys(rows))) or "unknown"
                found.append(f"a {what} is {values[bad[0]].item()} (rank {rank}; samples: {names})")
        return found

    def _explain_norm(self, norm: float | None) -> str:
        if self._num_skipped:
            return f"the gradient has overflowed float16 in {self._num_skipped} steps in a row"
        gradients = [(n, p.grad) for n, p in self._trainer.model.named_parameters() if p.grad is not None]
        names = not_finite(gradients)
        where = f" ({len(names)} of {len(gradients)} tensors: {name_some(names)})" if names else ""
        return f"the norm of the gradient is {norm}{where}"

    def _overflow_is_skipped(self) -> bool:
        accelerator = self._trainer.accelerator
        return accelerator.scaler is not None or accelerator.mixed_precision == "fp16"

    def _kept(self) -> str:
        last = last_good_checkpoint(Path(str(self._trainer.args.output_dir)))
        return f"the last good checkpoint is {last}" if last else "there is no earlier checkpoint"

    def _message(self, said: Sequence[str], ids: Sequence[str]) -> str:
        args, step = self._trainer.args, self._trainer.state.global_step + 1
        samples = name_some(list(ids)) or "unknown"
        now = (
            f"lower learning_rate (now {args.learning_rate:g}) or max_grad_norm (now {args.max_grad_norm:g}; 0 is off)"
        )
        return (
            f"step {step}: {'; '.join(said)}. Samples of this step: {samples}. The run stops here; nothing of this "
            f"step is saved, and {self._kept()}. Look at these samples (`video-thinker validate`), {now}, or raise "
            "warmup_steps; with float16, take bfloat16 or float32."
        )

    def of_any_rank(self, value: bool) -> bool:
        """Tell whether this is so on any rank; to be called by all."""
        args = self._trainer.args
        if args.world_size == 1:
            return value
        flag = torch.tensor(float(value), device=args.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

    def _of_all_ranks(self, value: Any) -> list[Any]:
        world_size = self._trainer.args.world_size
        if world_size == 1:
            return [value]
        gathered: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(gathered, value)
        return gathered
