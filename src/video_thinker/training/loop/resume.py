"""Running a training to its end, also in several sittings: continue, stop on SIGTERM, finish."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from video_thinker.config import check_choice
from video_thinker.errors import CheckpointError, ConfigError
from video_thinker.runs.record import RUN_INFO, write_run_info
from video_thinker.training.logging.reporters import guard_reporters
from video_thinker.training.loop.checkpoints import (
    STATE,
    adopt_model,
    checkpoint_step,
    find_damage,
    last_complete_checkpoint,
    list_checkpoints,
    read_state,
    save_result,
)

logger = logging.getLogger(__name__)

EXIT_SIGTERM = 128 + signal.SIGTERM

FIXED = (
    "model_name_or_path",
    "train_file",
    "seed",
    "data_seed",
    "world_size",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_generations",
    "num_iterations",
    "steps_per_generation",
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_parts",
    "lora_target_modules",
    "lora_modules_to_save",
    "load_in_4bit",
    "freeze",
    "share_vision",
    "share_prefill",
    "on_decode_error",
)
"""Settings that decide what a step sees or what a checkpoint's tensors are: no run continues with other values."""

FREE = ("output_dir", "logging_dir", "resume", "resume_from_checkpoint", "report_to", "run_name", "local_rank")


def find_resume_checkpoint(args: Any, config: dict[str, Any]) -> Path | None:
    """Decide where a run starts, before a model is loaded.

    Args:
        args: The training arguments.
        config: All settings of the run (`run_config`); compared with those of the earlier sitting.

    Returns:
        The checkpoint to continue from, `None` to start from the beginning.

    Raises:
        ConfigError: `resume` is unknown, or forbids what is there, or the earlier sitting differs in a setting that
            cannot change.
        CheckpointError: `resume_from_checkpoint` names something incomplete.
    """
    check_choice("resume", args.resume, ("auto", "never"))
    output_dir = Path(args.output_dir)
    _say_what_cannot_be_continued(args)
    if args.resume_from_checkpoint:
        return _named_checkpoint(Path(args.resume_from_checkpoint))
    if args.resume == "never":
        if list_checkpoints(output_dir):
            raise ConfigError(
                f"resume=never, but {output_dir} holds {list_checkpoints(output_dir)[0].name}; starting over would "
                "replace it: choose another output_dir, or delete the checkpoints there."
            )
        return None
    checkpoint = last_complete_checkpoint(output_dir)
    if checkpoint is not None:
        _compare_with_earlier(output_dir, checkpoint, config)
        logger.info("resume: auto -> continuing from %s", checkpoint)
    return checkpoint


def _say_what_cannot_be_continued(args: Any) -> None:
    if args.save_strategy == "no":
        logger.warning("save_strategy: no -> a run that is killed starts again from the beginning")
    elif args.save_only_model:
        if args.resume == "auto" and list_checkpoints(Path(args.output_dir)):
            raise ConfigError(
                f"save_only_model=true: the checkpoints in {args.output_dir} hold no optimizer and no random state, so "
                "nothing can continue from them; set save_only_model=false, or choose another output_dir."
            )
        logger.warning("save_only_model: true -> a run that is killed starts again from the beginning")
    if args.ignore_data_skip:
        logger.warning("ignore_data_skip: true -> a continued run sees the first samples again")


def _named_checkpoint(checkpoint: Path) -> Path:
    if not (checkpoint / STATE).is_file():
        raise CheckpointError(
            f"resume_from_checkpoint={str(checkpoint)!r}: no {STATE} there; name a checkpoint-N folder."
        )
    damage = find_damage(checkpoint)
    if damage is not None:
        raise CheckpointError(
            f"resume_from_checkpoint={str(checkpoint)!r} is incomplete ({damage}); name another one, or leave the key "
            "out: resume=auto takes the last complete checkpoint of output_dir."
        )
    return checkpoint


def _compare_with_earlier(output_dir: Path, checkpoint: Path, config: dict[str, Any]) -> None:
    path = output_dir / RUN_INFO
    if not path.is_file():
        logger.warning("%s is missing: the settings of the earlier sitting are not compared with these", path)
        return
    earlier: dict[str, Any] = yaml.safe_load(path.read_text())["config"]
    changed = {
        key: (earlier[key], value)
        for key, value in config.items()
        if key in earlier and key not in FREE and earlier[key] != value
    }
    for key, (old, new) in changed.items():
        if key in FIXED:
            raise ConfigError(
                f"{checkpoint} was made with {key}={old!r}, this run has {key}={new!r}; it decides what a "
                f"step sees, so the run cannot continue with it: keep {key}, or choose another output_dir."
            )
        logger.warning("continuing with %s=%r; up to %s it was %r", key, new, checkpoint.name, old)


class PreemptionCallback(TrainerCallback):
    """On SIGTERM (SLURM's pre-emption, a container's stop): end the step, save a checkpoint, stop.

    The processes agree at the end of every step, since the signal may reach them in different steps.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.requested = False
        self.stopped = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        # The signal may come twice, from SLURM and from the launcher.
        if not self.requested:
            logger.warning("SIGTERM: the step in progress is finished and saved")
        self.requested = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen."""
        signal.signal(signal.SIGTERM, self._handle)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop if any process was told to."""
        requested = torch.tensor(float(self.requested), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(requested, op=torch.distributed.ReduceOp.MAX)
        if requested.item() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the signal back."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_finished(checkpoint: Path, args: Any) -> bool:
    """Tell whether a checkpoint is the end of the run that `args` describes."""
    state = read_state(checkpoint)
    if args.max_steps > 0:
        return bool(state.global_step >= args.max_steps)
    return bool(state.epoch is not None and state.epoch >= args.num_train_epochs)


def finish(checkpoint: Path, args: Any) -> int:
    """Give a run that had only its result left to write that result."""
    output_dir = Path(args.output_dir)
    result = output_dir / STATE
    if result.is_file() and read_state(output_dir).global_step == checkpoint_step(checkpoint):
        logger.info("%s: the run is finished; nothing is left to do", output_dir)
    elif args.should_save:
        adopt_model(checkpoint, output_dir)
        (output_dir / STATE).write_text((checkpoint / STATE).read_text())
        logger.info("%s: the model of %s is the result", output_dir, checkpoint.name)
    return 0


def run_training(trainer: Trainer, checkpoint: Path | None, config: dict[str, Any]) -> int:
    """Train from the beginning or from a checkpoint, and write the result.

    Returns:
        0, or 143 (128 + SIGTERM) if it was told to stop and has saved a checkpoint to continue from.
    """
    args = trainer.args
    if args.should_save:
        write_run_info(str(args.output_dir), config)
    preemption = PreemptionCallback()
    trainer.add_callback(preemption)
    guard_reporters(trainer)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if preemption.stopped:
        logger.warning("stopped at step %d; the same command continues", trainer.state.global_step)
        return EXIT_SIGTERM
    save_result(trainer)
    return 0
