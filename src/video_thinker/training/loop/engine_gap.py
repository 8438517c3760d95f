"""Do engine and trainer see the same? The gap between the log-probabilities of both, at every rollout.

An engine with its own forward computes what it samples from in its own way. Where it reads other positions, normalizes
pixels twice, or keeps features of old weights, nothing raises an error and the run looks normal: importance ratios hide
it. So each rollout compares the engine's log-probabilities of its own tokens with the trainer's, before any update.

Where they disagree, and whenever the blind canary looks, the trainer scores the same tokens with blank frames, too. The
engine saw the video, so blank frames must open the gap; where they close it, the engine samples without the video.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator

from video_thinker.errors import BlindModelError, EngineError
from video_thinker.models import compat

logger = logging.getLogger(__name__)

MAX_GAPS = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Largest mean gap of a prompt's completions in nats per token, by the type that the trainer computes in."""

BLANK_SHARE = 10
"""So many times nearer must the engine be to the trainer with blank frames, to be said to sample without the video."""

CAUSES = (
    "the text after a video stands at other positions (`video-thinker doctor` checks them); pixels are normalized "
    "twice, or not at all; the tokens of a video are written out twice; a cache holds what old weights made (prefix, "
    "vision features); or the engine has other weights"
)


class EngineGap:
    """Compares an engine with the trainer, and stops a run in which they disagree.

    Args:
        max_gap: Largest mean gap of one prompt's completions in nats per token; `None` takes that of `MAX_GAPS`.
        dtype: The type that the trainer computes in.
        accelerator: To agree over the ranks.
    """

    def __init__(self, max_gap: float | None, dtype: torch.dtype, accelerator: Accelerator) -> None:
        """See the class."""
        self.max_gap = MAX_GAPS[dtype] if max_gap is None else max_gap
        self.accelerator = accelerator

    def check(
        self,
        engine_logps: torch.Tensor,
        logps: torch.Tensor,
        mask: torch.Tensor,
        prompt_index: torch.Tensor,
        step: int,
        score_blank: Callable[[], torch.Tensor] | None = None,
    ) -> dict[str, float]:
        """Compare a rollout's log-probabilities, those of the engine and of the trainer, each (B, C).

        Args:
            engine_logps: (B, C).
            logps: (B, C).
            mask: (B, C) 1 where a token was sampled.
            prompt_index: (B,) which prompt each row continues.
            step: The optimizer step that the rollout is for.
            score_blank: Scores the same tokens with blank frames (B, C); called on all ranks, where they disagree.

        Returns:
            `engine/logp_gap_mean` and `engine/logp_gap_max` over the tokens of all ranks.

        Raises:
            EngineError: a prompt's mean gap is above `max_gap`, or not a number.
        """
        gaps = (engine_logps - logps).abs().float() * mask
        num_prompts = int(prompt_index.max()) + 1
        sums = torch.zeros(2, num_prompts, device=gaps.device)
        sums.index_add_(1, prompt_index, torch.stack([gaps.sum(dim=1), mask.sum(dim=1).float()]))
        by_prompt = (sums[0] / sums[1].clamp(min=1)).nan_to_num(nan=torch.inf)
        own = torch.stack([gaps.sum(), mask.sum().float(), gaps.max().nan_to_num(nan=torch.inf), by_prompt.max()])
        ranks = self.accelerator.gather(own[None])
        mean = float(ranks[:, 0].sum() / ranks[:, 1].sum().clamp(min=1))
        largest, worst = (float(ranks[:, column].max()) for column in (2, 3))
        if not worst <= self.max_gap:
            raise EngineError(
                f"step {step}: engine and trainer disagree on the log-probabilities of the same tokens by "
                f"{worst:.3g} nats per token for one prompt ({mean:.3g} on average), above engine_max_gap="
                f"{self.max_gap:.3g}. {self._cause(engine_logps, mask, mean, score_blank)} Use engine=local, or raise "
                "engine_max_gap if that much is the arithmetic's."
            )
        return {"engine/logp_gap_mean": mean, "engine/logp_gap_max": largest}

    def _cause(
        self,
        engine_logps: torch.Tensor,
        mask: torch.Tensor,
        mean: float,
        score_blank: Callable[[], torch.Tensor] | None,
    ) -> str:
        """Say what is known of a gap of `mean` nats per token: whether it closes with blank frames."""
        if score_blank is not None:
            blank = self._mean(engine_logps - score_blank(), mask)
            if blank < mean / BLANK_SHARE:
                return (
                    f"With blank frames the trainer's are only {blank:.3g} nats per token from the engine's: the "
                    "engine samples without the video. Its input loses the pixels, or an older answer to the same "
                    "words is used again (prefix cache)."
                )
        return f"Known causes: {CAUSES}."

    def _mean(self, differences: torch.Tensor, mask: torch.Tensor) -> float:
        """Mean absolute difference over the tokens of `mask` (B, C) on all ranks; 0 without a token."""
        sums = torch.stack([(differences.abs().float() * mask).sum(), mask.sum().float()])
        sums = self.accelerator.reduce(sums, reduction="sum")
        return float(sums[0] / sums[1].clamp(min=1))

    def check_sight(
        self,
        engine_logps: torch.Tensor,
        logps: torch.Tensor,
        blank_logps: torch.Tensor,
        mask: torch.Tensor,
        step: int,
        effect: float,
    ) -> float:
        """Check that blank frames open the gap between engine and trainer, at the blind canary's steps.

        Args:
            engine_logps: (B, C) of the engine, which was given the video.
            logps: (B, C) of the trainer, with the video.
            blank_logps: (B, C) of the trainer, with blank frames.
            mask: (B, C) the tokens that count; none on a rank without pixels.
            step: The optimizer step.
            effect: What blank frames change in the trainer, in nats per token over all ranks: `BlindCanary.check`.

        Returns:
            The mean gap with blank frames in nats per token, over all ranks.

        Raises:
            BlindModelError: the engine is with the trainer that has blank frames, and the video's effect away from the
                trainer that has the video. Where arithmetic alone differs as much (half precision), nothing is said.
        """
        seen, blank = (self._mean(engine_logps - others, mask) for others in (logps, blank_logps))
        if self.accelerator.is_main_process:
            logger.info(
                "blind canary at step %d: the engine is %.3g nats per token from the trainer, %.3g with blank frames",
                step,
                seen,
                blank,
            )
        if blank < effect / 2 < seen:
            raise BlindModelError(
                f"step {step}: the engine's log-probabilities are {seen:.3g} nats per token from the trainer's with "
                f"the video, and {blank:.3g} from those with blank frames, which must be further away (the video's "
                f"effect is {effect:.3g}): the engine samples without the video. Use engine=local, or set "
                "canary_steps=0 to train blind on purpose."
            )
        return blank

    def log(self, trainer: Any, batch: dict[str, Any], score_blank: Callable[[], torch.Tensor]) -> None:
        """Check and log the gap of a rollout, if its engine has log-probabilities of its own (B, C).

        Raises:
            EngineError: as `check`.
        """
        if "sampling_per_token_logps" not in batch or "old_per_token_logps" not in batch:
            return
        gaps = self.check(
            batch["sampling_per_token_logps"],
            batch["old_per_token_logps"],
            batch["completion_mask"],
            batch["prompt_index"],
            trainer.state.global_step,
            score_blank,
        )
        for name, value in gaps.items():
            compat.metrics_of(trainer)[name].append(value)
