"""Running a training to its end, also in several sittings: one run in a folder, continue, stop on a signal, finish."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from transformers import Trainer
from trl import GRPOConfig

from video_thinker.config import DataArguments, ModelArguments, check_choice
from video_thinker.data.annotations import load_samples
from video_thinker.errors import CheckpointError, ConfigError
from video_thinker.models.fingerprint import quick_fingerprint
from video_thinker.runs.lock import run_lock
from video_thinker.runs.manifest import find_damage
from video_thinker.runs.record import RUN_INFO, SAMPLES_FILE, STATE, read_run_info, run_config, write_run_info
from video_thinker.schema import VideoSample
from video_thinker.training.logging.log_file import LOG_FILE, log_file
from video_thinker.training.logging.reporters import guard_reporters
from video_thinker.training.loop.checkpoints import (
    STAGING,
    checkpoint_step,
    find_damage_together,
    last_complete_checkpoint,
    last_good_checkpoint,
    list_checkpoints,
    read_state,
)
from video_thinker.training.loop.result import RESULT_FILES, adopt_model, restore_result, save_result
from video_thinker.training.loop.same_run import FREE, HONOURED, check_same_samples, check_same_settings
from video_thinker.training.loop.stopping import StopCallback

logger = logging.getLogger(__name__)


def find_resume_checkpoint(args: Any, config: dict[str, Any]) -> Path | None:
    """Decide where a run starts, before a model is loaded.

    Args:
        args: The training arguments.
        config: All settings of the run (`run_config`); compared with those of the earlier sitting.

    Returns:
        The checkpoint to continue from, `None` to start from the beginning.

    Raises:
        ConfigError: `resume` is unknown, or forbids what is there, or the earlier sitting differs in a setting that
            cannot change, or the folder holds a finished run.
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
                "replace it: choose another output_dir, or overwrite=true to delete that run and start over."
            )
        _refuse_to_overwrite(output_dir)
        return None
    checkpoint = last_complete_checkpoint(output_dir)
    if checkpoint is not None:
        _compare_with_earlier(output_dir, checkpoint, config)
        logger.info("resume: auto -> continuing from %s", checkpoint)
    elif not _holds_result_of(args, config):
        _refuse_to_overwrite(output_dir)
    return checkpoint


def _refuse_to_overwrite(output_dir: Path) -> None:
    """Refuse to train into a folder with a result and nothing to continue from."""
    if (output_dir / STATE).is_file():
        raise ConfigError(
            f"{output_dir} holds a finished run of {read_state(output_dir).global_step} steps, another one than is "
            "asked for, and no checkpoint to continue from; nothing is overwritten: choose another output_dir, or "
            "overwrite=true to delete that run and start over."
        )


def describe_run(model_args: ModelArguments, peft_args: Any, data_args: Any, args: Any) -> dict[str, Any]:
    """Give all settings of a run, with what identifies its model, as they are compared and recorded."""
    fingerprint = quick_fingerprint(model_args.model_name_or_path)
    return run_config(model_args, peft_args, data_args, args, world_size=args.world_size, model_fingerprint=fingerprint)


def is_done(checkpoint: Path | None, args: Any, config: dict[str, Any]) -> bool:
    """Tell whether the run that is asked for has ended already: a checkpoint or the folder holds its last step."""
    if checkpoint is not None:
        return is_finished(checkpoint, args)
    return _holds_result_of(args, config)


def _holds_result_of(args: Any, config: dict[str, Any]) -> bool:
    """Tell whether the folder holds the result of just this run, made without checkpoints (`save_strategy: no`)."""
    output_dir = Path(args.output_dir)
    if not all((output_dir / name).is_file() for name in (STATE, RUN_INFO)) or last_good_checkpoint(output_dir):
        return False
    earlier = read_run_info(output_dir / RUN_INFO)["config"]
    changed = [key for key in config if key not in FREE | HONOURED and config[key] != earlier.get(key)]
    return not changed and args.resume == "auto" and is_finished(output_dir, args)


