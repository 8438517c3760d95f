"""TVGBench (arXiv 2503.13377, Time-R1): temporal grounding, a balanced mix of Charades-STA, ActivityNet and others.

One row of the official JSON list:

    {"path": "./dataset/timer1/videos/tvgbench_data/OHOFG.mp4", "question": "person sitting down in a chair.",
     "answer": "1.0-7.5", "duration": 35.04, "question_type": "video temporal grounding", "dataset_name": "charades",
     "qsemtype": "Human Pose"}

The item asks when the sentence happens, the gold answer is the time span, graded by temporal IoU. The category is
`qsemtype`. Where a span ends after the stated duration (Charades-STA has such spans), the answer stays as it is, so
that figures compare, and the gold segment is cut. The folders of `path` are those of its authors; the file name
counts.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.items import grounding
from video_thinker.times import parse_time_range


def convert(record: Record) -> Item:
    """Turn one row into a grounding item; rows have no id, so it is the video and the row's number."""
    file_name = PurePosixPath(record.video("path")).name
    answer = record.text("answer")
    span = parse_time_range(answer)
    if span is None:
        raise record.error(f"answer={answer!r}", "answer is a time range like 1.0-7.5")
    return grounding(
        record,
        record.text("question"),
        *span,
        problem_id=f"{PurePosixPath(file_name).stem}-{record.number}",
        path=file_name,
        data_source="tvgbench",
        category=record.category("qsemtype"),
        duration_s=record.duration_s(),
    )


BENCHMARK = Benchmark(convert, "the JSON list")
