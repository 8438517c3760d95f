"""Checkpoints that a killed run continues from: written aside, moved into place when complete, checked before use.

`checkpoint-N` appears in the output folder by a rename, after its last byte has been written; until then it lies in
`output_dir/saving`. `files.json` inside lists every file with its size, so that a checkpoint that was cut short in
another way (a copy, a full disk, a crashed file system) is recognised too.
"""

from __future__ import annotations

import functools
import json
import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import rotate_checkpoints

from video_thinker.errors import CheckpointError, NonFiniteError
from video_thinker.models.parts import parameter_table
from video_thinker.models.weights import load_whole, name_some, not_finite_anywhere
from video_thinker.runs.card import CARD, Saved, write_card
from video_thinker.runs.files import write_text
from video_thinker.runs.record import STATE

logger = logging.getLogger(__name__)

STAGING = "saving"
MANIFEST = "files.json"
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


def write_manifest(folder: Path) -> None:
    """List every file below `folder` with its size in bytes."""
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / MANIFEST).write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


def find_damage(checkpoint: Path) -> str | None:
    """Say what is missing in a checkpoint, or `None` if it is complete."""
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return f"no {MANIFEST}, so it was never finished"
    try:
        sizes: dict[str, int] = json.loads(manifest.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return f"{MANIFEST} is cut short"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
    return None


def checkpoint_step(checkpoint: Path) -> int:
    """Read N from `checkpoint-N`."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def list_checkpoints(output_dir: Path) -> list[Path]:
    """List the folders `checkpoint-N`, latest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdigit()]
    return sorted(found, key=checkpoint_step, reverse=True)


def last_complete_checkpoint(output_dir: Path) -> Path | None:
    """Find the latest complete checkpoint; those that are not are passed over with a message."""
    for left in sorted((output_dir / STAGING).glob("checkpoint-*")):
        logger.warning("%s: the run ended while it was being written; it is passed over", left)
    for checkpoint in list_checkpoints(output_dir):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        logger.warning("%s: incomplete (%s); it is passed over", checkpoint, damage)
    return None


def last_good_checkpoint(output_dir: Path) -> Path | None:
    """Find the latest complete checkpoint, for a message."""
    return next((checkpoint for checkpoint in list_checkpoints(output_dir) if find_damage(checkpoint) is None), None)


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
    """Read `trainer_state.json`."""
    state: TrainerState = TrainerState.load_from_json(str(folder / STATE))
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


def adopt_model(checkpoint: Path, output_dir: Path) -> None:
    """Make a checkpoint's model the result in `output_dir`, without the state a run continues from."""
    target = output_dir / STAGING / "final"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns(*RUN_STATE))
    if (target / CARD).is_file():
        card = (target / CARD).read_text(encoding="utf-8")
        write_text(target / CARD, card.replace(str(checkpoint), str(output_dir)))
    move_files(target, output_dir)


def move_files(source: Path, target: Path) -> None:
    """Move every file and folder of `source` into `target`, one atomic rename each, and remove `source`."""
    for path in sorted(source.iterdir()):
        if path.is_dir():
            shutil.rmtree(target / path.name, ignore_errors=True)
        path.replace(target / path.name)
    source.rmdir()


def _ignore_signals(worker_init_fn: Callable[[int], None] | None, worker_id: int) -> None:
    """SLURM and Ctrl-C signal every process; a worker that died of it would take the step that saves the run along."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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


def load_weights(model: Any, checkpoint: str) -> None:
    """Load the weights of a checkpoint that is no adapter into a model.

    Transformers' own way compares the names in the file, which are those of the hub's checkpoints, with those of the
    model in memory; for Qwen-VL no name is equal, and it goes on, with a warning, from the weights it started with.
    """
    saved = load_whole(type(model), checkpoint, checkpoint, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


def save_result(trainer: Trainer) -> None:
    """Write the trained model into `output_dir`, every file complete before it appears, the state at the end."""
    check_weights_to_save(trainer)
    output_dir = Path(str(trainer.args.output_dir))
    target = output_dir / STAGING / "final"
    trainer.save_model(str(target))
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        write_model_card(trainer, target, output_dir, output_dir)
        move_files(target, output_dir)
        (output_dir / STAGING).rmdir()
    trainer.save_state()


def leave_signals_to_parent(loader: Any) -> Any:
    """Let the workers of accelerate's data loader ignore SIGTERM and Ctrl-C; their parent ends them."""
    inner = loader.base_dataloader
    inner.worker_init_fn = functools.partial(_ignore_signals, inner.worker_init_fn)
    return loader
