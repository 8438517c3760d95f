"""Do trainer and engine see the video? What the blind canary of GRPO scores: rows with blank frames.

Shapes: B rows, C tokens of the longest completion.
"""

from __future__ import annotations

from typing import Any

import torch

from video_thinker.data.encode import PIXEL_FIELDS, blank_prompt
from video_thinker.models import compat
from video_thinker.training.loop.canary import without_dropout
from video_thinker.training.rollout import Batch
from video_thinker.training.scoring import Rows
from video_thinker.training.sharing import open_for_generation


def watch_canary(trainer: Any, model: Any, rows: Rows, inputs: Batch) -> None:
    """Every `canary_steps` steps: score the rows of a micro-batch with blank frames, too, and compare.

    Args:
        trainer: A `VideoGRPOTrainer`.
        model: The policy.
        rows: The rows.
        inputs: TRL's micro-batch of them: which tokens count, and the engine's log-probabilities, if it has its own.

    Raises:
        BlindModelError: the trainer does not see the video, or the engine that has sampled does not.
        NonFiniteError: log-probabilities are no numbers.
    """
    mask, step = inputs["completion_mask"], trainer.state.global_step
    has_pixels = any(not PIXEL_FIELDS.isdisjoint(rows.prompts[number].media) for number in set(rows.prompt_index))
    if not trainer.model.training or not trainer.canary.is_due(step, has_pixels):
        return
    with torch.no_grad(), without_dropout(trainer.model):
        logps = score_rows(trainer, model, rows)
    blank_logps = score_blank(trainer, model, rows)
    gap = trainer.canary.check(logps, blank_logps, mask, has_pixels, step)
    if gap is None:
        return
    metrics = compat.metrics_of(trainer)
    metrics["canary/log_prob_gap"].append(gap)
    engine_logps = inputs.get("sampling_per_token_logps")
    if engine_logps is not None and trainer.sampled_with == (step, trainer.model_wrapped):  # by these very weights
        opened = trainer.engine_gap.check_sight(engine_logps, logps, blank_logps, mask * has_pixels, step, gap)
        metrics["canary/engine_gap"].append(opened)


def score_rows(trainer: Any, model: Any, rows: Rows) -> torch.Tensor:
    """Log-probabilities (B, C) of rows, by the path that trains."""
    logps: torch.Tensor = trainer._get_per_token_logps_and_entropies(
        model,
        rows.input_ids,
        rows.attention_mask,
        rows.completion_length,
        batch_size=trainer.args.per_device_train_batch_size,
    )[0]
    return logps


def score_blank(trainer: Any, model: Any, rows: Rows) -> torch.Tensor:
    """The same with blank frames, and with a frozen tower's features of them."""
    used = set(rows.prompt_index)
    blank = [blank_prompt(prompt) if number in used else prompt for number, prompt in enumerate(rows.prompts)]
    with torch.no_grad(), without_dropout(trainer.model):
        if trainer.features.is_used:
            with open_for_generation(trainer, trainer.model_wrapped) as generating:
                trainer.features.add(generating, [blank[number].media for number in sorted(used)])
        with trainer.scoring(blank, rows.prompt_index):
            return score_rows(trainer, model, rows)
