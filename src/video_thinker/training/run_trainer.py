"""What both trainers do around TRL's step: they watch a run, stop it in time, and write checkpoints that are complete.

`RunTrainer` stands before TRL's trainer in the bases of a class; its `super()` is TRL's trainer there:

    class VideoSFTTrainer(RunTrainer, SFTTrainer): ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from transformers import Trainer

from video_thinker.training.arguments import VideoGRPOConfig, VideoSFTConfig
from video_thinker.training.logging.performance import Performance
from video_thinker.training.loop.canary import BlindCanary
from video_thinker.training.loop.checkpoints import Staging, leave_signals_to_parent, load_weights, state_errors
from video_thinker.training.loop.finite import FiniteGuard
from video_thinker.training.loop.watchdog import Watchdog
from video_thinker.training.recipe import Recipe, run_recipe


class RunTrainer(Trainer):
    """The seams of Transformers' trainer that both stages need alike; what differs by stage is in their classes.

    Attributes:
        recipe: What `from_config` has made the trainer of, `None` for one made by hand.
        staging: Where the trainer writes just now.
        performance: The clock of a step's phases.
        watchdog: Ends a process that is stuck; knows the samples in work.
        guard: Stops at the first number that is not finite.
        canary: Stops a training that does not depend on the pixels.
    """

    args: VideoSFTConfig | VideoGRPOConfig
    recipe: Recipe[Any] | None = None

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

    def run(self) -> int:
        """Train to the end and write the result, as the command does; see `run_recipe`."""
        return run_recipe(self, self.recipe)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does, measured."""
        with self.performance.watching(self):
            return super().train(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Do TRL's step of a micro-batch, and note its loss."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.guard.note_loss(loss)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Before the optimizer moves the weights, look whether all of the step is finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]  # no types
        self.guard.check_step(norm)
        return norm

    def get_train_dataloader(self) -> Any:
        """TRL's, whose workers leave signals to their parent."""
        return leave_signals_to_parent(super().get_train_dataloader())

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, whose workers leave signals to their parent."""
        return leave_signals_to_parent(super().get_eval_dataloader(*args, **kwargs))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no card of TRL's: a checkpoint and the result get one that knows the run (`runs/card.py`)."""

    def _get_output_dir(self, trial: Any) -> str:
        """Give the output folder, or the folder in which a checkpoint becomes complete."""
        return self.staging.folder or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write `checkpoint-N` aside, and move it into place."""
        with self.staging.checkpoint(self, Path(self._get_output_dir(trial))) as staged:
            super()._save_checkpoint(model, trial)
            self.save_stage_state(staged)

    def save_stage_state(self, staged: Path) -> None:
        """Add to a checkpoint what only this stage continues from: nothing, unless a class says otherwise.

        Args:
            staged: The folder in which the checkpoint becomes complete.
        """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights to go on with; see `load_weights`."""
        if is_peft_model(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.model if model is None else model, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        """Load their state; a damaged file is one message."""
        with state_errors(str(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: Any) -> None:
        """Load the state of the random numbers; a damaged file is one message."""
        with state_errors(str(checkpoint)):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        """Load the best checkpoint's weights at the end; see `load_weights`."""
        if self.is_deepspeed_enabled or is_peft_model(self.model):
            super()._load_best_model()
        else:
            load_weights(self.model, str(self.state.best_model_checkpoint))
