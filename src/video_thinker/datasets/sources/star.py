"""STAR (NeurIPS 2021): situated reasoning in Charades videos.

One row of the official JSON list (`question_program`, `situations` and more are not used); videos are VIDEO_ID.mp4:

    {"question_id": "Interaction_T1_13", "question": "Which object was tidied up by the person?", "video_id": "6H78U",
     "start": 11.1, "end": 19.6, "answer": "The closet/cabinet.",
     "choices": [{"choice_id": 0, "choice": "The blanket."}, {"choice_id": 1, "choice": "The closet/cabinet."}]}

The gold segment is start to end in seconds; the category is the first word of the id: Interaction, Sequence,
Prediction or Feasibility. Options are given without letters: their order is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from video_thinker.datasets.sources.base import (
    Row,
    Seconds,
    SourceRow,
    Text,
    check,
    choose_among,
    read_rows,
    usable_segments,
    video,
)
from video_thinker.schema import VideoSample


class Choice(Row):
    """One option."""

    choice: Text


class Question(Row):
    """The fields of one question."""

    question_id: Text
    question: Text
    video_id: Text
    start: Seconds
    end: Seconds
    answer: Text
    choices: list[Choice] = Field(min_length=2)


def read(path: Path) -> Iterator[SourceRow]:
    """Give the questions of the official file."""
    return read_rows(path, convert)


def convert(value: object, location: str) -> Iterable[SourceRow]:
    """Turn one row into a sample."""
    row = check(Question, value, location)
    options, answer = choose_among((choice.choice for choice in row.choices), row.answer, location)
    segments, notes = usable_segments([(row.start, row.end, "")], None, location)
    sample = VideoSample(
        id=row.question_id,
        problem=row.question,
        problem_type="multiple choice",
        answer=answer,
        options=options,
        media=video(f"{row.video_id}.mp4"),
        segments=segments,
        data_source="star",
        category=row.question_id.partition("_")[0],
        location=location,
    )
    return [*notes, sample]
