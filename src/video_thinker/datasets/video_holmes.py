"""Video-Holmes (arXiv 2505.21374): reasoning over short suspense films, 1,837 test questions on 270 films.

One row of the official JSON list:

    {"video ID": "RSmjqss0XKQ", "Question ID": 3, "Question Type": "TCI", "Question": "Why was the man trapped?",
     "Options": {"A": "…", "B": "…", "C": "…", "D": "…", "E": "…", "F": "…"}, "Answer": "C", "Explanation": "…"}

The category is the question type (SR, IMC, TCI, TA, MHR, PAR, CTI). There are no gold segments: the times in some
explanations are prose. Videos are named VIDEO_ID.mp4.
"""

from __future__ import annotations

from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.items import letter_of, multiple_choice, read_options


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    path = record.video("video ID", ".mp4")
    options = read_options(record, record.fields.get("Options"), "Options")
    return multiple_choice(
        options,
        letter_of(record, "Answer", options),
        problem_id=f"{path.removesuffix('.mp4')}-{record.id('Question ID')}",
        problem=record.text("Question"),
        path=path,
        data_source="video_holmes",
        category=record.category("Question Type"),
    )


BENCHMARK = Benchmark(convert, "test_Video-Holmes.json")
