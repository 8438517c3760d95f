"""SFT stage: teach the trace format. `video-thinker sft CONFIG [key=value …]`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import SFTTrainer

from video_thinker.config import DataArguments, ModelArguments, PeftArguments, parse_config
from video_thinker.data.collate import SFTCollator
from video_thinker.data.encode import PIXEL_FIELDS, blank_media
from video_thinker.data.row_rules import RowRules
from video_thinker.errors import ConfigError
from video_thinker.models.adapters import check_peft_arguments, lora_config, quantization_config
from video_thinker.models.loading import check_model_path, load_encoder, load_model, prepare_training
from video_thinker.models.tower_calls import equalize_tower_calls
from video_thinker.runs.record import run_config
from video_thinker.training.arguments import VideoSFTConfig
from video_thinker.training.dataset import build_dataset, load_readable_samples
from video_thinker.training.logging.console import use_console
from video_thinker.training.logging.performance import Performance
from video_thinker.training.loop.canary import BlindCanary, without_dropout
from video_thinker.training.loop.checkpoints import Staging, leave_sigterm_to_parent, load_weights
from video_thinker.training.loop.process_group import join_process_group
from video_thinker.training.loop.resume import find_resume_checkpoint, finish, is_finished, run_training
from video_thinker.training.loop.watchdog import Watchdog

logger = logging.getLogger(__name__)


class VideoSFTTrainer(SFTTrainer):
    """TRL's `SFTTrainer` with the blind canary in its loss, and checkpoints that appear when they are complete."""

    args: VideoSFTConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build TRL's trainer, then what watches it."""
        self.staging = Staging()
        super().__init__(*args, **kwargs)
        self.performance = Performance(self.accelerator, enabled=self.args.telemetry, peak=self.args.peak_tflops)
        self.watchdog = Watchdog(self.args.step_timeout_s, self.args.process_index)
        for callback in (self.performance, self.watchdog):
            self.add_callback(callback)
        self.canary = BlindCanary(self.args.canary_steps, self.args.canary_min_gap, self.accelerator)

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
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]

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

    def get_train_dataloader(self) -> Any:
        """Transformers', whose workers leave SIGTERM to their parent."""
        return leave_sigterm_to_parent(super().get_train_dataloader())

    def _get_output_dir(self, trial: Any) -> str:
        return self.staging.folder or super()._get_output_dir(trial)

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
    model_args, peft_args, data_args, args = parse_config(
        (ModelArguments, PeftArguments, DataArguments, VideoSFTConfig), argv
    )
    if not data_args.train_file:
        raise ConfigError("train_file is missing: name the JSON or JSONL file with the traces to learn.")
    check_model_path(model_args.model_name_or_path)
    check_peft_arguments(model_args.model_name_or_path, peft_args)
    config = run_config(model_args, peft_args, data_args, args, world_size=args.world_size)
    checkpoint = find_resume_checkpoint(args, config)
    if checkpoint is not None and is_finished(checkpoint, args):
        return finish(checkpoint, args)
    encoder = load_encoder(model_args.model_name_or_path, data_args)
    rules = RowRules(has_trace=True, max_tokens=args.max_length)
    train_samples = load_readable_samples(data_args.train_file, encoder, data_args, args.output_dir, rules)
    eval_samples = (
        load_readable_samples(data_args.eval_file, encoder, data_args, args.output_dir, rules)
        if data_args.eval_file
        else None
    )
    model = load_model(
        model_args.model_name_or_path,
        dtype=model_args.dtype,
        attn_implementation=model_args.attn_implementation,
        quantization_config=quantization_config(peft_args),
        trainable=True,
        init_kwargs=args.model_init_kwargs,
    )
    trainer = VideoSFTTrainer(
        model=model,
        args=args,
        train_dataset=build_dataset(train_samples, encoder),
        eval_dataset=build_dataset(eval_samples, encoder) if eval_samples else None,
        data_collator=SFTCollator(encoder, args.max_length),
        processing_class=encoder.processor,
        peft_config=lora_config(model, peft_args),
    )
    prepare_training(trainer, model_args.freeze)
    use_console(trainer)
    if args.world_size > 1:
        equalize_tower_calls([model], [*train_samples, *(eval_samples or [])])
    return run_training(trainer, checkpoint, config)
