r"""LongVideo-Reason (arXiv 2507.07966, LongVILA-R1): reasoning over long videos.

One row of the official file (JSON list or JSONL):

    {"problem_id": 12, "problem": "Why does she leave?\nA. She is late\nB. She is ill",
     "problem_type": "multiple choice", "reasoning": "…", "videos": "longvila_videos/abc.mp4",
     "answer": "<answer>B</answer>"}

The options stand inside the problem. There are no gold segments, categories or durations; `reasoning` is not kept,
since an evaluation item has no trace. Other problem types than multiple choice keep the problem as it is.
"""

from __future__ import annotations

from video_thinker.evaluation.benchmarks.base import Benchmark, Item, Record, multiple_choice
from video_thinker.evaluation.benchmarks.inline_options import split_inline_options
from video_thinker.trace import extract_answer


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    answer = record.text("answer")
    answer = extract_answer(answer) or answer
    fields = {
        "problem_id": record.id("problem_id"),
        "data_type": "video",
        "path": record.text("videos"),
        "data_source": "longvideo_reason",
    }
    problem_type = record.optional_text("problem_type") or "multiple choice"
    if problem_type.lower() != "multiple choice":
        return {**fields, "problem_type": problem_type, "problem": record.text("problem"), "solution": answer}
    problem, options = split_inline_options(record, record.text("problem"))
    return multiple_choice(record, options, answer, problem=problem, **fields)


BENCHMARK = Benchmark(convert)
