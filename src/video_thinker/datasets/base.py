"""What the benchmarks share: reading raw fields with words that say where, and converting a file.

A benchmark is two functions. `split` cuts a row of the official file into its questions (a row of VRBench is a video
with several); `convert` turns one question into an item, a row in the schema of data/README.md. `convert_file` runs
them over a file and checks each item.

The rule: what the official scorer can grade is kept, and what is odd about it is noted and counted. A question that
nobody can grade (no gold, a gold that is none of the options, no video) is refused, with its reason; its neighbors are
converted.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from video_thinker.data.annotations import RawRow, brief, is_time, iter_rows, parse_row
from video_thinker.errors import DataError
from video_thinker.schema import VideoSample
from video_thinker.scoring import score_answer
from video_thinker.trace import TIME_TOLERANCE_S

Item = dict[str, Any]
T = TypeVar("T")

_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


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


@dataclass
class Conversion:
    """What became of a file. A refusal or a note begins with "row N: " and the location.

    `note_counts` counts the notes by kind, `num_left_out` the good questions outside of the subset.
    """

    samples: list[VideoSample] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    note_counts: Counter[str] = field(default_factory=Counter)
    num_rows: int = 0
    num_left_out: int = 0


def convert_file(benchmark: Benchmark, raw: str | Path, subset: str | None = None) -> Conversion:
    """Convert an official file.

    Raises:
        DataError: reading cannot go on: the file is missing, not text, has no rows, or its JSON is cut off.
    """
    conversion = Conversion()
    belongs = benchmark.subsets[subset] if subset else None
    ids = _Ids()
    for number, row in enumerate(benchmark.read(Path(raw)), start=1):
        conversion.num_rows = number
        notes: list[Note] = []
        for result in _convert_row(benchmark, row, number, notes):
            if isinstance(result, DataError):
                conversion.errors.append(f"row {number}: {result}")
                continue
            item, record = result
            try:
                sample = finish(ids.unique(item, record), record)
            except DataError as error:
                conversion.errors.append(f"row {number}: {error}")
                continue
            if belongs and not belongs(sample, record):
                conversion.num_left_out += 1
            else:
                conversion.samples.append(sample)
        conversion.notes += [f"row {number}: {note.message}" for note in notes]
        conversion.note_counts.update(note.kind for note in notes)
    return conversion


def _convert_row(
    benchmark: Benchmark, row: RawRow | DataError, number: int, notes: list[Note]
) -> Iterator[tuple[Item, Record] | DataError]:
    if isinstance(row, DataError):
        yield row
        return
    if not isinstance(row.value, dict):
        yield DataError(f"{row.location}: found {brief(row.value)}; a row is a JSON object; export the file again.")
        return
    whole = Record(row.location, number, readable(row.value), notes)
    if whole.fields != row.value:
        whole.note(
            "broken characters", "NUL and half characters (lone surrogates) cannot be written; they are U+FFFD now"
        )
    try:
        records = list(benchmark.split(whole))
    except DataError as error:
        yield error
        return
    for record in records:
        if isinstance(record, DataError):
            yield record
            continue
        num_notes = len(notes)
        try:
            yield benchmark.convert(record), record
        except DataError as error:
            del notes[num_notes:]  # what was odd about a question that is refused does not count
            yield error


def readable(value: Any) -> Any:
    """Copy a decoded value with U+FFFD in the place of NUL and of lone surrogates, which no tokenizer takes."""
    if isinstance(value, str):
        return _UNUSABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {readable(key): readable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [readable(inner) for inner in value]
    return value


class _Ids:
    """Remembers which question an id belongs to."""

    def __init__(self) -> None:
        self.first_use: dict[str, tuple[str, int]] = {}
        self.num_uses: Counter[str] = Counter()

    def unique(self, item: Item, record: Record) -> Item:
        """Give an item whose id another question has an id of its own, and a note.

        Raises:
            DataError: the other question is the same one: the row is a copy.
        """
        name = str(item.get("problem_id"))
        content = hash(_content(item))
        where, first = self.first_use.setdefault(name, (record.location, content))
        if where == record.location:
            return item
        if first == content:
            raise record.error(f"the same question as at {where} (id {name!r})", "each one is there once", "drop it")
        renamed = name
        while renamed in self.first_use:
            self.num_uses[name] += 1
            renamed = f"{name}#{self.num_uses[name] + 1}"
        self.first_use[renamed] = (record.location, content)
        record.note("id used twice", f"its id {name!r} was already used at {where}; it is {renamed!r} here")
        return {**item, "problem_id": renamed}


def _content(item: Item) -> str:
    """Write what makes a question: its words, options, gold and media."""
    return repr([item.get(key) for key in ("problem", "options", "solution", "path")])


def finish(item: Item, record: Record) -> VideoSample:
    """Check an item. Of its optional times, those that cannot be used are taken out, with a note.

    Raises:
        DataError: the item breaks the schema, or its gold does not score 1.0 against itself.
    """
    item = dict(item)
    for key in ("duration_s", "duration"):
        if item.get(key) is not None and not as_seconds(item[key]):
            record.note("no duration", f"{key}={brief(item[key])}: no duration; it is a number of seconds above 0")
            item[key] = None
        elif item.get(key) is not None:
            item[key] = as_seconds(item[key])
    duration_s = item.get("duration_s") or item.get("duration")
    if "segments" in item:
        item["segments"] = list(_usable_segments(item["segments"], duration_s, record))
    sample = parse_row(item, record.location)
    if score_answer(sample.answer, sample).value != 1.0:
        rule = "it is one of the options" if sample.options else "it can be read by that type's rule"
        raise record.error(f"the gold {sample.answer!r} is no {sample.problem_type} answer", rule)
    return sample


def _usable_segments(segments: object, duration_s: float | None, record: Record) -> Iterator[Item]:
    """Leave out gold segments that are none, end one with its video, and say so."""
    if not isinstance(segments, list):
        record.note("unusable times", f"segments={brief(segments)}: no gold segments; it is a list of objects")
        return
    for part in segments:
        start_s, end_s = (as_seconds(part.get(key)) if isinstance(part, dict) else None for key in ("start_s", "end_s"))
        if start_s is None or end_s is None:
            record.note("unusable times", f"{brief(part)} has no times in seconds from 0; not kept as a gold segment")
            continue
        where = f"{start_s:g}-{end_s:g} s"
        if start_s == end_s:
            record.note("point in time", f"{where} is a point in time; it is not kept as a gold segment")
        elif start_s > end_s:
            record.note("unusable times", f"{where} starts after its end; it is not kept as a gold segment")
        elif duration_s is not None and start_s >= duration_s:
            record.note(
                "times beyond the video",
                f"{where} is outside the video, {duration_s:g} s; it is not kept as a gold segment",
            )
        elif duration_s is not None and end_s > duration_s + TIME_TOLERANCE_S:
            record.note(
                "times beyond the video",
                f"{where} goes beyond the video, {duration_s:g} s; the gold segment is cut there",
            )
            yield {**part, "start_s": start_s, "end_s": duration_s}
        else:
            yield {**part, "start_s": start_s, "end_s": end_s}
