"""Checkpoints that a killed run continues from: written aside, moved into place when complete, checked before use.

`checkpoint-N` appears in the output folder by a rename, after its last byte has been written; until then it lies in
`output_dir/saving`. `files.json` inside lists every file with its size and checksum (`runs/manifest.py`), so that a
checkpoint that was damaged in another way (a copy, a full disk, a crashed file system) is recognised too.
"""

from __future__ import annotations

import functools
import logging
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import rotate_checkpoints

from video_thinker.errors import CheckpointError, NonFiniteError, VideoThinkerError
from video_thinker.memory import is_out_of_memory
from video_thinker.models.folder import check_model_folder
from video_thinker.models.parts import parameter_table
from video_thinker.models.weights import load_whole, name_some, not_finite_anywhere
from video_thinker.runs.card import Saved, write_card
from video_thinker.runs.manifest import find_damage, write_manifest
from video_thinker.runs.record import STATE

logger = logging.getLogger(__name__)

STAGING = "saving"
STATE_ERRORS = (RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError)
"""What torch raises for a file that is none of its own, and an optimizer for a state of other parameters."""


def checkpoint_step(checkpoint: Path) -> int:
    """Read N from `checkpoint-N`."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def list_checkpoints(output_dir: Path) -> list[Path]:
    """List the folders `checkpoint-N`, latest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdigit()]
    return sorted(found, key=checkpoint_step, reverse=True)


def last_complete_checkpoint(output_dir: Path) -> Path | None:
    """Find the latest complete checkpoint; those that are not are passed over with a message.

    To be called by all ranks: each compares its share of the checksums, and all learn what one has found.
    """
    for left in sorted((output_dir / STAGING).glob("checkpoint-*")):
        logger.warning("%s: the run ended while it was being written; it is passed over", left)
    for checkpoint in list_checkpoints(output_dir):
        damage = find_damage_together(checkpoint)
        if damage is None:
            return checkpoint
        logger.warning("%s: incomplete (%s); it is passed over", checkpoint, damage)
    return None


def find_damage_together(checkpoint: Path) -> str | None:
    """Look at a checkpoint, checksums included, on all ranks; each gives what the first one has found."""
    if not torch.distributed.is_initialized():
        return find_damage(checkpoint)
    world_size = torch.distributed.get_world_size()
    found = find_damage(checkpoint, share=(torch.distributed.get_rank(), world_size))
    gathered: list[str | None] = [None] * world_size
    torch.distributed.all_gather_object(gathered, found)
    return next((damage for damage in gathered if damage), None)


def last_good_checkpoint(output_dir: Path) -> Path | None:
    """Find the latest checkpoint that has all its files, for a message."""
    for checkpoint in list_checkpoints(output_dir):
        if find_damage(checkpoint, with_bytes=False) is None:
            return checkpoint
    return None


def check_weights_to_save(trainer: Trainer) -> None:
    """Refuse to save weights that are not finite; to be called by all ranks.

    Raises:
        NonFiniteError: naming them, and the last good checkpoint, which stays.
    """
    output_dir = Path(str(trainer.args.output_dir))
    assert trainer.model is not None, "it has trained one"
    if names := not_finite_anywhere(trainer.model):
        last = last_good_checkpoint(output_dir)
        kept = f"the last good checkpoint is {last}" if last else "there is no earlier checkpoint"
        raise NonFiniteError(
            f"step {trainer.state.global_step}: {len(names)} weight tensors are not finite (NaN or infinite): "
            f"{name_some(names)}. They are not saved; {kept}. Start again in another output_dir, with a lower "
            f"learning_rate (now {trainer.args.learning_rate:g})."
        )


def read_state(folder: Path) -> TrainerState:
    """Read `trainer_state.json`.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        state: TrainerState = TrainerState.load_from_json(str(folder / STATE))
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / STATE}: is damaged ({' '.join(str(error).split())}); delete this file to continue from an "
            "earlier checkpoint, or choose another output_dir."
        ) from error
    return state


def write_model_card(trainer: Trainer, folder: Path, path: Path, run_folder: Path) -> None:
    """Write our card over those of TRL and PEFT, which do not know the run.

    Args:
        trainer: What has trained the model.
        folder: Where the model lies now.
        path: Where it will lie.
        run_folder: Folder with the run's record.
    """
    assert trainer.model is not None, "it has trained one"
    state = {name: getattr(trainer.state, name) for name in ("global_step", "epoch", "log_history")}
    write_card(Saved(folder, str(path), run_folder, state, parameter_table(trainer.model)))


def _ignore_signals(worker_init_fn: Callable[[int], None] | None, worker_id: int) -> None:
    """SLURM and Ctrl-C signal every process; a worker that died of it would take the step that saves the run along."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if worker_init_fn is not None:
        worker_init_fn(worker_id)


