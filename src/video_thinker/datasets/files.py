"""Official files that are more than one list of rows: a folder with a file for each task, or one JSON object.

A folder of files, such as

    MLVU/json/1_plotQA.json, 2_needle.json, …        MVBench/json/action_sequence.json, action_count.json, …

A row gets the name of its file without suffix as `file_name`, and its number in that file, from 1, as `file_row`: many
such rows have no id and no task of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from video_thinker.data.raw_files import MAX_LINE_CHARACTERS, MAX_LIST_BYTES, RawRow, iter_rows
from video_thinker.errors import DataError

SUFFIXES = (".json", ".jsonl", ".parquet")

Read = Callable[[Path], Iterator[RawRow | DataError]]


def in_folder(read: Read = iter_rows) -> Read:
    """Make a reader of one file into one that reads all annotation files of a folder, too, in the order of names.

    The reader raises `DataError` for a folder without such files.
    """

    def read_all(path: Path) -> Iterator[RawRow | DataError]:
        files = [path]
        if path.is_dir():
            files = sorted((file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES), key=_natural)
            if not files:
                raise DataError(f"{path}: no {', '.join(SUFFIXES)} file in this folder; give the annotations' folder.")
        for file in files:
            for number, row in enumerate(read(file), start=1):
                if isinstance(row, RawRow) and isinstance(row.value, dict):
                    yield RawRow(row.location, {**row.value, "file_name": file.stem, "file_row": number})
                else:
                    yield row

    return read_all


def _natural(path: Path) -> tuple[str, int, str]:
    """Order "2_needle" before "10_x"."""
    digits = path.name.partition("_")[0]
    return str(path.parent), int(digits) if digits.isdecimal() else 0, path.name


def read_json_object(path: Path) -> dict[str, object] | None:
    """Read a file that is one JSON object; `None` if it is anything else, which is for the reader of rows.

    Raises:
        DataError: the object is too large to be read whole, or has a key twice.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if not file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            return None
    if path.stat().st_size > MAX_LIST_BYTES:
        if _begins_with_a_row(path):
            return None
        raise DataError(
            f"{path}: one JSON object of {path.stat().st_size / 1e9:.1f} GB; an object is read as a whole, so it may "
            f"have {MAX_LIST_BYTES / 1e9:.1f} GB; split it, or write one row a line as JSONL, which may have any size."
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except DataError:
        raise
    except (ValueError, RecursionError):  # the reader of rows says what is wrong
        return None
    return value if isinstance(value, dict) and value else None


def _begins_with_a_row(path: Path) -> bool:
    """Tell whether the first line is a JSON value of its own, as in JSONL."""
    with path.open("rb") as file:
        line = file.readline(MAX_LINE_CHARACTERS + 1)
    try:
        return line.endswith(b"\n") and json.loads(line.decode("utf-8-sig")) is not None
    except (ValueError, RecursionError):
        return False


def _unique(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{path}: the key {twice!r} is there twice in one JSON object; each counts once; drop one.")
    return found
