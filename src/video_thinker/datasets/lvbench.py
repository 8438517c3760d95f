r"""LVBench (arXiv 2406.08035): questions on videos of an hour and more.

One line of the official video_info.meta.jsonl is a video with its questions:

    {"key": "Cm73ma6Ibcs", "type": "cartoon", "video_info": {"duration_minutes": 53.4},
     "qa": [{"uid": "55", "question": "What year appears?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633", "answer": "D",
       "question_type": ["key information retrieval"], "time_reference": "00:15-00:19"}]}

The gold segment is the time reference; the category is the question types, joined with commas. The duration is
`duration_minutes` where it is given; a time reference that goes beyond it shows that it was rounded, and then the item
has no duration. Videos are named KEY.mp4. Which 297 questions Video-Thinker's in-domain test uses is not published.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from video_thinker.datasets.annotated import SourceRow, read_questions
from video_thinker.datasets.base import Benchmark, Item, Record, parts
from video_thinker.datasets.inline_options import split_inline_options
from video_thinker.datasets.items import letter_of, multiple_choice, segment
from video_thinker.errors import DataError
from video_thinker.times import parse_time_range


def split(record: Record) -> Iterator[Record | DataError]:
    """Give the questions of a video."""
    info = record.fields.get("video_info")
    info_record = record.part("video_info", info if isinstance(info, dict) else {})
    duration_s = info_record.duration_s("duration_minutes", unit_s=60)
    yield from parts(record, "question", record.sequence("qa"), key=record.text("key"), duration_s=duration_s)


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    key = record.text("key")
    problem, options = split_inline_options(record, record.text("question"))
    segments, duration_s = _times(record)
    return multiple_choice(
        options,
        letter_of(record, "answer", options),
        problem_id=f"{key}-{record.id('uid')}",
        problem=problem,
        path=record.video("key", ".mp4"),
        data_source="lvbench",
        category=record.category("question_type"),
        duration_s=duration_s,
        segments=segments,
    )


def _times(record: Record) -> tuple[list[Item], float | None]:
    """Return the gold segment, if there is one, and the duration, if it is not shorter than that."""
    text, duration_s = record.optional_text("time_reference"), record.fields["duration_s"]
    span = parse_time_range(text)
    if span is None:
        record.note("no times", f"time_reference={text!r} is no time range like 00:15-00:19: no gold segment")
        return [], duration_s
    if duration_s is not None and span[1] > duration_s:
        record.note(
            "duration shorter than the times",
            f"time_reference={text!r} goes beyond {duration_s / 60:g} minutes: no duration kept",
        )
        duration_s = None
    return [segment(*span)], duration_s


BENCHMARK = Benchmark(convert, "video_info.meta.jsonl", split)


def read(path: Path) -> Iterator[SourceRow]:
    """Give the questions of the official file, whose options keep their letters."""
    return read_questions(BENCHMARK, path)
