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
test uses is not published.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator

from video_thinker.errors import DataError
from video_thinker.evaluation.benchmarks.base import (
    Benchmark,
    Item,
    Record,
    letter_of,
    lettered,
    multiple_choice,
    segment,
)
from video_thinker.trace import parse_time_range


def split(record: Record) -> Iterator[Record | DataError]:
    """Give the questions of a line's videos."""
    for video in record.fields:
        for index, question in enumerate(record.sequence(video), start=1):
            try:
                part = record.part(f"{video} question {index}", question)
            except DataError as error:
                yield error
            else:
                yield record.part(f"{video} question {index}", {**part.fields, "video_id": video})


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    video = record.text("video_id")
    problem_id = f"{video}-{record.id('data_id')}"
    if "options" in record.fields:
        options, answer = record.mapping("options"), record.text("answer")
    else:
        options = lettered(_shuffled([record.text("answer"), *record.texts("distractors")], problem_id))
        answer = letter_of(record, record.text("answer"), options)
    return multiple_choice(
        record,
        options,
        answer,
        problem_id=problem_id,
        problem=record.text("question"),
        path=f"{video}.mp4",
        data_source="scalelong",
        category=record.text("question_type"),
        segments=list(_segments(record)),
    )


def _shuffled(texts: list[str], seed: str) -> list[str]:
    generator = random.Random(hashlib.sha256(seed.encode()).digest())
    return generator.sample(texts, len(texts))


def _segments(record: Record) -> Iterator[Item]:
    locations = record.optional_text("answer_location")
    for location in filter(None, re.split(r"\s*[,;]\s*", locations)):
        span = parse_time_range(location)
        if span is None:
            raise record.error(f"answer_location={locations!r}", "it is one or more time ranges like 0:01-0:04")
        yield segment(*span)


BENCHMARK = Benchmark(convert, split)
