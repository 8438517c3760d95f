"""SFT stage: teach the trace format. `video-thinker sft CONFIG [key=value …]`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from accelerate.utils import is_peft_model
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
from video_thinker.training.logging.performance import Performance
from video_thinker.training.loop.canary import BlindCanary, without_dropout
from video_thinker.training.loop.checkpoints import Staging, leave_signals_to_parent, load_weights
from video_thinker.training.loop.finite import FiniteGuard
from video_thinker.training.loop.process_group import join_process_group
from video_thinker.training.loop.watchdog import Watchdog
from video_thinker.training.recipe import Recipe, run_recipe

logger = logging.getLogger(__name__)


class VideoSFTTrainer(SFTTrainer):
    """TRL's `SFTTrainer` with the blind canary in its loss, and checkpoints that appear when they are complete."""

    args: VideoSFTConfig
    recipe: Recipe[VideoSFTConfig] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build TRL's trainer, then what watches it."""
        self.staging = Staging()
        super().__init__(*args, **kwargs)
        self.performance = Performance(self.accelerator, enabled=self.args.telemetry, peak=self.args.peak_tflops)
        self.watchdog = Watchdog(self.args.step_timeout_s, self.args.process_index)
        self.guard = FiniteGuard(self)
        for callback in (self.performance, self.watchdog, self.guard):
            self.add_callback(callback)
        self.canary = BlindCanary(self.args.canary_steps, self.args.canary_min_gap, self.accelerator)

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
        recipe.hold()
        try:
            return cls.from_recipe(recipe, callbacks)
        except BaseException:
            recipe.release()
            raise

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

    def run(self) -> int:
        """Train to the end and write the result, as the command does; see `run_recipe`."""
        return run_recipe(self, self.recipe)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does, measured."""
        with self.performance.watching(self):
            return super().train(*args, **kwargs)

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

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Do TRL's step of a micro-batch, and note its loss."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[no-untyped-call]  # TRL: no types
        self.guard.note_loss(loss)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Before the optimizer moves the weights, look whether all of the step is finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]  # TRL: no types
        self.guard.check_step(norm)
        return norm

    def get_train_dataloader(self) -> Any:
        """Transformers', whose workers leave signals to their parent."""
        return leave_signals_to_parent(super().get_train_dataloader())

    def _get_output_dir(self, trial: Any) -> str:
        return self.staging.folder or super()._get_output_dir(trial)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no card of TRL's: a checkpoint and the result get one that knows the run (`runs/card.py`)."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write `checkpoint-N` aside, and move it into place."""
        with self.staging.checkpoint(self, Path(self._get_output_dir(trial))):
            super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]  # TRL has no types here

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if is_peft_model(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled or is_peft_model(self.model):
            super()._load_best_model()
        else:
            load_weights(self.model, str(self.state.best_model_checkpoint))


def main(argv: list[str]) -> int:
    """Run the SFT stage."""
    join_process_group()
    recipe = Recipe(*parse_config((ModelArguments, PeftArguments, DataArguments, VideoSFTConfig), argv))
    with recipe.held():
        return recipe.finish() if recipe.is_finished else VideoSFTTrainer.from_recipe(recipe).run()
