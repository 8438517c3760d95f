"""What a disk or a file system refuses, in our words, and stores on disk that say so."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import diskcache

from video_thinker.errors import WriteError

WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than a file may be here (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENAMETOOLONG: "the name or path is too long",
    errno.ENOENT: "the folder is not there (was it removed?)",
    errno.ENOTDIR: "a file is where a folder is wanted",
    errno.EEXIST: "a file is where a folder is wanted",
    errno.EISDIR: "a folder is where a file is wanted",
    errno.ENOTEMPTY: "the folder is there and not empty",
    errno.EIO: "the disk has an I/O error",
    errno.ESTALE: "the network file system has lost the file",
    errno.EMFILE: "too many open files (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
    errno.ELOOP: "a symbolic link leads to itself",
    errno.EINVAL: "the file system does not take this name or file",
    errno.EBUSY: "the file or folder is in use",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAX_SHOWN = 200

STORE_ERRORS = (OSError, sqlite3.Error, diskcache.Timeout)
"""What a store of `diskcache` raises when its disk is full, busy, read-only or gone."""


def say(error: OSError) -> str:
    """Say what was refused."""
    return WORDS.get(error.errno or 0) or (error.strerror or str(error) or type(error).__name__)


def shorten(path: str | Path) -> str:
    """Write a path for a message; one that is absurdly long is cut in the middle."""
    text = str(path)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN // 2]}…{text[-MAX_SHOWN // 4 :]}"


def free_mib(path: Path) -> float | None:
    """Give the free space where a path is or would be, in MiB; `None` where that cannot be known."""
    for folder in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free / 2**20
        except OSError:
            continue
    return None


def cannot_write(path: str | Path, error: OSError, then: str = "") -> WriteError:
    """Make the error for a file or folder that cannot be written.

    Args:
        path: The file or folder.
        error: What the operating system says.
        then: What is kept, and what to do; by default, to run the same command again.
    """
    free = free_mib(Path(path)) if error.errno in FULL else None
    said = say(error)
    if any(os.path.islink(one) and not os.path.exists(one) for one in (path, *Path(path).parents)):  # noqa: PTH110, PTH114  # these two raise nothing
        said = "a symbolic link in its path leads nowhere"
    where = "" if free is None else f", {free:.1f} MiB are free there"
    fix = "make room" if error.errno in FULL else "repair that"
    then = then or f"{fix}, or choose another place, and run the same command again."
    return WriteError(f"{shorten(path)}: cannot be written: {said}{where}; {then}")


def open_store(folder: str | Path, name: str, **options: Any) -> diskcache.Cache:
    """Open a store on disk.

    Args:
        folder: Where it lies; made if it is not there.
        name: What the user calls it, for messages.
        options: Of `diskcache.Cache`.

    Raises:
        WriteError: it cannot be opened or written, or holds something else.
    """
    try:
        store = diskcache.Cache(str(folder), **options)
        with store.transact():  # needs to write
            pass
    except OSError as error:
        raise cannot_write(folder, error, f"{name} needs a folder that can be written: choose another one.") from error
    except (sqlite3.Error, diskcache.Timeout, ValueError) as error:
        raise WriteError(
            f"{shorten(folder)}: cannot be used as {name} ({error}): its disk may be full, read-only or damaged; make "
            "room, choose another folder, or delete this one: a cache is made again."
        ) from error
    return store
