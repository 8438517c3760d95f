r"""LongVideo-Reason (arXiv 2507.07966, LongVILA-R1): reasoning over long videos, 1,000 test questions.

One row of the official file (JSON list, JSONL or parquet):

    {"problem_id": 12, "problem": "Why does she leave?\nA. She is late\nB. She is ill", "data_type": "video",
     "problem_type": "goal", "reasoning": "…", "videos": "longvila_videos/abc.mp4", "answer": "<answer>B</answer>"}

The problem type is the kind of question (temporal, goal, plot or spatial) and becomes the category; all questions are
multiple choice. Their options stand inside the problem. The official scorer compares letters and counts all rows: 379
and 857 have no options, so their letter alone is graded; in 147, 743 and 825 a generator's notes stand among the
options: the last run from A on is the options, and what stands before it stays in the question. There are no gold
segments or durations; `reasoning` is not kept, since an evaluation item has no trace. A row of a further type of
data/README.md ("numerical", "free-form") keeps it.
"""

from __future__ import annotations

from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.inline_options import split_inline_options
from video_thinker.datasets.items import letter_of, multiple_choice
from video_thinker.schema import PROBLEM_TYPES
from video_thinker.trace import extract_answer


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    answer = record.text("answer")
    answer = extract_answer(answer) or answer
    gold = Record(record.location, record.number, {"answer": answer}, record.notes)
    fields = {
        "problem_id": record.id("problem_id"),
        "data_type": "video",
        "path": record.video("videos"),
        "data_source": "longvideo_reason",
    }
    problem_type = record.optional_text("problem_type")
    if problem_type in PROBLEM_TYPES and problem_type != "multiple choice":
        return {**fields, "problem_type": problem_type, "problem": record.text("problem"), "solution": answer}
    category = "" if problem_type == "multiple choice" else record.category("problem_type")
    problem, options = split_inline_options(record, record.text("problem"))
    return multiple_choice(options, letter_of(gold, "answer", options), problem=problem, category=category, **fields)


BENCHMARK = Benchmark(convert, "the test split, JSON or parquet", sizes={"": 1000})
