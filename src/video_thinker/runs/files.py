"""Files that are complete or absent, and their hashes: the one place that writes and reads those of a run folder.

A file or folder is written beside its place under a hidden name, `.NAME.HOST.PID.….tmp`, and renamed when its last byte
is on the disk. A process that was killed leaves such a draft; the next one that writes the same name removes it. What
cannot be written is a `WriteError` that says why. Rows that were computed at a cost and cannot be added to their file
are kept in the folder of temporary files, and `restore_kept` brings them back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from video_thinker.disk import cannot_write, say, shorten
from video_thinker.errors import DataError

logger = logging.getLogger(__name__)

DRAFT_MAX_AGE_S = 7 * 24 * 3600
"""A draft of another machine is removed after this time: whether its process lives cannot be known from here."""

_drafts: set[Path] = set()
"""Drafts of this process."""


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a kill leaves either the old file or the new one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a kill leaves either the old one or the new one, also if several processes write it.

    Raises:
        WriteError: it cannot be written; the old file is untouched.
    """
    with replacing(path) as file:
        file.write(text)


@contextmanager
def replacing(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file beside its place, and put it there when it is whole; after an error there is only the old one.

    Raises:
        WriteError: it cannot be written.
    """
    path = Path(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "replace"}  # half a surrogate pair is no UTF-8
    with _explained(path), _draft(path) as draft:
        with draft.open(mode, **text) as file:  # type: ignore[call-overload]  # a mode that is not known to mypy
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_folder(path.parent)


@contextmanager
def drafting(path: str | Path) -> Iterator[Path]:
    """Name a file beside its place, for libraries that open files themselves, and put it there when it is whole.

    It is not forced to the disk: for files that are made again after a loss of power.

    Raises:
        WriteError: it cannot be written.
    """
    path = Path(path)
    with _explained(path), _draft(path) as draft:
        yield draft
        draft.replace(path)


@contextmanager
def building(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a folder to write into, and put it in its place when it is whole; after an error there is none.

    With `replace`, what is in its place is removed then.

    Raises:
        WriteError: it cannot be written, or its place holds something.
    """
    folder = Path(folder)
    with _explained(folder), _draft(folder) as draft:
        draft.mkdir()
        yield draft
        sync_files(draft)
        if replace and folder.is_dir() and any(folder.iterdir()):
            with _draft(folder) as old:
                folder.rename(old)
                draft.rename(folder)
        else:
            draft.rename(folder)  # over nothing, or over an empty folder
        _sync_folder(folder.parent)


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Name a draft, and remove it and those that killed processes have left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(path)
    draft = path.with_name(f"{_draft_prefix(path)}{_host()}.{os.getpid()}.{uuid.uuid4().hex[:12]}.tmp")
    _drafts.add(draft)
    try:
        yield draft
    finally:
        _drafts.discard(draft)
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def remove_drafts(path: Path) -> None:
    """Remove what killed processes have left of a file or folder."""
    with suppress(OSError):
        for left in path.parent.iterdir():
            if left.name.startswith(_draft_prefix(path)) and left.name.endswith(".tmp") and _is_orphan(left):
                logger.info("%s: was left half written by a run that was killed; it is removed", left)
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


def _draft_prefix(path: Path) -> str:
    """Begin a draft's name; a long name is cut, so that the draft's is no longer than a name may be."""
    return f".{path.name.encode()[:100].decode(errors='ignore')}."


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_orphan(draft: Path) -> bool:
    host, pid = draft.name.split(".")[-4:-2] if draft.name.count(".") > 3 else ["", ""]  # noqa: PLR2004
    if host != _host() or not pid.isdigit():
        return time.time() - draft.stat().st_mtime > DRAFT_MAX_AGE_S
    if int(pid) == os.getpid():
        return draft not in _drafts
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def _explained(path: Path, then: str = "") -> Iterator[None]:
    """Turn what the operating system refuses into one message about `path`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, then) from error


def sync_files(folder: Path) -> None:
    """Force every file below a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Put a rename on the disk; file systems that cannot do that for a folder do it by themselves."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_folder(folder: str | Path, name: str = "output_dir") -> Path:
    """Make a folder and check that files can be written there, before a model is loaded.

    Raises:
        WriteError: it cannot be made or written.
    """
    folder = Path(folder)
    with _explained(folder, f"choose another {name}, or repair that, and run the same command again."):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable.") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    return folder


def check_place(path: str | Path, name: str) -> Path:
    """Check that a file can be written at a place, before it is computed.

    Raises:
        WriteError: its folder cannot be made or written, or the place is a folder.
    """
    path = Path(path)
    with _explained(path, f"choose another {name}."):
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writable.") as file:
            file.write(bytes(4096))
            file.flush()
    with _explained(path, f"choose another {name}."), suppress(FileNotFoundError):
        path.stat()  # a name that is too long
    return path


def append_text(path: Path, text: str) -> None:
    """Add whole lines to a file; they are on the disk when this returns.

    Raises:
        WriteError: they cannot be added. The file is as before, and the lines are kept elsewhere, if that can be done.
    """
    data = text.encode("utf-8", "replace")
    size = path.stat().st_size if path.is_file() else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, size or 0)
        kept = keep(path, data)
        then = f"these {len(data)} bytes are lost; make room, and run the same command again."
        if kept is not None:
            then = f"the new rows are kept in {kept}; make room, and the same command takes them up and continues."
        raise cannot_write(path, error, then) from error


