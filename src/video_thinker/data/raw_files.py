"""The raw rows of a file: JSON lists, JSONL and parquet, each row with its place. Nothing is known of their fields."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from video_thinker.data.parquet import is_parquet, read_parquet
from video_thinker.errors import DataError

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Besides malformed JSON: Python's own limits, on the digits of a whole number (ValueError) and on nesting.
_JSON_ERRORS = (ValueError, RecursionError)

MAX_LINE_CHARACTERS = 32 * 2**20
"""The longest rows of public sets have some ten thousand characters."""

MAX_LIST_BYTES = 2 * 2**30
"""A JSON list is read whole, and takes several times its size as Python objects."""

MAX_OBJECT_BYTES = 2**28
"""A larger file is not read whole only to say that it is one object."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One undecoded row of a file.

    `location` is "file:line", for a JSON list "file:line (item N)" with N from 1, for parquet "file:N".
    """

    location: str
    value: object


def iter_rows(path: str | Path) -> Iterator[RawRow | DataError]:
    """Read the raw rows of a JSON list, a JSONL or a parquet file; told apart by the first characters, not by the name.

    A JSONL line that is not JSON gives its error instead of a row.

    Raises:
        DataError: If reading cannot go on: the file is missing, not text, has no rows, or a JSON list is cut off.
    """
    path = Path(path)
    empty = True
    for row in _iter_parquet(path) if path.is_file() and is_parquet(path) else _iter_text(path):
        empty = False
        yield row
    if empty:
        raise DataError(f"{path}: found no rows; an annotation file has at least one; check the path or the export.")


def _iter_parquet(path: Path) -> Iterator[RawRow | DataError]:
    for number, value in enumerate(read_parquet(path), start=1):
        yield RawRow(f"{path}:{number}", value)


def _iter_text(path: Path) -> Iterator[RawRow | DataError]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; an annotation file is a JSON list or JSONL; check the path.")
    with path.open("rb") as file:
        start = file.read(1024)
    if start.startswith(_UTF16_MARKS) or b"\0" in start[:64]:
        raise DataError(f"{path}:1: the file looks like UTF-16; annotation files are UTF-8; convert the file.")
    if _first_character(path) != "[":
        yield from _iter_lines(path)
        return
    num_bytes = path.stat().st_size
    if num_bytes > MAX_LIST_BYTES:
        raise DataError(
            f"{path}: a JSON list of {num_bytes / 1e9:.1f} GB; a list is read as a whole, so it may have "
            f"{MAX_LIST_BYTES / 1e9:.1f} GB; write JSONL, one row a line, which may have any size: "
            "jq -cn --stream 'fromstream(1|truncate_stream(inputs))' LIST.json > ROWS.jsonl."
        )
    with _open_text(path) as text:
        yield from _iter_list(text.read(), path)


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Open a file as UTF-8, with all ends of lines as a newline. Raises `DataError` where it is not UTF-8."""
    with path.open(encoding="utf-8-sig") as file:
        try:
            yield file
        except UnicodeDecodeError:
            place, line = _not_utf8(path)
            raise DataError(
                f"{path}:{line}: byte {place} is not UTF-8; annotation files are; convert the file."
            ) from None


def _not_utf8(path: Path) -> tuple[int, int]:
    """Find the first byte that is not UTF-8: its place in the file, and its line."""
    decoder, before, line, chunk = codecs.getincrementaldecoder("utf-8")(), 0, 1, b""
    with path.open("rb") as file:
        while True:
            pending, chunk = decoder.getstate()[0], file.read(2**20)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                seen = pending + chunk
                return before - len(pending) + error.start, line + seen.count(b"\n", 0, error.start)
            if not chunk:
                return before, line
            before, line = before + len(chunk), line + chunk.count(b"\n")


def _first_character(path: Path) -> str:
    """Give the first character that is no space; empty if there is none."""
    with _open_text(path) as text:
        while chunk := text.read(4096):
            if found := chunk.lstrip():
                return found[0]
    return ""


def _refuse_single_object(path: Path, first_line: str) -> None:
    """Say that a file is one JSON object over several lines, instead of calling each of its lines wrong."""
    if not first_line.lstrip().startswith("{") or path.stat().st_size > MAX_OBJECT_BYTES:
        return
    with _open_text(path) as text:
        if _is_json(text.read()):
            raise DataError(
                f"{path}: found one JSON object; a file is a JSON list or JSONL; take out the list or convert it."
            )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except _JSON_ERRORS:
        return False
    return True


def _json_cause(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deep" if isinstance(error, RecursionError) else "a number of thousands of digits"


def _iter_lines(path: Path) -> Iterator[RawRow | DataError]:
    """Decode a JSONL file line by line: of a file of any size, one line is in memory.

    Raises:
        DataError: a line is too long to be a row, or the file is one JSON object.
    """
    is_first = True
    with _open_text(path) as text:
        for number in itertools.count(1):
            line = text.readline(MAX_LINE_CHARACTERS + 1)
            if not line:
                return
            location = f"{path}:{number}"
            if len(line) > MAX_LINE_CHARACTERS:
                raise DataError(
                    f"{location}: a line of more than {MAX_LINE_CHARACTERS:,} characters; a line of JSONL is one "
                    "row, and pictures and videos are files of their own; write one row a line."
                )
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except _JSON_ERRORS as error:
                if is_first:
                    _refuse_single_object(path, line)
                yield DataError(
                    f"{location}: {_json_cause(error)}; a line of a JSONL file is one JSON object "
                    "(and a file that starts with '[' is one JSON list); fix the line."
                )
            else:
                yield RawRow(location, value)
            is_first = False


def _iter_list(text: str, path: Path) -> Iterator[RawRow]:
    """Decode a JSON list item by item, which gives each item's line."""
    decoder = json.JSONDecoder()
    opening = text.index("[")
    position = _skip_space(text, opening + 1)
    line, counted_to = 1 + text.count("\n", 0, position), position
    index = 0
    closed = text.startswith("]", position)
    while not closed:
        index += 1
        line, counted_to = line + text.count("\n", counted_to, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except _JSON_ERRORS as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            cause = error.msg if isinstance(error, json.JSONDecodeError) else _json_cause(error)
            raise DataError(
                f"{path}:{at}: {cause} in item {index}; the file is not valid JSON; export it again."
            ) from error
        yield RawRow(f"{path}:{line} (item {index})", value)
        position = _skip_space(text, position)
        if not text.startswith((",", "]"), position):
            line += text.count("\n", counted_to, position)
            raise DataError(f"{path}:{line}: no ',' or ']' after item {index}; the list is cut off; export it again.")
        closed = text.startswith("]", position)
        if not closed:
            position = _skip_space(text, position + 1)
    rest = _skip_space(text, position + 1)
    if rest < len(text):
        line = 1 + text.count("\n", 0, rest)
        raise DataError(f"{path}:{line}: text after the end of the JSON list; a file holds one list; split the file.")


_SPACE = re.compile(r"[ \t\n\r]*")


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
