"""What the benchmarks share: reading raw fields with errors that say where, and building items.

A benchmark is two functions. `split` cuts a row of the official file into its questions (a row of VRBench is a video
with several); `convert` turns one question into an item, a row in the schema of data/README.md. `convert_file` runs
them over a file, checks each item as a run would, and gives an error instead of an item where one cannot be made: one
bad question does not cost its neighbors.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from video_thinker.data.annotations import RawRow, brief, is_time, iter_rows, parse_row
from video_thinker.data.checks import check_sample
from video_thinker.errors import DataError
from video_thinker.prompts import CAPTIONING_QUESTION, grounding_question
from video_thinker.schema import VideoSample
from video_thinker.trace import TIME_TOLERANCE_S, parse_time_range

Item = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """The raw fields of one row, or of one question in it.

    `location` is "file:line", followed by what names the question within its row; `number` counts the file's rows from
    1. `notes` collects what a user should know about a row that was converted all the same.
    """

    location: str
    number: int
    fields: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    def error(self, found: str, rule: str, fix: str = "fix the row or leave it out") -> DataError:
        """Make an error that says where."""
        return DataError(f"{self.location}: {found}; {rule}; {fix}.")

    def note(self, message: str) -> None:
        """Tell the user about a row that is converted all the same."""
        self.notes.append(f"{self.location}: {message}")

    def part(self, name: str, fields: object) -> Record:
        """Make the record of a part of this one; its location ends in `name`. Raises `DataError` if it is no object."""
        location = f"{self.location} {name}"
        if not isinstance(fields, dict):
            raise DataError(
                f"{location}: found {brief(fields)}; it is a JSON object with the question's fields; fix it."
            )
        return Record(location, self.number, fields, self.notes)

    def get(self, key: str, kind: type[T], rule: str) -> T:
        """Return a field that must be there, of a type. Raises `DataError`."""
        value = self.fields.get(key)
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
        if value is None:
            keys = ", ".join(map(str, self.fields))
            raise self.error(f"no {key} among the fields {keys[:120] or '(none)'}", f"{key} is {rule}")
        raise self.error(f"{key}={brief(value)}", f"{key} is {rule}")

    def text(self, key: str) -> str:
        """Return a text that is not empty, without white space around it."""
        value = self.get(key, str, "a text that is not empty").strip()
        if not value:
            raise self.error(f'{key}=""', f"{key} is a text that is not empty")
        return value

    def optional_text(self, key: str) -> str:
        """Return a text, or "" where the field is missing or null."""
        return "" if self.fields.get(key) is None else self.get(key, str, "a text").strip()

    def id(self, key: str) -> str:
        """Return an identifier: a whole number, or a text that is not empty."""
        return (
            str(self.get(key, int, "a number or a text")) if isinstance(self.fields.get(key), int) else self.text(key)
        )

    def sequence(self, key: str) -> list[Any]:
        """Return a list that is not empty."""
        value = self.get(key, list, "a list that is not empty")
        if not value:
            raise self.error(f"{key}=[]", f"{key} is a list that is not empty")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of texts."""
        values = self.sequence(key)
        if not all(isinstance(value, str) and value.strip() for value in values):
            raise self.error(f"{key}={brief(values)}", f"{key} is a list of texts that are not empty")
        return [value.strip() for value in values]

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a JSON object."""
        return self.get(key, dict, "a JSON object")

    def seconds(self, key: str) -> float:
        """Return a number of seconds from 0."""
        value = self.get(key, object, "a number of seconds")
        if not is_time(value):
            raise self.error(f"{key}={brief(value)}", f"{key} is a number of seconds from 0")
        return float(value)

    def duration_s(self, key: str = "duration") -> float | None:
        """Return a number of seconds above 0, or `None` where the field is missing or null."""
        if self.fields.get(key) is None:
            return None
        if (value := self.seconds(key)) == 0:
            raise self.error(f"{key}=0", "a duration is above 0")
        return value

    def time_range(self, key: str) -> tuple[float, float]:
        """Return a text such as "1.0-7.5" or "00:15-00:19" as seconds. The order of the two is not checked."""
        text = self.text(key)
        span = parse_time_range(text)
        if span is None:
            raise self.error(f"{key}={brief(text)}", f"{key} is a time range like 1.0-7.5 or 00:15-00:19")
        return span


def whole_row(record: Record) -> Iterable[Record | DataError]:
    """The `split` of benchmarks with one question in a row."""
    return [record]


@dataclass(frozen=True)
class Benchmark:
    """How to read one benchmark's official file.

    `subsets` maps the names that `--subset` takes to a test of the finished item. `read` gives the raw rows.
    """

    convert: Callable[[Record], Item]
    split: Callable[[Record], Iterable[Record | DataError]] = whole_row
    subsets: Mapping[str, Callable[[VideoSample], bool]] = field(default_factory=dict)
    read: Callable[[Path], Iterator[RawRow | DataError]] = iter_rows


@dataclass
class Conversion:
    """What became of a file. An error or a note begins with "row N: " and the location.

    `num_left_out` counts good questions outside of the subset.
    """

    samples: list[VideoSample] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_rows: int = 0
    num_left_out: int = 0


def convert_file(benchmark: Benchmark, raw: str | Path, subset: str | None = None) -> Conversion:
    """Convert an official file.

    Raises:
        DataError: reading cannot go on: the file is missing, not text, has no rows, or its JSON is cut off.
    """
    conversion = Conversion()
    belongs = benchmark.subsets[subset] if subset else None
    first_use: dict[str, str] = {}
    for number, row in enumerate(benchmark.read(Path(raw)), start=1):
        conversion.num_rows = number
        notes: list[str] = []
        for result in _convert_row(benchmark, row, number, notes):
            if isinstance(result, DataError):
                conversion.errors.append(f"row {number}: {result}")
            elif first_use.setdefault(result.id, result.location) != result.location:
                conversion.errors.append(
                    f"row {number}: {result.location}: its id {result.id!r} was already used at "
                    f"{first_use[result.id]}; each question has its own; drop the copy."
                )
            elif belongs and not belongs(result):
                conversion.num_left_out += 1
            else:
                conversion.samples.append(result)
        conversion.notes += [f"row {number}: {note}" for note in notes]
    return conversion


def _convert_row(
    benchmark: Benchmark, row: RawRow | DataError, number: int, notes: list[str]
) -> Iterator[VideoSample | DataError]:
    if isinstance(row, DataError):
        yield row
        return
    if not isinstance(row.value, dict):
        yield DataError(f"{row.location}: found {brief(row.value)}; a row is a JSON object; export the file again.")
        return
    try:
        records = list(benchmark.split(Record(row.location, number, row.value, notes)))
    except DataError as error:
        yield error
        return
    for record in records:
        if isinstance(record, DataError):
            yield record
            continue
        try:
            yield finish(benchmark.convert(record), record)
        except DataError as error:
            yield error


def finish(item: Item, record: Record) -> VideoSample:
    """Check an item as `video-thinker validate` would, after its gold segments were brought into the video.

    Raises:
        DataError: the item breaks the schema, its gold is no answer, or a segment lies outside of the video.
    """
    segments = item.get("segments")
    if isinstance(segments, list):
        item = {**item, "segments": list(_usable_segments(segments, item.get("duration_s"), record))}
    sample = parse_row(item, record.location)
    for finding in check_sample(sample):
        if finding.severity == "error":
            raise DataError(f"{finding.where}: {finding.message}")
    return sample


def _usable_segments(segments: Sequence[object], duration_s: object, record: Record) -> Iterator[object]:
    """Leave out points in time, end a segment with its video, and say so. What else is wrong is left to `parse_row`."""
    for segment in segments:
        start_s, end_s = (segment.get(key) if isinstance(segment, dict) else None for key in ("start_s", "end_s"))
        if not (isinstance(segment, dict) and is_time(start_s) and is_time(end_s)):
            yield segment
        elif start_s == end_s:
            record.note(f"{start_s:g}-{end_s:g} s is a point in time; it is not kept as a gold segment")
        elif is_time(duration_s) and start_s < duration_s < end_s - TIME_TOLERANCE_S:
            record.note(
                f"{start_s:g}-{end_s:g} s goes beyond the video, {duration_s:g} s; the gold segment is cut there"
            )
            yield {**segment, "end_s": duration_s}
        else:
            yield segment


def segment(start_s: object, end_s: object, caption: str = "") -> Item:
    """Write a gold segment; times in milliseconds' precision, since some files hold 172.07999999999998."""
    start_s, end_s = (round(float(time), 3) if is_time(time) else time for time in (start_s, end_s))
    return {"start_s": start_s, "end_s": end_s, "caption": caption.strip()}


