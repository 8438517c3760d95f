"""The lock of a run folder: one run, one folder.

It is a lock of the operating system (`flock`) on `FOLDER/.lock`: it ends with its process, however that ends, so a dead
process blocks nobody. The file says who holds it, for the message to the one that is refused. `filelock` has no lock
that several processes share and that changes its kind, which the processes of an evaluation need.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from video_thinker.errors import ConfigError
from video_thinker.runs.files import check_folder

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
LOCK_TIMEOUT_S = 5.0
"""After a process was killed, its data workers may hold its lock for so long. One that lives is not waited for."""


@contextmanager
def run_lock(output_dir: Path, *, shared: bool = False) -> Iterator[RunLock]:
    """Hold a run folder's lock; it ends with the process, however that ends.

    Raises:
        ConfigError: another process holds it; the message names its id and its machine.
        WriteError: the folder cannot be made or written.
    """
    check_folder(output_dir)
    with (output_dir / LOCK_FILE).open("a+", encoding="utf-8") as file:
        lock = RunLock(output_dir, file)
        lock.take(shared=shared)
        yield lock


class RunLock:
    """A lock on a run folder: exclusive, or shared by the processes that add predictions to an evaluation."""

    def __init__(self, output_dir: Path, file: IO[str]) -> None:
        """Take nothing yet."""
        self.output_dir = output_dir
        self._file = file

    def take(self, *, shared: bool = False) -> None:
        """Take the lock, or change its kind.

        Raises:
            ConfigError: another process holds it, and lives, or holds it for longer than `LOCK_TIMEOUT_S`.
        """
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = self._read_holder()
                if time.monotonic() > deadline or _lives_here(holder):
                    who = (
                        "process {pid} on {host}, since {since}".format(**holder) if holder else "it does not say which"
                    )
                    raise ConfigError(
                        f"{self.output_dir}: another run is working there ({who}); wait until it has ended, or choose "
                        "another output_dir."
                    ) from error
                time.sleep(0.05)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                    raise
                logger.warning("%s: this file system has no locks; start no second run there", self.output_dir)
                return
            else:
                break
        if not (shared and _lives_here(self._read_holder())):
            self._write_holder()

    def release(self) -> None:
        """Give the lock up before the process ends."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write_holder(self) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._file.truncate(0)
        self._file.write(json.dumps(holder) + "\n")
        self._file.flush()

    def _read_holder(self) -> dict[str, Any]:
        """Who holds the lock, as far as the file says it."""
        self._file.seek(0)
        try:
            holder = json.loads(self._file.read())
            return {"pid": int(holder["pid"]), "host": holder["host"], "since": holder["since"]}
        except (ValueError, KeyError, TypeError):  # an empty file of an earlier version, or one just being written
            return {}


def _lives_here(holder: Mapping[str, Any]) -> bool:
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
