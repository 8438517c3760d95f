"""VRBench (arXiv 2506.10857): multi-step reasoning over long narrative videos.

One line of the official JSONL is a video with its questions:

    {"video_id": "TZk_p-q8Fzo", "video_path": "VRBench/videos/v001/TZk_p-q8Fzo.mp4", "video_summary": "…",
     "mcq": {"qa1": {"question": "…", "options": {"A": "…", "B": "…", "C": "…", "D": "…"}, "answer": "D",
       "reasoning_process": {"1": "A group explores the ruins. [00:07:44->00:08:28]"},
       "reasoning_type": "Implicit Inference"}}}

Each reasoning step with times is a gold segment, the step is its caption; some questions have no steps, and some steps
no times: the official multiple-choice score does not need them. The category
is the reasoning type, spelt as in the file. The file gives no durations. The official score of the reasoning steps by a
language model is not computed here, only the multiple choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from video_thinker.data.texts import brief
from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.items import letter_of, multiple_choice, read_options, segment
from video_thinker.errors import DataError
from video_thinker.times import parse_time_range

_SPAN = re.compile(r"\[([^\[\]]*)\]\s*\.?")


def split(record: Record) -> Iterator[Record | DataError]:
    """Give the questions of a video."""
    for name, question in record.mapping("mcq").items():
        try:
            part = record.part(name, question)
        except DataError as error:
            yield error
        else:
            video = {key: record.fields.get(key) for key in ("video_id", "video_path")}
            yield record.part(name, {**part.fields, **video})


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    options = read_options(record, record.fields.get("options"))
    path = record.video("video_path") if record.optional_text("video_path") else record.video("video_id", ".mp4")
    return multiple_choice(
        options,
        letter_of(record, "answer", options),
        problem_id=f"{record.id('video_id')}-{record.name}",
        problem=record.text("question"),
        path=path,
        data_source="vrbench",
        category=record.category("reasoning_type"),
        segments=list(_segments(record)),
    )


def _segments(record: Record) -> Iterator[Item]:
    """Give a gold segment for each time range of a reasoning step; a step without times has none."""
    steps = record.fields.get("reasoning_process")
    if not isinstance(steps, dict | list) or not steps:
        record.note("no times", f"reasoning_process={brief(steps)}: no gold segments")
        return
    for number, step in steps.items() if isinstance(steps, dict) else enumerate(steps, start=1):
        text = step if isinstance(step, str) else ""
        found = [span for inside in _SPAN.findall(text) if (span := parse_time_range(inside))]
        if not found:
            record.note("step without times", f"step {number} of reasoning_process is {brief(step)}: no gold segment")
        for span in found:
            yield segment(*span, _SPAN.sub("", text))


BENCHMARK = Benchmark(
    convert,
    "the JSONL, a video a line",
    split,
    remarks=("The official score of the reasoning steps, by a language model, is not computed.",),
)
