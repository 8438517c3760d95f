"""Raw file -> checked samples: a benchmark's `split` and `convert` are run over its rows, and each item is checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_thinker.data.annotations import parse_row
from video_thinker.data.raw_files import RawRow
from video_thinker.data.texts import brief
from video_thinker.datasets.base import Benchmark, Item, Note, Record, as_seconds
from video_thinker.errors import DataError
from video_thinker.schema import VideoSample
from video_thinker.scoring import score_answer
from video_thinker.times import TIME_TOLERANCE_S

_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


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
    for number, (results, notes) in enumerate(convert_rows(benchmark, Path(raw), _Ids()), start=1):
        conversion.num_rows = number
        for result in results:
            if isinstance(result, DataError):
                conversion.errors.append(f"row {number}: {result}")
            elif belongs and not belongs(*result):
                conversion.num_left_out += 1
            else:
                conversion.samples.append(result[0])
        conversion.notes += [f"row {number}: {note.message}" for note in notes]
        conversion.note_counts.update(note.kind for note in notes)
    return conversion


Result = tuple[VideoSample, Record] | DataError
"""A checked sample and the raw fields it was made of, or why there is none."""


def convert_rows(
    benchmark: Benchmark, path: Path, ids: _Ids | None = None
) -> Iterator[tuple[list[Result], list[Note]]]:
    """Give what became of each row of a raw file: its questions, and what is odd about them.

    Args:
        benchmark: How to read the file.
        path: The file.
        ids: Renames what has an id that is taken, and refuses copies; by default ids stay as they are.

    Raises:
        DataError: reading cannot go on.
    """
    for number, row in enumerate(benchmark.read(path), start=1):
        notes: list[Note] = []
        results: list[Result] = []
        for converted in _convert_row(benchmark, row, number, notes):
            if isinstance(converted, DataError):
                results.append(converted)
                continue
            item, record = converted
            try:
                results.append((finish(ids.unique(item, record) if ids else item, record), record))
            except DataError as error:
                results.append(error)
        yield results, notes


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
