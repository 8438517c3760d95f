"""Why a media file was not decoded, in words that both sides of the decoding process use."""

from __future__ import annotations

import stat
from pathlib import Path

from video_thinker.errors import DecodeError
from video_thinker.memory import is_out_of_memory

MAX_CAUSE_CHARS = 300


def cannot_decode(path: Path, sample_id: str, cause: str) -> DecodeError:
    """Make the error of a file that cannot be decoded, for whatever cause."""
    return DecodeError(
        f"{path}: cannot decode ({named(sample_id)}{' '.join(cause.split())[:MAX_CAUSE_CHARS]}); fix the file or drop "
        "its rows (on_decode_error: skip drops and lists them)."
    )


def check_file(path: Path, sample_id: str) -> None:
    """Raise `DecodeError` for a path where no file lies, or an empty one."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DecodeError(f"{path}: no such file ({named(sample_id)}check media_root and the row's path).") from None
    except OSError as error:  # not for this user, a loop of links, too long a name, a network disk that went away
        if is_out_of_memory(error):
            raise
        raise DecodeError(f"{path}: cannot be opened ({named(sample_id)}{error.strerror or error}).") from None
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError(f"{path}: is a folder, not a file ({named(sample_id)}check the row's path).")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise DecodeError(f"{path}: the file is empty ({named(sample_id)}0 bytes).")


def named(sample_id: str) -> str:
    """Begin a remark with the sample, if it is known."""
    return f"sample {sample_id!r}: " if sample_id else ""