def pairs(record: Record, key: str, values: object) -> Iterator[tuple[Any, Any]]:
    """Give the elements of a list of pairs. Raises `DataError`."""
    if not isinstance(values, list):
        raise record.error(f"{key}={brief(values)}", f"{key} is a list of [start, end]")
    for value in values:
        if not isinstance(value, list) or len(value) != 2:
            raise record.error(f"{brief(value)} in {key}", f"{key} is a list of [start, end]")
        yield value[0], value[1]


def multiple_choice(record: Record, options: Mapping[str, str], answer: str, **fields: Any) -> Item:
    """Make a multiple-choice item. `options` maps letters from "A" to texts, `answer` is one of the letters.

    Raises:
        DataError: fewer than two options, letters with gaps, an option that is no text, or an answer outside of them.
    """
    letters = list(string.ascii_uppercase[: len(options)])
    if len(options) < 2 or sorted(options) != letters:
        raise record.error(f"options {brief(dict(options))}", "there are two or more, lettered from A without gaps")
    if not all(isinstance(text, str) and text.strip() for text in options.values()):
        raise record.error(f"options {brief(dict(options))}", "an option is a text that is not empty")
    if answer not in options:
        raise record.error(f"the answer {answer!r}", f"it is one of the options' letters {', '.join(letters)}")
    return {
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": [f"{letter}. {options[letter].strip()}" for letter in letters],
        "solution": f"<answer>{answer}</answer>",
        **fields,
    }


