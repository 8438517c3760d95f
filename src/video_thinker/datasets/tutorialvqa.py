"""TutorialVQA (LREC 2020): questions on screencast tutorials, each answered by a span of the video.

The file is a JSON list or JSONL of questions; videos are named VIDEO_ID.mp4:

    {"video_id": "P8aXZYqEO8s", "question": "How do I select the brush tool?", "answer_start": 31.5,
     "answer_end": 44.0}

An answer is a span and no text, so Video-Thinker counts this set as caption-labelled: the spans of a video are its
segments, and what is asked is what is shown there. Questions with the same span (the set paraphrases a lot) are one
segment with the first wording. `answer_start` and `answer_end` are seconds or MM:SS.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from video_thinker.data.raw_files import iter_rows
from video_thinker.datasets.annotated import (
    CaptionedVideo,
    ClockOrSeconds,
    Id,
    Row,
    SourceRow,
    Text,
    check,
    usable_segments,
)
from video_thinker.datasets.base import Note
from video_thinker.errors import DataError


class Question(Row):
    """One question and the span that answers it."""

    video_id: Id
    question: Text
    answer_start: ClockOrSeconds
    answer_end: ClockOrSeconds


def read(path: Path) -> Iterator[SourceRow]:
    """Give one captioned video for all questions on it, in the order of first mention; broken rows come first."""
    spans: dict[str, dict[tuple[float, float], str]] = defaultdict(dict)
    for row in iter_rows(path):
        if isinstance(row, DataError):
            yield row
            continue
        try:
            question = check(Question, row.value, row.location)
            _, notes = usable_segments([(question.answer_start, question.answer_end, "")], None, row.location)
        except DataError as error:
            yield error
            continue
        span = (question.answer_start, question.answer_end)
        first = spans[question.video_id].setdefault(span, f"Shows: {question.question}")
        if first != f"Shows: {question.question}":
            notes.append(
                Note(
                    "another wording",
                    f"{row.location}: another wording for the span {span[0]:g}-{span[1]:g} s; left out",
                )
            )
        yield from notes
    for video_id, captions in spans.items():
        location = f"{path}: {video_id}"
        segments, _ = usable_segments([(*span, text) for span, text in captions.items()], None, location)
        yield CaptionedVideo(video_id, f"{video_id}.mp4", "tutorialvqa", segments, location=location)
