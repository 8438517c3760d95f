"""Video-MME (arXiv 2405.21075): 2,700 questions on 900 videos, a third of them short, medium and long.

One row of the official parquet:

    {"video_id": "901", "duration": "long", "domain": "Life Record", "sub_category": "Travel",
     "url": "https://www.youtube.com/watch?v=AAAAAAAAAAA", "videoID": "AAAAAAAAAAA", "question_id": "901-1",
     "task_type": "Counting Problem", "question": "How many bridges?", "options": ["A. 4.", "B. 9.", "C. 5.", "D. 13."],
     "answer": "C"}

The older JSON has a row for each video, with `duration_category`, and its `questions` with `choices`. `duration` is a
category, not seconds: it is what the subsets `short`, `medium` and `long` go by. The category is the task type. Videos
are named VIDEOID.mp4, after the address. The licence forbids copying the questions, even in part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from video_thinker.datasets.base import Belongs, Benchmark, Item, Record, parts
from video_thinker.datasets.items import letter_of, multiple_choice, read_options
from video_thinker.errors import DataError

LENGTHS = ("short", "medium", "long")
_ADDRESS = re.compile(r"(?:v=|youtu\.be/|/shorts/|/embed/)([\w-]{11})")


def split(record: Record) -> Iterable[Record | DataError]:
    """Give the one question of a flat row, or those of a video."""
    if "questions" not in record.fields:
        return [record]
    shared = {key: value for key, value in record.fields.items() if key != "questions"}
    return parts(record, "question", record.sequence("questions"), **shared)


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    key = "choices" if record.fields.get("options") is None and "choices" in record.fields else "options"
    options = read_options(record, record.fields.get(key), key)
    if _length(record) not in LENGTHS:
        record.note("no length category", f"duration={_length(record)!r}: in no subset; it is {', '.join(LENGTHS)}")
    return multiple_choice(
        options,
        letter_of(record, "answer", options),
        problem_id=record.id("question_id"),
        problem=record.text("question"),
        path=_path(record),
        data_source="video_mme",
        category=record.category("task_type"),
    )


def _path(record: Record) -> str:
    if record.optional_text("videoID"):
        return record.video("videoID", ".mp4")
    if match := _ADDRESS.search(record.optional_text("url") or record.optional_text("video_url")):
        return f"{match.group(1)}.mp4"
    path = record.video("video_id", ".mp4")
    record.note("no videoID", f"no videoID and no address: the video is looked for as {path}")
    return path


def _length(record: Record) -> str:
    return (record.optional_text("duration") or record.optional_text("duration_category")).lower()


def _of_length(length: str) -> Belongs:
    return lambda sample, record: _length(record) == length


BENCHMARK = Benchmark(
    convert,
    "the test parquet, or the older JSON list of videos",
    split,
    {length: _of_length(length) for length in LENGTHS},
    sizes={"": 2700, "long": 900},
    remarks=("Subtitles are an optional input of the official evaluation; they are not used here.",),
)