def clear_folder(args: Any) -> None:
    """With `overwrite`, delete what an earlier run left in its folder: checkpoints, result and record."""
    output_dir = Path(args.output_dir)
    if not args.overwrite or not output_dir.is_dir():
        return
    names = ("checkpoint-*", STAGING, *RESULT_FILES, STATE, RUN_INFO, SAMPLES_FILE, "completions.jsonl", LOG_FILE)
    found = sorted(path for name in names for path in output_dir.glob(name))
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if found:
        logger.warning("overwrite: true -> deleted the run in %s; leave the key out to continue this one", output_dir)


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
    damage = find_damage_together(checkpoint)
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
    try:
        earlier = read_run_info(path)["config"]
    except ConfigError as error:
        logger.warning("%s It is passed over: the settings of the earlier sitting are not compared with these", error)
        return
    check_same_settings(checkpoint, earlier, config)


def is_finished(checkpoint: Path, args: Any) -> bool:
    """Tell whether a checkpoint is the end of the run that `args` describes."""
    state = read_state(checkpoint)
    if args.max_steps > 0:
        return bool(state.global_step >= args.max_steps)
    return bool(state.epoch is not None and state.epoch >= args.num_train_epochs)


def finish(
    checkpoint: Path | None, args: Any, data_args: DataArguments, samples: Sequence[VideoSample] | None = None
) -> int:
    """Give a run that had only its result left to write that result.

    Raises:
        DataError: the run was trained on other data than are asked for.
    """
    output_dir = Path(args.output_dir)
    if data_args.on_decode_error == "raise":
        samples = load_samples(data_args.train_file) if samples is None else samples
        check_same_samples(args, checkpoint or output_dir, samples, data_args)
    result = output_dir / STATE
    if checkpoint is None or result.is_file() and read_state(output_dir).global_step == checkpoint_step(checkpoint):
        logger.info("%s: the run is finished; nothing is left to do", output_dir)
    elif args.should_save:
        source = _best_checkpoint(checkpoint) if args.load_best_model_at_end else checkpoint
        adopt_model(source, output_dir)
        logger.info("%s: the model of %s is the result", output_dir, source.name)
    say_what_is_next(args)
    return 0


def _best_checkpoint(checkpoint: Path) -> Path:
    """Find the best checkpoint of a run that has ended, beside its last one."""
    best = read_state(checkpoint).best_model_checkpoint
    found = checkpoint.with_name(Path(best).name) if best else checkpoint
    if damage := find_damage(found):
        raise CheckpointError(
            f"{found}: is the best checkpoint, and incomplete ({damage}); set load_best_model_at_end=false to take "
            f"{checkpoint.name} instead."
        )
    return found


def say_what_is_next(args: Any) -> None:
    """Name the result, and the command that comes after this stage."""
    out = args.output_dir
    after = f"video-thinker eval CONFIG model_name_or_path={out}"
    if isinstance(args, GRPOConfig):
        after += f", then video-thinker report {out} EVAL_DIR --out FILE"
    else:
        after = f"video-thinker grpo CONFIG model_name_or_path={out}, or {after}"
    if args.should_save:
        logger.info("the result is in %s; next: %s", out, after)


@contextmanager
def one_run(args: Any) -> Iterator[None]:
    """Hold the lock of a run's folder, on the first process, and keep its log there.

    Raises:
        ConfigError: another run is working in the folder.
    """
    is_first = args.process_index == 0
    with run_lock(Path(args.output_dir)) if is_first else nullcontext():
        with args.main_process_first(local=False, desc="clearing the folder"):
            if is_first:
                clear_folder(args)
                restore_result(Path(args.output_dir), drop=args.overwrite)
        with log_file(Path(args.output_dir) / LOG_FILE) if is_first else nullcontext():
            yield


def run_training(trainer: Trainer, checkpoint: Path | None, config: dict[str, Any]) -> int:
    """Train from the beginning or from a checkpoint, and write the result.

    Returns:
        0; or 130 (Ctrl-C) or 143 (SIGTERM) if it was told to stop and has saved a checkpoint to continue from.
    """
    args = trainer.args
    if args.should_save:
        write_run_info(str(args.output_dir), config)
    stop = StopCallback(launched=args.world_size > 1)
    trainer.add_callback(stop)
    guard_reporters(trainer)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        stop.give_back()
    if stop.stopped:
        step = trainer.state.global_step
        if args.should_save:
            logger.warning("saved %s/checkpoint-%d; the same command continues", args.output_dir, step)
        return 128 + stop.stopped
    save_result(trainer, config)
    say_what_is_next(args)
    return 0
