"""ScaleLong (arXiv 2505.23922): questions at several time scales of long videos.

One line of the official JSONL is a video with its questions, in one of two forms:

    {"uIj03RsGrJA": [{"data_id": 0, "question": "…", "question_type": "Counting Problem", "granularity": "event",
      "answer": "five", "answer_location": "0:01-0:04", "distractors": ["two", "three", "four"]}]}
    {"uIj03RsGrJA": [{"data_id": 0, "question": "…", "question_type": "Counting Problem",
      "options": {"A": "two", "B": "five", "C": "three", "D": "four"}, "answer": "B"}]}

In the first form the file does not say in which order the options are shown: they are shuffled here by a hash of the
question's id, so that the order is the same everywhere but tells nothing. The gold segments are the answer's
locations, separated by commas or semicolons where there are several; the category is the question type, the time scale
is not kept. The file gives no durations. Videos are named VIDEO_ID.mp4. Which 317 questions Video-Thinker's in-domain
test uses is not published. The synthesis takes the options without
letters, in any order.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from video_thinker.data.texts import brief
from video_thinker.datasets.annotated import SourceRow, read_questions
from video_thinker.datasets.base import Benchmark, Item, Record, parts
from video_thinker.datasets.items import comparable, letter_of, letter_of_text, multiple_choice, read_options, segment
from video_thinker.errors import DataError
from video_thinker.times import parse_time_range


def split(record: Record) -> Iterator[Record | DataError]:
    """Give the questions of a line's videos."""
    for video in record.fields:
        try:
            questions = record.sequence(video)
        except DataError as error:
            yield error
        else:
            yield from parts(record, f"{video} question", questions, video_id=video)


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    video = record.text("video_id")
    problem_id = f"{video}-{record.id('data_id')}"
    if record.fields.get("options") is not None:
        options = read_options(record, record.fields["options"])
        letter = letter_of(record, "answer", options)
    else:
        options = read_options(record, _shuffled([record.text("answer"), *_distractors(record)], problem_id))
        letter = letter_of_text(record, "answer", options)
    return multiple_choice(
        options,
        letter,
        problem_id=problem_id,
        problem=record.text("question"),
        path=f"{video}.mp4",
        data_source="scalelong",
        category=record.category("question_type"),
        segments=list(_segments(record)),
    )


def _distractors(record: Record) -> Iterable[str]:
    """Give the wrong options; one that is the answer itself, or empty, is none."""
    for text in read_options(record, record.sequence("distractors"), "distractors").values():
        if text and comparable(text) != comparable(record.text("answer")):
            yield text
        else:
            record.note("distractor left out", f"the distractor {brief(text)} is empty or the answer itself")


def _shuffled(texts: list[str], seed: str) -> list[str]:
    generator = random.Random(hashlib.sha256(seed.encode()).digest())
    return generator.sample(texts, len(texts))


def _segments(record: Record) -> Iterator[Item]:
    locations = record.optional_text("answer_location")
    if not locations:
        record.note("no times", "no answer_location: no gold segments")
    for location in filter(None, re.split(r"\s*[,;]\s*", locations)):
        span = parse_time_range(location)
        if span is None:
            record.note("unusable times", f"{location!r} in answer_location is no time range like 0:01-0:04; not kept")
        else:
            yield segment(*span)


BENCHMARK = Benchmark(convert, "the JSONL, a video a line", split)


def read(path: Path) -> Iterator[SourceRow]:
    """Give the questions of the official file, with options in any order."""
    return read_questions(BENCHMARK, path, free_order=True)