def letter_of(record: Record, answer: str, options: Mapping[str, str]) -> str:
    """Return the letter of the one option whose text is `answer`, in any case. Raises `DataError`."""
    found = [letter for letter, text in options.items() if text.strip().casefold() == answer.strip().casefold()]
    if len(found) != 1:
        raise record.error(
            f"the answer {brief(answer)} is {len(found)} of the options {brief(dict(options))}", "it is one"
        )
    return found[0]


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """Letter some texts: `["milk", "oil"]` -> `{"A": "milk", "B": "oil"}`."""
    return dict(zip(string.ascii_uppercase, texts, strict=False))


def grounding(caption: str, spans: Sequence[Item], **fields: Any) -> Item:
    """Make an item that asks when something happens; the gold is the time spans of the segments, in seconds."""
    return {
        "data_type": "video",
        "problem_type": "grounding",
        "problem": grounding_question(caption),
        "solution": ", ".join(f"{span['start_s']}-{span['end_s']}" for span in spans),
        "segments": list(spans),
        **fields,
    }


def captioning(segments: Sequence[Item], **fields: Any) -> Item:
    """Make an item that asks what happens; the gold is the captions of the segments, one after the other."""
    return {
        "data_type": "video",
        "problem_type": "free-form",
        "problem": CAPTIONING_QUESTION,
        "solution": " ".join(segment["caption"] for segment in segments),
        "segments": list(segments),
        **fields,
    }
