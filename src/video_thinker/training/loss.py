"""TRL's loss of a micro-batch, computed in the parts of a token budget (`token_budget.py`).

Each part is followed by its backward, so that the activations of one part are in memory at a time. The loss is TRL's,
computed over all rows, and its gradient the same.

Shapes: B rows of a batch, C completion; b rows of a part, c <= C.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from video_thinker.models import compat
from video_thinker.training.scoring import Rows, Scored
from video_thinker.training.token_budget import put_rows


def micro_batch_in_parts(
    trainer: Any,
    model: Any,
    inputs: Mapping[str, Any],
    rows: Rows,
    parts: Sequence[Sequence[int]],
    plain: Callable[..., Scored],
    trl_loss: Callable[[Scored], torch.Tensor],
) -> torch.Tensor:
    """Compute the loss of a micro-batch, with the backward of all its parts but the last one.

    Args:
        trainer: A `VideoGRPOTrainer`.
        model: The policy, as TRL hands it to the loss.
        inputs: The micro-batch.
        rows: Its rows.
        parts: The rows of each part.
        plain: TRL's own way of scoring.
        trl_loss: Gives TRL's loss of the micro-batch with these log-probabilities.

    Returns:
        The loss of all rows, whose gradient is still that of the last part.
    """

    def score_part(part: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        with trainer.performance.phase("forward"):
            logps, entropies, _ = trainer.scorer.score_part(model, rows, part, plain, compute_entropy=True)
        assert entropies is not None
        return logps, entropies

    def backward(loss: torch.Tensor) -> None:
        deepspeed = trainer.is_deepspeed_enabled
        with trainer.performance.phase("backward"):
            trainer.accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))

    known = inputs.get("old_per_token_logps", inputs.get("ref_per_token_logps"))
    zeros = torch.zeros(inputs["completion_ids"].shape, device=rows.input_ids.device)
    return loss_in_parts(
        parts,
        zeros if known is None else known,
        score_part,
        lambda logps, entropies: trl_loss((logps, entropies, None)),
        backward,
        functools.partial(gradients_of_last_part, trainer.accelerator, model),
        lambda: metrics_unchanged(compat.metrics_of(trainer)),
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
        with compat.deepspeed_without_sync(accelerator):
            yield
    else:
        with accelerator.no_sync(model):
            yield
