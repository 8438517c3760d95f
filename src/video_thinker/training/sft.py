"""SFT stage: teach the trace format. `video-thinker sft CONFIG [key=value …]`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from video_thinker.config import DataArguments, ModelArguments, PeftArguments
from video_thinker.data.collate import SFTCollator
from video_thinker.data.encode import PIXEL_FIELDS, blank_media
from video_thinker.data.row_rules import RowRules
from video_thinker.keys.settings import parse_config
from video_thinker.models.adapters import lora_config
from video_thinker.schema import VideoSample
from video_thinker.training.arguments import VideoSFTConfig
from video_thinker.training.dataset import build_dataset
from video_thinker.training.loop.canary import without_dropout
from video_thinker.training.loop.process_group import join_process_group
from video_thinker.training.recipe import Recipe
from video_thinker.training.run_trainer import RunTrainer

logger = logging.getLogger(__name__)


class VideoSFTTrainer(RunTrainer, SFTTrainer):
    """TRL's `SFTTrainer` with the blind canary in its loss, and checkpoints that appear when they are complete."""

    args: VideoSFTConfig
    recipe: Recipe[VideoSFTConfig] | None = None

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any] | None = None,
        *,
        train_dataset: Sequence[VideoSample] | None = None,
        eval_dataset: Sequence[VideoSample] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        **settings: Any,
    ) -> Self:
        """Make a trainer as `video-thinker sft` does: model, encoder, data, frozen parts, console.

        Args:
            config: A config file (`configs/sft/…`), or its keys with their values.
            train_dataset: Samples with traces (`load_samples`), in the place of `train_file`.
            eval_dataset: Samples to evaluate on during training, in the place of `eval_file`.
            callbacks: Of Transformers, beside our own.
            **settings: Keys of a config; they win over `config`.

        Raises:
            ConfigError: a key is misspelt, a value is wrong, or there is no such model.
            DataError: a sample cannot be used: it has no trace, or is longer than `max_length`.
            DecodeError: a media file cannot be read (with `on_decode_error: raise`, at the step that needs it).
        """
        recipe = Recipe.read(VideoSFTConfig, config, settings, train_dataset, eval_dataset)
        with recipe.held_by_trainer():
            return cls.from_recipe(recipe, callbacks)

    @classmethod
    def from_recipe(cls, recipe: Recipe[VideoSFTConfig], callbacks: Sequence[TrainerCallback] = ()) -> Self:
        """Load what a recipe names, and make a trainer of it."""
        encoder = recipe.load_encoder()
        rules = RowRules(has_trace=True, max_tokens=recipe.args.max_length)
        train_samples, eval_samples = recipe.load_samples(encoder, rules)
        model = recipe.load_model()
        trainer = cls(
            model=model,
            args=recipe.args,
            train_dataset=build_dataset(train_samples, encoder),
            eval_dataset=build_dataset(eval_samples, encoder) if eval_samples else None,
            data_collator=SFTCollator(encoder, recipe.args.max_length),
            processing_class=encoder.processor,
            peft_config=lora_config(model, recipe.peft_args),
            callbacks=list(callbacks),
        )
        trainer.recipe = recipe
        recipe.prepare(trainer, [model], [*train_samples, *(eval_samples or [])])
        return trainer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute TRL's loss; every `canary_steps` steps, also look whether it depends on the pixels.

        Raises:
            BlindModelError: it does not.
        """
        self.watchdog.beat("forward and backward", inputs.pop("sample_ids", None))
        with self.performance.paused():
            self._watch_canary(model, inputs)
        # TRL has no types here.
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]  # TRL: no types

    def _watch_canary(self, model: Any, inputs: dict[str, Any]) -> None:
        has_pixels = not PIXEL_FIELDS.isdisjoint(inputs)
        if not model.training or not self.canary.is_due(self.state.global_step, has_pixels):
            return
        with torch.no_grad(), without_dropout(model), self.accelerator.autocast():
            seen = model(**inputs, fused_lm_head=True)
            blank = model(**blank_media(inputs), fused_lm_head=True)
        gap = self.canary.check(seen.log_probs, blank.log_probs, seen.label_mask, has_pixels, self.state.global_step)
        if gap is not None:
            self._metrics["train"]["canary/log_prob_gap"].append(gap)


def main(argv: list[str]) -> int:
    """Run the SFT stage."""
    join_process_group()
    recipe = Recipe(*parse_config((ModelArguments, PeftArguments, DataArguments, VideoSFTConfig), argv))
    with recipe.held():
        return recipe.finish() if recipe.is_finished else VideoSFTTrainer.from_recipe(recipe).run()
