"""GRPO rollouts of a tiny model, their losses and gradients, for tests that compare ways of computing them."""

from __future__ import annotations

import torch

from video_thinker.training.rollout import unfold_rows
from video_thinker.training.trainer import VideoGRPOTrainer

G = 4
OFF = {"share_prefix": False, "share_prefill": False, "share_vision": False}


def spread_reward(completion_ids, **_):
    return [sum(ids) % 7 / 7 for ids in completion_ids]


def rollout(trainer: VideoGRPOTrainer) -> list[dict]:
    """One rollout over all prompts, as the trainer's micro-batches."""
    trainer.model.train()
    trainer._step, trainer._buffered_inputs = 0, None
    rows = [row for row in trainer.train_dataset for _ in range(G)]
    torch.manual_seed(7)
    return micro_batches(trainer, rows)


def micro_batches(trainer: VideoGRPOTrainer, rows: list[dict]) -> list[dict]:
    """Roll out some rows, as training does, and give all micro-batches."""
    trainer._prepare_inputs(rows)
    return [unfold_rows(batch) for batch in trainer._buffered_inputs]


def sample_ids(trainer: VideoGRPOTrainer, batch: dict) -> list[str]:
    """The sample that each row of a micro-batch continues."""
    return [sample.id for sample in trainer._rollouts[True].row_samples(batch["prompt_index"].tolist())]


def media_of(trainer: VideoGRPOTrainer, batch: dict) -> list[dict[str, torch.Tensor]]:
    """The media of each row of a micro-batch."""
    return [trainer._rollouts[True].prompts[number].media for number in batch["prompt_index"].tolist()]


def log_probs(trainer: VideoGRPOTrainer, model, batch: dict, prompts=None, batch_size: int | None = None):
    """Log-probabilities (B, C) of a micro-batch, with its own prompts or others in their place."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    prompts = trainer._rollouts[True].prompts if prompts is None else prompts
    with torch.no_grad(), trainer.scoring(prompts, batch["prompt_index"].tolist()):
        logps, *_ = trainer._get_per_token_logps_and_entropies(
            model, ids, mask, batch["completion_ids"].shape[1], batch_size=batch_size
        )
    return logps


def loss_and_gradients(trainer: VideoGRPOTrainer, batches: list[dict]) -> tuple[list[float], dict[str, torch.Tensor]]:
    trainer.current_gradient_accumulation_steps = len(batches)
    trainer.model.zero_grad()
    losses = []
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        losses.append(loss.item())
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return losses, gradients
