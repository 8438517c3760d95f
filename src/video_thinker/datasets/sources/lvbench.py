r"""LVBench (arXiv 2406.08035): questions on videos of an hour and more.

One line of the official video_info.meta.jsonl is a video with its questions; videos are named KEY.mp4:

    {"key": "Cm73ma6Ibcs", "type": "cartoon", "video_info": {"duration_minutes": 53.4},
     "qa": [{"uid": "55", "question": "What year appears?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633", "answer": "D",
       "question_type": ["key information retrieval"], "time_reference": "00:15-00:19"}]}

The gold segment is the time reference; the category is the question types. Options keep their letters, since they are
part of the question's text. The stated minutes are rounded: the video's length is taken from the file.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from pydantic import Field

from video_thinker.datasets.sources.base import (
    Id,
    Row,
    SourceRow,
    Text,
    check,
    guarded,
    read_rows,
    usable_segments,
    video,
)
from video_thinker.errors import DataError
from video_thinker.schema import VideoSample
from video_thinker.trace import parse_time_range

_OPTION = re.compile(r"^[ \t]*\(([A-Z])\)[ \t]*", re.MULTILINE)


class Question(Row):
    """The fields of one question."""

    uid: Id
    question: Text
    answer: Text
    time_reference: Text
    question_type: list[str] = []


class Video(Row):
    """A video and its questions, which are checked one by one."""

    key: Text
    qa: list[object] = Field(min_length=1)


def read(path: Path) -> Iterator[SourceRow]:
    """Give the questions of the official file."""
    return read_rows(path, split)


def split(value: object, location: str) -> Iterator[SourceRow]:
    """Give the questions of one line; a broken one does not cost its neighbors."""
    row = check(Video, value, location)
    for index, question in enumerate(row.qa, start=1):
        yield from guarded(partial(convert, row.key), question, f"{location} question {index}")


def convert(key: str, value: object, location: str) -> Iterable[SourceRow]:
    """Turn one question into a sample."""
    row = check(Question, value, location)
    problem, options = split_options(row.question, location)
    answer = row.answer.upper()
    if answer not in [option[0] for option in options]:
        raise DataError(f"{location}: the answer {row.answer!r} is none of the options {options}; fix the row.")
    span = parse_time_range(row.time_reference)
    if span is None:
        raise DataError(f"{location}: time_reference is {row.time_reference!r}; it is a range like 00:15-00:19.")
    segments, notes = usable_segments([(*span, "")], None, location)
    sample = VideoSample(
        id=f"{key}-{row.uid}",
        problem=problem,
        problem_type="multiple choice",
        answer=answer,
        options=options,
        media=video(f"{key}.mp4"),
        segments=segments,
        data_source="lvbench",
        category=", ".join(row.question_type),
        location=location,
    )
    return [*notes, sample]


def split_options(text: str, location: str) -> tuple[str, tuple[str, ...]]:
    """Cut a question's text into the question and its options, "A. text".

    Raises:
        DataError: there are no options, they are not lettered from A on, or no question stands before them.
    """
    problem, *parts = _OPTION.split(text)
    letters, texts = parts[::2], [part.strip() for part in parts[1::2]]
    if len(letters) < 2 or letters != list(string.ascii_uppercase[: len(letters)]) or not all(texts):
        raise DataError(f"{location}: the options in {text[:120]!r} are not lettered (A), (B), …; fix the row.")
    if not problem.strip():
        raise DataError(f"{location}: {text[:120]!r} holds only options; the question stands before them; fix the row.")
    return problem.strip(), tuple(f"{letter}. {option}" for letter, option in zip(letters, texts, strict=True))
