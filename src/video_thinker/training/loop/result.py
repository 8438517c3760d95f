"""The result of a training: written when it is whole, kept elsewhere when its folder cannot take it, never lost.

What a training has computed lies in memory until its last file is on the disk. If `output_dir` takes it not (a full
disk, a folder that was removed or made read-only), the last checkpoint may hold it already; else it is written to the
folder of temporary files, and the same command brings it back when it is started again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import Trainer

from video_thinker.disk import cannot_write, say
from video_thinker.errors import CheckpointError, WriteError
from video_thinker.runs.files import kept_place, sync_files, write_text
from video_thinker.runs.manifest import CARD, MANIFEST, find_damage, write_manifest
from video_thinker.runs.record import RUN_INFO, SAMPLES_FILE, STATE, write_run_info
from video_thinker.training.loop.checkpoints import (
    STAGING,
    check_weights_to_save,
    checkpoint_step,
    last_good_checkpoint,
    write_model_card,
)

logger = logging.getLogger(__name__)

RUN_STATE = (
    "optimizer*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*",
    "rollouts*",
    STATE,
    MANIFEST,
    "latest",
    "global_step*",
)
"""What a checkpoint holds beyond a model: left out when its model becomes the run's result."""


RESULT_FILES = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "adapter_*",
    CARD,
    "config.json",
    "generation_config.json",
    "training_args.bin",
)
"""Patterns of the files that make a folder a model, besides its processor."""


WRITING_ERRORS = (OSError, RuntimeError, SafetensorError, WriteError)
"""What a file that cannot be written raises: the system, torch, safetensors, our own."""


def result_kept_at(output_dir: Path) -> Path:
    """Say where a result is kept that `output_dir` cannot take."""
    place = kept_place(output_dir)
    return place.with_name(f"{place.name}.result")


def adopt_model(checkpoint: Path, output_dir: Path) -> None:
    """Make a checkpoint's model the result in `output_dir`, without the state a run continues from.

    It takes no room where the file system has hard links: no file of either is ever written again in its place.

    Raises:
        WriteError: it cannot be written; the checkpoint is untouched.
    """
    target = output_dir / STAGING / "final"
    shutil.rmtree(target, ignore_errors=True)
    try:
        _copy_files(checkpoint, target, RUN_STATE)
        if (target / CARD).is_file():
            card = (target / CARD).read_text(encoding="utf-8")
            write_text(target / CARD, card.replace(str(checkpoint), str(output_dir)))
        shutil.copyfile(checkpoint / STATE, target / STATE)
        sync_files(target)
        move_files(target, output_dir)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        then = f"{checkpoint} holds the trained model; make room, and the same command writes the result."
        raise cannot_write(output_dir, error, then) from error


def _copy_files(source: Path, target: Path, ignored: Sequence[str]) -> None:
    """Link or copy the files of a folder, except those whose name, or the folder they lie in, matches a pattern."""
    for path in sorted(source.rglob("*")):
        place = path.relative_to(source)
        if path.is_file() and not any(fnmatch(part, pattern) for part in place.parts for pattern in ignored):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target / place)
            except OSError:  # another disk, or a file system without links
                shutil.copyfile(path, target / place)


def move_files(source: Path, target: Path) -> None:
    """Move every file and folder of `source` into `target`, one atomic rename each, the state last; remove `source`."""
    for path in sorted(source.iterdir(), key=lambda path: (path.name == STATE, path.name)):
        if path.is_dir():
            shutil.rmtree(target / path.name, ignore_errors=True)
            path.replace(target / path.name)
            continue
        path.replace(target / path.name)
        path.unlink(missing_ok=True)  # renaming one link of a file over another one does nothing
    source.rmdir()


