"""GRPO rollouts of a tiny model, their losses and gradients, for tests that compare ways of computing them."""

from __future__ import annotations

import torch

from video_thinker.training.grpo import VideoGRPOTrainer

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
    trainer._prepare_inputs(rows)
    return trainer._buffered_inputs


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
