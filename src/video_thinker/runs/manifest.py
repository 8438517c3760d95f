"""`files.json`: the files of a checkpoint with their sizes and checksums, so that damage is noticed before it is used.

    {"model.safetensors": {"bytes": 3270160, "xxh3_128": "9f0c…"}, "optimizer.pt": {…}, …}

Sizes find a copy that was cut short. Checksums find what has another cause: a flipped bit, a page of zeros after a loss
of power, a broken transfer. XXH3 is about as fast as a file can be read; it finds accidents, and is no protection
against forgery. Versions before wrote the size alone, which is still read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from video_thinker.disk import say
from video_thinker.runs.files import write_json

logger = logging.getLogger(__name__)

MANIFEST = "files.json"
CARD = "README.md"
"""The model card is for readers, and may be written anew (`video-thinker card`): it is not listed."""

CHECKSUM = "xxh3_128"
CHUNK_BYTES = 8 * 2**20
NUM_THREADS = 4
SAID_FROM_BYTES = 2**30
"""A check of so much is announced: it takes seconds."""


def checksum(path: Path) -> str:
    """XXH3 (128 bits) of a file, as hex."""
    found, buffer = xxhash.xxh3_128(), bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            found.update(view[:count])
    return found.hexdigest()


def write_manifest(folder: Path) -> None:
    """List every file below `folder`, except a model card and hidden files, with its size and checksum."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_listed(path)]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        sums = list(pool.map(checksum, paths))
    write_json(
        folder / MANIFEST,
        {
            str(path.relative_to(folder)): {"bytes": path.stat().st_size, CHECKSUM: found}
            for path, found in zip(paths, sums, strict=True)
        },
    )


def _is_listed(path: Path) -> bool:
    return path.name not in (MANIFEST, CARD) and not path.name.startswith(".")


def find_damage(folder: Path, *, with_bytes: bool = True, share: tuple[int, int] = (0, 1)) -> str | None:
    """Say what is missing or damaged in a folder with a manifest, or `None` if it is complete.

    Args:
        folder: The folder.
        with_bytes: Compare the checksums, too: reads every byte.
        share: (I, N): compare only the checksums of the I-th of N shares of the files, for N processes.
    """
    try:
        files = _read_manifest(folder / MANIFEST)
        if isinstance(files, str):
            return files
        sizes = (_wrong_size(folder / name, name, one) for name, one in files.items())
        damage = next(filter(None, sizes), None)
        if damage is not None or not with_bytes:
            return damage
        summed = {name: one for name, one in files.items() if CHECKSUM in one}
        mine = sorted(summed, key=lambda name: (-summed[name]["bytes"], name))[share[0] :: share[1]]
        num_bytes = sum(summed[name]["bytes"] for name in mine)
        if num_bytes >= SAID_FROM_BYTES:
            logger.info("%s: comparing the checksums of %.1f GiB", folder, num_bytes / 2**30)
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            sums = list(pool.map(checksum, (folder / name for name in mine)))
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read: {say(error)}"
    wrong = [name for name, now in zip(mine, sums, strict=True) if now != summed[name][CHECKSUM]]
    return f"the bytes of {', '.join(wrong)} are not those that were written" if wrong else None


def _read_manifest(path: Path) -> Mapping[str, dict[str, Any]] | str:
    """Read a manifest; a text says what is wrong with it."""
    if not path.is_file():
        return f"no {MANIFEST}, so it was never finished"
    try:
        value = json.loads(path.read_bytes())
    except ValueError:  # also of bytes that are no text
        return f"{MANIFEST} is cut short or damaged"
    if not isinstance(value, dict) or not value:
        return f"{MANIFEST} lists no files"
    files = {name: {"bytes": one} if isinstance(one, int) else one for name, one in value.items()}
    if not all(isinstance(one, dict) and isinstance(one.get("bytes"), int) for one in files.values()):
        return f"{MANIFEST} does not give the sizes of files"
    return files


def _wrong_size(path: Path, name: str, listed: Mapping[str, Any]) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    return None if size == listed["bytes"] else f"{name} has {size} of {listed['bytes']} bytes"
