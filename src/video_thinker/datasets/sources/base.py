"""What the sources share: what a raw file gives, and reading its rows with errors that say where.

A source is one function, `read(path)`, which gives the annotations of a raw file in the file's order. An annotation is
either a `CaptionedVideo`, for which a question has yet to be written, or a `VideoSample` whose question, options and
gold answer come from the data set. Options without letters ("milk") may be put in any order; lettered ones ("A. milk")
stay as they are, because a question may speak of its letters.

A row that cannot be used gives a `DataError` in its place, and what was changed in a usable one gives a `Note`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from video_thinker.data.annotations import iter_rows
from video_thinker.errors import DataError
from video_thinker.schema import Media, Segment, VideoSample
from video_thinker.trace import TIME_TOLERANCE_S, parse_time

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Note:
    """Something a user should know about a row that is used all the same."""

    message: str


Annotation = CaptionedVideo | VideoSample
SourceRow = Annotation | Note | DataError
Source = Callable[[Path], Iterator[SourceRow]]


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


def read_json(path: Path) -> object:
    """Read a file that is one JSON value.

    Raises:
        DataError: it is missing, or no JSON.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; a source needs its raw annotation file; check the path.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; the file is one JSON object in UTF-8; download it again.") from error


def read_object(path: Path, key: str | None = None) -> dict[str, object]:
    """Read a JSON object from a file, or the one under `key`. Raises `DataError` if there is none."""
    value = read_json(path)
    if key is not None and isinstance(value, dict):
        value = value.get(key)
    if not isinstance(value, dict) or not value:
        where = f"the field {key!r}" if key else "the file"
        raise DataError(f"{path}: {where} is no JSON object of videos; check that it is the source's file.")
    return value


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
            notes.append(Note(f"{where} is a point in time or outside of the video; left out"))
            continue
        if duration_s is not None and end_s > duration_s:
            if end_s > duration_s + TIME_TOLERANCE_S:
                notes.append(Note(f"{where} goes beyond the video's {duration_s:g} s; cut there"))
            end_s = duration_s
        segments.append(Segment(start_s, end_s, caption.strip()))
    return tuple(sorted(segments, key=lambda segment: (segment.start_s, segment.end_s))), notes


def video(path: str) -> tuple[Media, ...]:
    """Name a sample's one video."""
    return (Media("video", path),)


def choose_among(options: Iterable[str], answer: str, location: str) -> tuple[tuple[str, ...], str]:
    """Check that exactly one of the bare options is the answer, in any case; give the options and that one.

    Raises:
        DataError: fewer than two options, two that are the same, or an answer that is none of them.
    """
    texts = tuple(options)
    folded = [text.casefold() for text in texts]
    if len(texts) < 2 or len(set(folded)) != len(texts):
        raise DataError(f"{location}: the options are {texts}; there are two or more different ones; fix the row.")
    if answer.casefold() not in folded:
        raise DataError(f"{location}: the answer {answer!r} is none of the options {texts}; fix the row.")
    return texts, texts[folded.index(answer.casefold())]
