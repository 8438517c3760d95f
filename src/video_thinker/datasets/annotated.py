"""What a raw file gives to the synthesis: videos with captioned segments, questions, and what is odd about a row.

A source is one function, `read(path)`, which gives the annotations of a raw file in the file's order. An annotation is
either a `CaptionedVideo`, for which a question has yet to be written, or a `VideoSample` whose question, options and
gold answer come from the data set. Options without letters ("milk") may be put in any order; lettered ones ("A. milk")
stay as they are, because a question may speak of its letters.

A row that cannot be used gives a `DataError` in its place, and what was changed in a usable one gives a `Note` before
it. A set that is a benchmark, too, is read by its `BENCHMARK` (`read_questions`, `read_captioned_videos`), so that
`prepare` and `synthesize` see the same; the others check their rows with a model of pydantic (`check`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from video_thinker.data.raw_files import iter_rows
from video_thinker.datasets.base import Benchmark, Note, Record
from video_thinker.datasets.captions import ALL_SEGMENTS, is_of_all_segments
from video_thinker.datasets.conversion import convert_rows
from video_thinker.errors import DataError
from video_thinker.schema import Segment, VideoSample
from video_thinker.times import TIME_TOLERANCE_S, parse_time

T = TypeVar("T")

UNNEEDED_NOTES = frozenset({"no duration", "duration shorter than the times"})
"""Kinds of notes about lengths that a file states: the synthesis measures the videos."""


@dataclass(frozen=True, slots=True)
class CaptionedVideo:
    """A video with captioned segments, about which a question has yet to be written.

    `path` is that of the video file, relative to the source's folder; data sets name videos by id, so its suffix is a
    guess until the file is found.
    """

    id: str
    path: str
    data_source: str
    segments: tuple[Segment, ...]
    duration_s: float | None = None
    category: str = ""
    location: str = ""


Annotation = CaptionedVideo | VideoSample
SourceRow = Annotation | Note | DataError
Source = Callable[[Path], Iterator[SourceRow]]


def read_questions(benchmark: Benchmark, path: Path, *, free_order: bool = False) -> Iterator[SourceRow]:
    """Give the questions of a benchmark's file.

    Args:
        benchmark: How to read it.
        path: The official file.
        free_order: The file names no letters: options and answer are given without.
    """
    for results, notes in convert_rows(benchmark, path):
        yield from (note for note in notes if note.kind not in UNNEEDED_NOTES)
        for result in results:
            try:
                if isinstance(result, DataError):
                    raise result
                yield without_letters(result[0]) if free_order else result[0]
            except DataError as error:
                yield error


def without_letters(sample: VideoSample) -> VideoSample:
    """Take the letters off options and answer: "A. milk", "B. oil"; "B" -> "milk", "oil"; "oil".

    An empty option is left out: without its letter nothing is left of it.

    Raises:
        DataError: the answer is an empty option.
    """
    texts = {option[0]: option[3:] for option in sample.options if option[3:]}
    if sample.answer not in texts:
        raise DataError(
            f"{sample.location}: the answer is option {sample.answer}, which is empty; an option without "
            "its letter is a text that is not empty; fix the row or leave it out."
        )
    return dataclasses.replace(sample, options=tuple(texts.values()), answer=texts[sample.answer])


def read_captioned_videos(benchmark: Benchmark, path: Path, data_source: str) -> Iterator[SourceRow]:
    """Give the videos of a benchmark whose items are made of captioned segments, and the items that it holds as such.

    Args:
        benchmark: Its `split` is `captions.split_segments` for a captioned video.
        path: The official file.
        data_source: Its name in what is synthesized.
    """

    def whole_videos(record: Record) -> Iterator[Record | DataError]:
        for part in benchmark.split(record):
            if isinstance(part, DataError) or part is record or is_of_all_segments(part):
                yield part

    for results, notes in convert_rows(dataclasses.replace(benchmark, split=whole_videos), path):
        yield from (note for note in notes if note.kind not in UNNEEDED_NOTES)
        for result in results:
            if isinstance(result, DataError):
                yield result
                continue
            sample, record = result
            yield _captioned_video(sample, record, data_source) if is_of_all_segments(record) else sample


def _captioned_video(sample: VideoSample, record: Record, data_source: str) -> CaptionedVideo:
    return CaptionedVideo(
        record.text("video_id"),
        sample.media[0].path,
        data_source,
        tuple(sorted(sample.segments, key=lambda segment: (segment.start_s, segment.end_s))),
        sample.duration_s,
        record.optional_text("topic"),
        sample.location.removesuffix(f" {ALL_SEGMENTS}"),
    )


class Row(BaseModel):
    """A raw row: the fields that are used, checked; others are left out."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _seconds(value: object) -> object:
    """Read "01:07" as 67.0; numbers stay."""
    if isinstance(value, str):
        return parse_time(value)
    return value


Text = Annotated[str, AfterValidator(_not_empty)]
Id = Annotated[Text, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ClockOrSeconds = Annotated[Seconds, BeforeValidator(_seconds)]
Duration = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def check(model: type[T], value: object, location: str) -> T:
    """Check a raw value against a model.

    Raises:
        DataError: with the location, the field, what was found and the rule it breaks.
    """
    try:
        return TypeAdapter(model).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the row"
        found = repr(first["input"])[:120]
        raise DataError(f"{location}: {field} is {found}; {first['msg']}; fix the row or leave it out.") from error


def read_rows(path: Path, convert: Callable[[object, str], Iterable[SourceRow]]) -> Iterator[SourceRow]:
    """Run `convert(row, location)` over a JSON list or JSONL file; its `DataError` takes the row's place."""
    for row in iter_rows(path):
        if isinstance(row, DataError):
            yield row
        else:
            yield from guarded(convert, row.value, row.location)


def guarded(convert: Callable[[object, str], Iterable[SourceRow]], value: object, location: str) -> Iterator[SourceRow]:
    """Run `convert`; its `DataError` takes the row's place."""
    try:
        yield from convert(value, location)
    except DataError as error:
        yield error


def usable_segments(
    spans: Iterable[tuple[float, float, str]], duration_s: float | None, location: str
) -> tuple[tuple[Segment, ...], list[Note]]:
    """Make gold segments of (start_s, end_s, caption), in the order of time.

    A segment that goes beyond the video ends with it, one that is a point in time or lies outside is left out; both
    give a note.

    Raises:
        DataError: a segment ends before it starts.
    """
    segments, notes = [], []
    for start_s, end_s, caption in spans:
        start_s, end_s = round(start_s, 3), round(end_s, 3)  # some files hold 172.07999999999998
        where = f"{location}: segment {start_s:g}-{end_s:g} s"
        if start_s > end_s:
            raise DataError(f"{where} ends before it starts; a segment has start < end; fix the row or leave it out.")
        if start_s == end_s or (duration_s is not None and start_s >= duration_s):
            notes.append(Note("point in time", f"{where} is a point in time or outside of the video; left out"))
            continue
        if duration_s is not None and end_s > duration_s:
            if end_s > duration_s + TIME_TOLERANCE_S:
                message = f"{where} goes beyond the video's {duration_s:g} s; cut there"
                notes.append(Note("times beyond the video", message))
            end_s = duration_s
        segments.append(Segment(start_s, end_s, caption.strip()))
    return tuple(sorted(segments, key=lambda segment: (segment.start_s, segment.end_s))), notes
