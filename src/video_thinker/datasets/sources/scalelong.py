"""ScaleLong (arXiv 2505.23922): questions at several time scales of long videos.

One line of the official JSONL is a video with its questions; videos are named VIDEO_ID.mp4:

    {"uIj03RsGrJA": [{"data_id": 0, "question": "…", "question_type": "Counting Problem", "granularity": "event",
      "answer": "five", "answer_location": "0:01-0:04", "distractors": ["two", "three", "four"]}]}

The gold segments are the answer's locations, separated by commas or semicolons where there are several; the category
is the question type. Options are given without letters: their order is free.
"""

from __future__ import annotations

import re
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
    choose_among,
    guarded,
    read_rows,
    usable_segments,
    video,
)
from video_thinker.errors import DataError
from video_thinker.schema import VideoSample
from video_thinker.trace import parse_time_range


class Question(Row):
    """The fields of one question."""

    data_id: Id
    question: Text
    answer: Text
    answer_location: Text
    distractors: list[Text] = Field(min_length=1)
    question_type: str = ""


def read(path: Path) -> Iterator[SourceRow]:
    """Give the questions of the official file."""
    return read_rows(path, split)


def split(value: object, location: str) -> Iterator[SourceRow]:
    """Give the questions of one line; a broken one does not cost its neighbors."""
    for video_id, questions in check(dict[str, list[object]], value, location).items():
        for index, question in enumerate(questions, start=1):
            where = f"{location} {video_id} question {index}"
            yield from guarded(partial(convert, video_id), question, where)


def convert(video_id: str, value: object, location: str) -> Iterable[SourceRow]:
    """Turn one question into a sample."""
    row = check(Question, value, location)
    options, answer = choose_among([row.answer, *row.distractors], row.answer, location)
    segments, notes = usable_segments([(*span, "") for span in _spans(row, location)], None, location)
    sample = VideoSample(
        id=f"{video_id}-{row.data_id}",
        problem=row.question,
        problem_type="multiple choice",
        answer=answer,
        options=options,
        media=video(f"{video_id}.mp4"),
        segments=segments,
        data_source="scalelong",
        category=row.question_type,
        location=location,
    )
    return [*notes, sample]


def _spans(row: Question, location: str) -> Iterator[tuple[float, float]]:
    for text in filter(None, re.split(r"\s*[,;]\s*", row.answer_location)):
        span = parse_time_range(text)
        if span is None:
            raise DataError(
                f"{location}: answer_location is {row.answer_location!r}; it is one or more time ranges like "
                "0:01-0:04, separated by commas; fix the row or leave it out."
            )
        yield span
