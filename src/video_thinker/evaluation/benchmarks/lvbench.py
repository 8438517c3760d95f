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

from video_thinker.errors import DataError
from video_thinker.evaluation.benchmarks.base import Benchmark, Item, Record, multiple_choice, segment
from video_thinker.evaluation.benchmarks.inline_options import split_inline_options


def split(record: Record) -> Iterator[Record | DataError]:
    """Give the questions of a video."""
    key = record.text("key")
    info = record.part("video_info", record.fields.get("video_info") or {})
    minutes = info.duration_s("duration_minutes")
    for index, question in enumerate(record.sequence("qa"), start=1):
        try:
            part = record.part(f"question {index}", question)
        except DataError as error:
            yield error
        else:
            yield record.part(f"question {index}", {**part.fields, "key": key, "minutes": minutes})


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    problem, options = split_inline_options(record, record.text("question"))
    spans = [record.time_range("time_reference")] if record.optional_text("time_reference") else []
    minutes = record.fields["minutes"]
    duration_s = None if minutes is None else 60 * minutes
    if duration_s is not None and any(end_s > duration_s for _, end_s in spans):
        record.note(
            f"time_reference={record.text('time_reference')!r} goes beyond {minutes:g} minutes: no duration kept"
        )
        duration_s = None
    return multiple_choice(
        record,
        options,
        record.text("answer").upper(),
        problem_id=f"{record.text('key')}-{record.id('uid')}",
        problem=problem,
        path=f"{record.text('key')}.mp4",
        data_source="lvbench",
        category=", ".join(record.texts("question_type")),
        duration_s=duration_s,
        segments=[segment(*span) for span in spans],
    )


BENCHMARK = Benchmark(convert, split)