def save_result(trainer: Trainer, config: dict[str, Any]) -> None:
    """Write the trained model into `output_dir`, every file complete before it appears, the state at the end.

    Args:
        trainer: Has trained it. All ranks call this.
        config: The settings of the run.

    Raises:
        CheckpointError: it cannot be written there. The message says where the model is kept; the same command takes
            it from there.
        NonFiniteError: the weights are not finite. Nothing is written.
    """
    check_weights_to_save(trainer)
    output_dir = Path(str(trainer.args.output_dir))
    staged = output_dir / STAGING / "final"
    error = _tried(trainer, staged, lambda: _put_result(staged, output_dir, config))
    if error is None:
        return
    if trainer.args.should_save:
        shutil.rmtree(output_dir / STAGING, ignore_errors=True)
    said = f"{output_dir}: the trained model could not be written there ({error})"
    last = last_good_checkpoint(output_dir)
    if last is not None and checkpoint_step(last) == trainer.state.global_step and not _takes_best(trainer):
        raise CheckpointError(f"{said}; {last} holds it: make room, and the same command writes the result.")
    kept = result_kept_at(output_dir)
    if trainer.args.should_save:
        shutil.rmtree(kept, ignore_errors=True)
    other_error = _tried(trainer, kept, lambda: _seal_kept(kept, output_dir, config))
    if other_error is not None:
        if trainer.args.should_save:
            shutil.rmtree(kept, ignore_errors=True)
        earlier = f"the last checkpoint is {last}" if last else "there is no checkpoint"
        raise CheckpointError(
            f"{said}, nor kept in {kept} ({other_error}); {earlier}. Make room, and start the same command again: it "
            "trains what is missing."
        )
    raise CheckpointError(f"{said}; it is kept in {kept}. Make room, and the same command puts it into its place.")


def _takes_best(trainer: Trainer) -> bool:
    return bool(trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint)


def _tried(trainer: Trainer, folder: Path, then: Callable[[], None]) -> str | None:
    """Write model, card and state into a folder, and do what belongs to it; say, on all ranks, what failed on one."""
    said = None
    try:
        if trainer.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
        trainer.save_model(str(folder))
        if trainer.args.should_save:
            output_dir = Path(str(trainer.args.output_dir))
            write_model_card(trainer, folder, output_dir, output_dir)
            trainer.state.save_to_json(str(folder / STATE))
            sync_files(folder)
            then()
    except WRITING_ERRORS as error:
        said = say(error) if isinstance(error, OSError) else " ".join(str(error).split())
    if not torch.distributed.is_initialized():
        return said
    gathered: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, said)
    return next((text for text in gathered if text is not None), None)


def _put_result(staged: Path, output_dir: Path, config: dict[str, Any]) -> None:
    move_files(staged, output_dir)
    (output_dir / STAGING).rmdir()
    if not (output_dir / RUN_INFO).is_file():  # the folder was removed while the run went on
        write_run_info(str(output_dir), config)


def _seal_kept(kept: Path, output_dir: Path, config: dict[str, Any]) -> None:
    """Add what the output folder must hold for the run to be known as finished."""
    write_run_info(str(kept), config)
    if (output_dir / SAMPLES_FILE).is_file():
        shutil.copyfile(output_dir / SAMPLES_FILE, kept / SAMPLES_FILE)
    write_manifest(kept)


def restore_result(output_dir: Path, *, drop: bool = False) -> None:
    """Bring back a result that an earlier sitting could not write to its folder; with `drop`, forget it.

    Raises:
        WriteError: it still cannot be written. It stays where it is kept.
    """
    kept = result_kept_at(output_dir)
    if not kept.is_dir():
        return
    damage = None if drop else find_damage(kept)
    if drop or damage is not None:
        if damage is not None:
            logger.warning("%s: a result was kept there, and is not whole (%s); it is passed over", kept, damage)
        shutil.rmtree(kept, ignore_errors=True)
        return
    target = output_dir / STAGING / "final"
    shutil.rmtree(target, ignore_errors=True)
    there = [name for name in (RUN_INFO, SAMPLES_FILE) if (output_dir / name).is_file()]
    try:
        _copy_files(kept, target, (MANIFEST, *there))
        sync_files(target)
        move_files(target, output_dir)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise cannot_write(output_dir, error, f"{kept} holds the trained model; make room, and try again.") from error
    shutil.rmtree(kept, ignore_errors=True)
    logger.info("%s: has the result that could not be written before (%s)", output_dir, kept)
