"""Evaluation files in the schema of Video-R1 (arXiv 2503.21776), such as its eval_mvbench.json or eval_vsibench.json.

One row of the JSON list:

    {"problem_id": 1, "problem": "How many cubes?", "data_type": "video", "problem_type": "regression", "options": [],
     "solution": "<answer>3</answer>", "path": "./Evaluation/VSI-Bench/1.mp4", "data_source": "VSI-Bench"}

This is the project's own schema: rows are checked and kept, with segments, category and duration where they have them.
Evaluation items have no trace, so `process` is left out.
"""

from __future__ import annotations

from video_thinker.datasets.base import Benchmark, Item, Record


def convert(record: Record) -> Item:
    """Keep a row as it is, without its trace."""
    return {key: value for key, value in record.fields.items() if key != "process"}


BENCHMARK = Benchmark(convert, "eval_*.json, JSON or JSONL in this schema")
