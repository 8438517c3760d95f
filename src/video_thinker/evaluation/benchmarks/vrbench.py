"""VRBench (arXiv 2506.10857): multi-step reasoning over long narrative videos.

One line of the official JSONL is a video with its questions:

    {"video_id": "TZk_p-q8Fzo", "video_path": "VRBench/videos/v001/TZk_p-q8Fzo.mp4", "video_summary": "…",
     "mcq": {"qa1": {"question": "…", "options": {"A": "…", "B": "…", "C": "…", "D": "…"}, "answer": "D",
       "reasoning_process": {"1": "A group explores the ruins. [00:07:44->00:08:28]"},
       "reasoning_type": "Implicit Inference"}}}

Each reasoning step with times is a gold segment, the step is its caption; some questions have no steps. The category
is the reasoning type, spelt as in the file. The file gives no durations. The official score of the reasoning steps by a
language model is not computed here, only the multiple choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from video_thinker.errors import DataError
from video_thinker.evaluation.benchmarks.base import Benchmark, Item, Record, multiple_choice, segment
from video_thinker.trace import parse_time_range

_STEP = re.compile(r"(.*)\[([^\[\]]*)\]\s*\.?\s*", re.DOTALL)


def split(record: Record) -> Iterator[Record | DataError]:
    """Give the questions of a video."""
    video = {"video_id": record.text("video_id"), "video_path": record.text("video_path")}
    for name, question in record.mapping("mcq").items():
        try:
            part = record.part(name, question)
        except DataError as error:
            yield error
        else:
            yield record.part(name, {**part.fields, **video, "name": name})


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    return multiple_choice(
        record,
        record.mapping("options"),
        record.text("answer"),
        problem_id=f"{record.text('video_id')}-{record.text('name')}",
        problem=record.text("question"),
        path=record.text("video_path"),
        data_source="vrbench",
        category=record.text("reasoning_type"),
        segments=list(_segments(record)),
    )


def _segments(record: Record) -> Iterator[Item]:
    for number, step in record.mapping("reasoning_process").items():
        match = _STEP.fullmatch(step) if isinstance(step, str) else None
        span = parse_time_range(match.group(2)) if match else None
        if match is None or span is None:
            raise record.error(f"step {number} of reasoning_process is {step!r}", "a step ends in [hh:mm:ss->hh:mm:ss]")
        yield segment(*span, match.group(1))


BENCHMARK = Benchmark(convert, split)
