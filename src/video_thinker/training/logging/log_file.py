"""`train.log` in a run's folder: what the console shows, with times, of all sittings."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from video_thinker.errors import VideoThinkerError
from video_thinker.memory import is_out_of_memory
from video_thinker.redaction import RedactingFormatter
from video_thinker.runs.record import hide_secrets

LOG_FILE = "train.log"

file_only = logging.getLogger("video_thinker.file_only")
"""What the console shows by other means than logging; it goes to the file alone."""
file_only.propagate = False
file_only.setLevel(logging.INFO)
file_only.addHandler(logging.NullHandler())

SOURCES = ("", "video_thinker.file_only", "transformers", "trl", "accelerate")
"""Loggers that the file hears: the root, ours, and libraries' own, which do not pass on to the root."""


class _QuietHandler(logging.FileHandler):
    """Gives up at the first line that cannot be written, with one word: a full disk must not end a training here."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name in `logging`
        """Say it once, and write nothing more."""
        self.setLevel(logging.CRITICAL + 1)
        cause = sys.exc_info()[1]
        sys.stderr.write(f"{self.baseFilename} cannot be written any more ({cause}); the run goes on without it\n")

    def close(self) -> None:
        """Close the file; what it still holds and cannot be written is lost, and hides no error that ends the run."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Write what is logged meanwhile to a file, too, after what is there; also the error that ends the run."""
    handler = _QuietHandler(path, encoding="utf-8", errors="replace")
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in SOURCES]
    for one in loggers:
        if one.name == "root" or not one.propagate:
            one.addHandler(handler)
    try:
        file_only.info("%s", shlex.join(hide_secrets(sys.argv)))
        yield
    except VideoThinkerError as error:
        file_only.error("%s: %s", type(error).__name__, error)
        raise
    except (RuntimeError, OSError, MemoryError) as error:
        if is_out_of_memory(error):
            file_only.error("too little memory: %s", " ".join(str(error).split())[:300])
        raise
    except KeyboardInterrupt:
        file_only.error("interrupted before the first step, or while the result was written")
        raise
    finally:
        for one in loggers:
            one.removeHandler(handler)
        handler.close()
