"""Is there room on the disk for what a run will write? Asked before its model is loaded."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from video_thinker.errors import WriteError

logger = logging.getLogger(__name__)

BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
MIB = 2**20


def saved_bytes(model: str, dtype: str) -> int | None:
    """Bytes of a model's weights as a run in `dtype` writes them; `None` if its files do not lie in a folder here."""
    folder = Path(model)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not size or not (folder / "config.json").is_file():
        return None
    try:
        config = json.loads((folder / "config.json").read_bytes())
        stored = BYTES.get(str(config.get("dtype") or config.get("torch_dtype")))
    except (ValueError, AttributeError):  # the loader says what is wrong with it
        return None
    wanted = BYTES.get(dtype, stored)
    return size if stored is None or wanted is None else size * wanted // stored


def check_room(args: Any, model: str, dtype: str, *, use_peft: bool) -> None:
    """Look whether the disk of `output_dir` has room for one checkpoint, or for the result of a run without any.

    An adapter is small beside its optimizer's state, and neither is known before the model is loaded: it is not looked
    at.

    Args:
        args: The training arguments.
        model: Which model; one of the hub that lies in no folder is not looked at.
        dtype: Type of the weights in the run.
        use_peft: Whether an adapter is trained.

    Raises:
        WriteError: there is less room than the weights alone take.
    """
    weights = None if use_peft else saved_bytes(model, dtype)
    if weights is None or not args.should_save:
        return
    free = shutil.disk_usage(args.output_dir).free
    whole = weights * (1 if args.save_strategy == "no" or args.save_only_model else 7 if args.deepspeed else 3)
    fix = "make room, choose an output_dir on another disk, or set save_only_model=true, use_peft=true or freeze"
    said = f"{args.output_dir}: {free / MIB:.1f} MiB are free, and the weights of {model} take {weights / MIB:.1f} MiB"
    if free < weights:
        raise WriteError(f"{said}: no checkpoint and no result could be written; make room, or choose another disk.")
    if free < whole:
        logger.warning(
            "%s, with the state of their optimizer up to %.1f MiB: a checkpoint may not fit; %s",
            said,
            whole / MIB,
            fix,
        )
