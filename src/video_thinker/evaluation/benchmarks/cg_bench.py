"""CG-Bench (arXiv 2412.12075): clue-grounded questions on long videos. `--subset reasoning` is CG-Bench-Reasoning.

One row of the official JSON list:

    {"qid": 57, "video_uid": "yTdTg8TK8kw", "question": "…", "answer": "Right rear", "choices": ["Right rear", "…"],
     "right_answer": "A", "clue_intervals": [[958, 960]], "domain": "Security & Health",
     "sub_category": "Entity Cognition", "duration": 1782}

The gold segments are the clue intervals (seconds), the category is the sub-category. The subset `reasoning` is the
sub-categories that end in "Cognition". Videos are named VIDEO_UID.mp4.
"""

from __future__ import annotations

from video_thinker.evaluation.benchmarks.base import (
    Benchmark,
    Item,
    Record,
    letter_of,
    lettered,
    multiple_choice,
    pairs,
    segment,
)


def convert(record: Record) -> Item:
    """Turn one question into an item; the answer's letter and its text must agree."""
    video, letter = record.text("video_uid"), record.text("right_answer")
    choices = lettered(record.texts("choices"))
    if letter in choices and letter_of(record, record.text("answer"), choices) != letter:
        raise record.error(
            f"right_answer={letter!r} is {choices[letter]!r}, answer={record.text('answer')!r}", "they name one choice"
        )
    return multiple_choice(
        record,
        choices,
        letter,
        problem_id=f"{video}-{record.id('qid')}",
        problem=record.text("question"),
        path=f"{video}.mp4",
        data_source="cg_bench",
        category=record.text("sub_category"),
        duration_s=record.duration_s(),
        segments=[segment(*times) for times in pairs(record, "clue_intervals", record.sequence("clue_intervals"))],
    )


BENCHMARK = Benchmark(convert, subsets={"reasoning": lambda sample: sample.category.endswith("Cognition")})
