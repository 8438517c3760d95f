"""Files that are complete or absent, and their hashes: the one place that writes and reads those of a run folder."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

from video_thinker.errors import DataError


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a kill leaves either the old file or the new one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a kill leaves either the old one or the new one, also if several processes write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # processes of several machines may write it
    draft.write_text(text, encoding="utf-8", errors="replace")
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; `{}` if there is no such file.

    Raises:
        DataError: it is not JSON.
    """
    if not path.exists():
        return {}
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: {error.msg}; the file is damaged; choose another output_dir."
        ) from error
    return value
