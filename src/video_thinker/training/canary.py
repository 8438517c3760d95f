"""The blind canary: does what the trainer computes depend on the pixels at all?

A video trainer that loses its pixels on the way to the model raises no error and its loss still falls. So the trainers
here compare, on their own batch and through their own forward, log-probabilities with the real pixels and with blank
ones. A gap of zero means that the run is blind, and stops it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from video_thinker.errors import BlindModelError

logger = logging.getLogger(__name__)


@contextmanager
def without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Compare forwards without dropout: LoRA's would make two forwards differ though neither sees the video."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def log_prob_gap(logps: torch.Tensor, blank_logps: torch.Tensor, mask: torch.Tensor, accelerator: Accelerator) -> float:
    """Mean absolute difference of log-probabilities (B, C) over the tokens of `mask` (B, C), in nats, on all ranks."""
    difference = ((logps - blank_logps).abs().float() * mask).sum()
    totals = accelerator.reduce(torch.stack([difference, mask.sum().float()]), reduction="sum")
    return float(totals[0] / totals[1].clamp(min=1))


def check_gap(gap: float, min_gap: float, step: int) -> None:
    """Stop a blind run.

    Raises:
        BlindModelError: `gap` does not exceed `min_gap`.
    """
    logger.info("blind canary at step %d: log-prob gap with and without the pixels %.3g nats per token", step, gap)
    if not gap > min_gap:
        raise BlindModelError(
            f"step {step}: the log-probabilities with the video and with blank frames differ by {gap:.3g} nats per "
            f"token, which is not above canary_min_gap={min_gap:.3g}: the model does not see the video. Check that the "
            "items' media reach the model (`video-thinker validate`), or set canary_steps=0 to train blind on purpose."
        )