def kept_place(path: str | Path) -> Path:
    """Say where something is kept that cannot be written to `path`: among the temporary files, under its full path."""
    base = Path(tempfile.gettempdir()) / f"video-thinker-kept-{os.getuid() if hasattr(os, 'getuid') else 'me'}"
    return base / Path(path).absolute().relative_to(Path(path).absolute().anchor)


def keep(path: Path, data: bytes) -> Path | None:
    """Keep bytes that could not be added to a file; `None` if no other place takes them."""
    place = kept_place(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with place.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        logger.error("%s: what is new is not kept in %s either: %s", shorten(path), shorten(place), say(error))
        return None
    return place


def restore_kept(folder: Path, *, drop: bool = False) -> None:
    """Bring back what an earlier run could not add to the files of a folder; with `drop`, forget it.

    Raises:
        WriteError: there is still no room.
    """
    kept = kept_place(folder)
    if not kept.is_dir():
        return
    for place in sorted(path for path in kept.rglob("*") if path.is_file()):
        path = folder / place.relative_to(kept)
        if not drop:
            data = place.read_bytes()
            with _explained(path, f"{place} holds what belongs there; make room, and run the same command again."):
                path.parent.mkdir(parents=True, exist_ok=True)
                whole = path.read_bytes() if path.is_file() else b""
                with replacing(path, "wb") as file:
                    file.write(whole[: whole.rfind(b"\n") + 1] + data)
            logger.info("%s: has what could not be written before (%s)", path, place)
        place.unlink(missing_ok=True)
    shutil.rmtree(kept, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; `{}` if there is no such file.

    Raises:
        DataError: it is not JSON, or no object.
    """
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: {error.msg}; the file is damaged; choose another output_dir."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no UTF-8 text; the file is damaged; choose another output_dir.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {say(error)}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: is no JSON object; the file is damaged; choose another output_dir.")
    return value


class LogFile:
    """A file of lines that nothing depends on: one that cannot be written is said once, counted, and ends nothing."""

    def __init__(self, path: Path, name: str) -> None:
        """Nothing is opened yet; `name` says in messages what the lines are."""
        self.path, self.name = path, name
        self.num_lost = 0

    def append(self, text: str) -> None:
        """Add whole lines, or count them as lost."""
        size = None
        try:
            size = self.path.stat().st_size if self.path.is_file() else 0
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as error:
            if size is not None:
                with suppress(OSError):
                    os.truncate(self.path, size)
            if not self.num_lost:
                logger.warning(
                    "%s: %s are not written (%s); the run goes on", shorten(self.path), self.name, say(error)
                )
            self.num_lost += text.count("\n")

    def close(self) -> None:
        """Say how many lines were lost."""
        if self.num_lost:
            logger.warning("%s: %d %s could not be written", shorten(self.path), self.num_lost, self.name)