class Staging:
    """Where a trainer writes just now: its output folder, or the folder in which a checkpoint becomes complete."""

    folder: str | None = None

    @contextmanager
    def checkpoint(self, trainer: Trainer, output_dir: Path) -> Iterator[Path]:
        """Let the trainer write `checkpoint-N` aside, then move it into place.

        Args:
            trainer: Its `_get_output_dir` gives `folder` meanwhile.
            output_dir: Where the checkpoint belongs.

        Yields:
            The folder to write to.

        Raises:
            CheckpointError: it could not be written. Earlier checkpoints are untouched.
            NonFiniteError: the weights are not finite. Nothing is written, and earlier checkpoints are untouched.
        """
        args, state = trainer.args, trainer.state
        check_weights_to_save(trainer)
        name = f"checkpoint-{state.global_step}"
        staged, final = output_dir / STAGING / name, output_dir / name
        if args.should_save:
            shutil.rmtree(output_dir / STAGING, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        self.folder = str(output_dir / STAGING)
        try:
            yield staged
            trainer.accelerator.wait_for_everyone()
            if args.should_save:
                if state.best_model_checkpoint == str(staged):
                    state.best_model_checkpoint = str(final)
                    state.save_to_json(str(staged / STATE))
                write_model_card(trainer, staged, final, output_dir)
                write_manifest(staged)
        except Exception as error:
            raise _explain(error, staged, output_dir, args.should_save) from error
        finally:
            self.folder = None
        if args.should_save:
            if final.exists():  # a run that was sent back to an earlier checkpoint comes by here again
                final.rename(output_dir / STAGING / "replaced")
            staged.rename(final)
            shutil.rmtree(output_dir / STAGING)
            rotate_checkpoints(str(output_dir), args.save_total_limit, state.best_model_checkpoint)
        trainer.accelerator.wait_for_everyone()


def _explain(error: Exception, staged: Path, output_dir: Path, remove: bool) -> CheckpointError:
    if remove:
        shutil.rmtree(staged, ignore_errors=True)
    free_gib = shutil.disk_usage(output_dir).free / 2**30
    last = last_good_checkpoint(output_dir)
    kept = f"the last complete one is {last}" if last else "there is no earlier one"
    return CheckpointError(
        f"{staged.name} could not be written to {output_dir} ({type(error).__name__}: {error}; {free_gib:.2f} GiB "
        f"are free there now); {kept}. Make room, or lower save_total_limit, and start the same command again: it "
        "continues from there."
    )


@contextmanager
def state_errors(checkpoint: str) -> Iterator[None]:
    """Turn what torch says of a damaged file of a run's state into one message.

    Checksums find such a file before; checkpoints of earlier versions have none.
    """
    try:
        yield
    except STATE_ERRORS as error:
        if isinstance(error, VideoThinkerError) or is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{checkpoint}: the state of optimizer, schedule or random numbers is damaged, or of another run "
            f"({' '.join(str(error).split())[:200]}); delete it, and the same command takes the one before."
        ) from error


def load_weights(model: Any, checkpoint: str) -> None:
    """Load the weights of a checkpoint that is no adapter into a model.

    Transformers' own way compares the names in the file, which are those of the hub's checkpoints, with those of the
    model in memory; for Qwen-VL no name is equal, and it goes on, with a warning, from the weights it started with.
    """
    check_model_folder(Path(checkpoint))
    saved = load_whole(type(model), checkpoint, checkpoint, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


def leave_signals_to_parent(loader: Any) -> Any:
    """Let the workers of accelerate's data loader ignore SIGTERM and Ctrl-C; their parent ends them."""
    inner = loader.base_dataloader
    inner.worker_init_fn = functools.partial(_ignore_signals, inner.worker_init_fn)
    return loader
