"""The raw rows of a file: JSON lists, JSONL and parquet, each row with its place. Nothing is known of their fields."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from video_thinker.data.parquet import is_parquet, read_parquet
from video_thinker.errors import DataError

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Besides malformed JSON: Python's own limits, on the digits of a whole number (ValueError) and on nesting.
_JSON_ERRORS = (ValueError, RecursionError)


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
    text = _read_text(path)
    _refuse_single_object(text, path)
    return _iter_list(text, path) if text.lstrip().startswith("[") else _iter_lines(text, path)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; an annotation file is a JSON list or JSONL; check the path.")
    content = path.read_bytes()
    if content.startswith(_UTF16_MARKS) or b"\0" in content[:64]:
        raise DataError(f"{path}:1: the file looks like UTF-16; annotation files are UTF-8; convert the file.")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: byte {error.start} is not UTF-8; annotation files are; convert the file."
        ) from error


def _refuse_single_object(text: str, path: Path) -> None:
    """Say that a file is one JSON object over several lines, instead of calling each of its lines wrong."""
    first_line = text.lstrip().partition("\n")[0]
    if first_line.startswith("{") and not _is_json(first_line) and _is_json(text):
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


def _iter_lines(text: str, path: Path) -> Iterator[RawRow | DataError]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        location = f"{path}:{number}"
        try:
            yield RawRow(location, json.loads(line))
        except _JSON_ERRORS as error:
            yield DataError(
                f"{location}: {_json_cause(error)}; a line of a JSONL file is one JSON object "
                "(and a file that starts with '[' is one JSON list); fix the line."
            )


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
