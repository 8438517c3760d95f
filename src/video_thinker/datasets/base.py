"""What the benchmarks share: reading raw fields with words that say where, and converting a file.

A benchmark is two functions. `split` cuts a row of the official file into its questions (a row of VRBench is a video
with several); `convert` turns one question into an item, a row in the schema of data/README.md. `conversion.py` runs
them over a file and checks each item.

The rule: what the official scorer can grade is kept, and what is odd about it is noted and counted. A question that
nobody can grade (no gold, a gold that is none of the options, no video) is refused, with its reason; its neighbors are
converted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from video_thinker.data.annotations import is_time
from video_thinker.data.raw_files import RawRow, iter_rows
from video_thinker.data.texts import brief
from video_thinker.errors import DataError
from video_thinker.schema import VideoSample

Item = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Note:
    """What a user should know about a question that was converted all the same. Notes are counted by `kind`."""

    kind: str
    message: str


@dataclass(frozen=True)
class Record:
    """The raw fields of one row, or of one question in it.

    `location` is "file:line", followed by `name`, which names the question within its row; `number` counts the file's
    rows from 1. `notes` collects what a user should know about a row that was converted all the same.
    """

    location: str
    number: int
    fields: Mapping[str, Any]
    notes: list[Note] = field(default_factory=list)
    name: str = ""

    def error(self, found: str, rule: str, fix: str = "fix the row or leave it out") -> DataError:
        """Make an error that says where."""
        return DataError(f"{self.location}: {found}; {rule}; {fix}.")

    def note(self, kind: str, message: str) -> None:
        """Tell the user about a row that is converted all the same."""
        self.notes.append(Note(kind, f"{self.location}: {message}"))

    def part(self, name: str, fields: object) -> Record:
        """Make the record of a part of this one; its location ends in `name`. Raises `DataError` if it is no object."""
        location = f"{self.location} {name}"
        if not isinstance(fields, dict):
            raise DataError(
                f"{location}: found {brief(fields)}; it is a JSON object with the question's fields; fix it."
            )
        return Record(location, self.number, fields, self.notes, name)

    def get(self, key: str, kind: type[T], rule: str) -> T:
        """Return a field that must be there, of a type. Raises `DataError`."""
        value = self.fields.get(key)
        if value is not None and isinstance(value, kind) and not isinstance(value, bool):
            return value
        if value is None:
            keys = ", ".join(map(str, self.fields))
            raise self.error(f"no {key} among the fields {keys[:120] or '(none)'}", f"{key} is {rule}")
        raise self.error(f"{key}={brief(value)}", f"{key} is {rule}")

    def text(self, key: str) -> str:
        """Return a text that is not empty, without white space around it; a number is taken as its digits."""
        rule = "a text that is not empty"
        text = as_text(self.get(key, object, rule))
        if not text:
            raise self.error(f"{key}={brief(self.fields[key])}", f"{key} is {rule}")
        return text

    def optional_text(self, key: str) -> str:
        """Return a text, or "" where the field is missing, null or no text."""
        return as_text(self.fields.get(key)) or ""

    def category(self, key: str) -> str:
        """Return the kind of question, several joined with commas; "" and a note where there is none."""
        value = self.fields.get(key)
        texts = [as_text(part) for part in (value if isinstance(value, list) else [value])]
        category = ", ".join(text for text in texts if text)
        if not category:
            self.note("no category", f"{key}={brief(value)}: no category")
        return category

    def id(self, key: str) -> str:
        """Return what identifies the question: a text or a whole number; without one the row's number, and a note."""
        value = self.fields.get(key)
        if (isinstance(value, str) and value.strip()) or (isinstance(value, int) and not isinstance(value, bool)):
            return str(value).strip()
        made = f"row{self.number}" + (f"-{self.name.replace(' ', '-')}" if self.name else "")
        self.note("no id", f"{key}={brief(value)}: its id is made from its place, {made!r}")
        return made

    def sequence(self, key: str) -> list[Any]:
        """Return a list that is not empty."""
        value = self.get(key, list, "a list that is not empty")
        if not value:
            raise self.error(f"{key}=[]", f"{key} is a list that is not empty")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a JSON object."""
        return self.get(key, dict, "a JSON object")

    def duration_s(self, key: str = "duration", unit_s: float = 1.0) -> float | None:
        """Return a duration in seconds from a field in units of `unit_s`; `None` and a note where there is none."""
        value = self.fields.get(key)
        number = as_seconds(value)
        if not number:
            self.note("no duration", f"{key}={brief(value)}: no duration; it is a number above 0")
            return None
        return number * unit_s

    def video(self, key: str, suffix: str = "") -> str:
        """Return the path of the question's video, from a field with a path, or with an id and `suffix`."""
        value = self.fields.get(key)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        text = as_text(value)
        if not text:
            raise self.error(f"{key}={brief(value)}", f"{key} names the question's video")
        return text if text.lower().endswith(suffix) else text + suffix


def as_text(value: object) -> str | None:
    """Return a text without white space around it, or the digits of a number; `None` for anything else."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return str(value)
    return None


def as_seconds(value: object) -> float | None:
    """Return a finite number from 0, also one that is written as a text ("35.04"); `None` for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if is_time(value) and value <= sys.float_info.max else None


def whole_row(record: Record) -> Iterable[Record | DataError]:
    """The `split` of benchmarks with one question in a row."""
    return [record]


def parts(record: Record, name: str, questions: Iterable[object], **shared: object) -> Iterator[Record | DataError]:
    """Cut a row into its questions, "NAME 1", "NAME 2", …; each gets the `shared` fields, too."""
    for index, question in enumerate(questions, start=1):
        try:
            part = record.part(f"{name} {index}", question)
        except DataError as error:
            yield error
        else:
            yield record.part(part.name, {**part.fields, **shared})


Belongs = Callable[[VideoSample, Record], bool]


@dataclass(frozen=True)
class Benchmark:
    """How to read one benchmark's official file.

    `file` says what the official file is. `subsets` maps the names that `--subset` takes to a test of the finished
    sample and its record. `read` gives the raw rows. `remarks` holds for every row: what the official evaluation has
    and this one has not. `sizes` counts the questions of the official file, under "", and of subsets, where known.
    """

    convert: Callable[[Record], Item]
    file: str
    split: Callable[[Record], Iterable[Record | DataError]] = whole_row
    subsets: Mapping[str, Belongs] = field(default_factory=dict)
    read: Callable[[Path], Iterator[RawRow | DataError]] = iter_rows
    remarks: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
