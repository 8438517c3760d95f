"""The blind canary: does what the trainer computes depend on the pixels at all?

A video trainer that loses its pixels on the way to the model raises no error and its loss still falls. So the trainers
here compare, on their own batch and through their own forward, log-probabilities with the real pixels and with blank
ones. A gap of zero means that the run is blind, and stops it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from video_thinker.errors import BlindModelError, NonFiniteError

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


class BlindCanary:
    """Knows when to look, and stops a blind run. All ranks look at the same micro-batches.

    Args:
        every: Look every so many optimizer steps, at the first micro-batch that has pixels on some rank; 0 is never.
        min_gap: Least log-prob gap in nats per token.
        accelerator: To agree over the ranks.
    """

    def __init__(self, every: int, min_gap: float, accelerator: Accelerator) -> None:
        """See the class."""
        self.every, self.min_gap, self.accelerator = every, min_gap, accelerator
        self._last_due = -1
        self._pending = False

    def is_due(self, step: int, has_pixels: bool) -> bool:
        """Decide whether to look at this micro-batch of step `step`, which has pixels on this rank or not."""
        if self.every and step % self.every == 0 and step != self._last_due:
            self._last_due, self._pending = step, True
        if not self._pending:
            return False
        seen = torch.tensor(float(has_pixels), device=self.accelerator.device)
        return bool(self.accelerator.reduce(seen, reduction="sum") > 0)

    def check(
        self, logps: torch.Tensor, blank_logps: torch.Tensor, mask: torch.Tensor, has_pixels: bool, step: int
    ) -> float | None:
        """Compare log-probabilities (B, C) with real and blank pixels over the tokens of `mask` (B, C), on all ranks.

        Returns:
            Their mean absolute difference in nats per token, over the ranks that have pixels; `None` if the mask leaves
            no token there (all completions were cut off and masked): the next micro-batch is then looked at.

        Raises:
            BlindModelError: it does not exceed `min_gap`.
            NonFiniteError: it is no number.
        """
        difference = ((logps - blank_logps).abs().float() * mask).sum()
        totals = torch.stack([difference, mask.sum().float()]) * float(has_pixels)
        totals = self.accelerator.reduce(totals, reduction="sum")
        if totals[1] == 0:
            return None
        self._pending = False
        gap = float(totals[0] / totals[1])
        if self.accelerator.is_main_process:
            logger.info(
                "blind canary at step %d: log-prob gap with and without the pixels %.3g nats per token", step, gap
            )
        if not math.isfinite(gap):
            raise NonFiniteError(
                f"step {step}: log-probabilities are not finite, with the video or with blank frames (their mean "
                f"difference is {gap}): the model has diverged. Start again from an earlier checkpoint, with a lower "
                "learning_rate."
            )
        if not gap > self.min_gap:
            raise BlindModelError(
                f"step {step}: the log-probabilities with the video and with blank frames differ by {gap:.3g} nats per "
                f"token, which is not above canary_min_gap={self.min_gap:.3g}: the model does not see the video. Check "
                "that the items' media reach the model (`video-thinker validate`), or set canary_steps=0 to train "
                "blind on purpose."
            )
        return gap
