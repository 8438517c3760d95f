"""CG-Bench (arXiv 2412.12075): clue-grounded questions on long videos. `--subset reasoning` is CG-Bench-Reasoning.

One row of the official JSON list:

    {"qid": 57, "video_uid": "yTdTg8TK8kw", "question": "…", "answer": "Right rear", "choices": ["Right rear", "…"],
     "right_answer": "A", "clue_intervals": [[958, 960]], "domain": "Security & Health",
     "sub_category": "Entity Cognition", "duration": 1782}

The letter is the gold, as in the official scorer; the answer's text is only compared with it. The gold segments are
the clue intervals (seconds), the category is the sub-category. The subset `reasoning` is the sub-categories that end
in "Cognition". Videos are named VIDEO_UID.mp4.
"""

from __future__ import annotations

from video_thinker.datasets.base import Benchmark, Item, Record, as_text
from video_thinker.datasets.items import letter_of, letter_of_text, multiple_choice, note_text, read_options, spans


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    path = record.video("video_uid", ".mp4")
    choices = read_options(record, record.fields.get("choices"), "choices")
    text = as_text(record.fields.get("answer")) or ""
    if record.optional_text("right_answer") or not text:
        letter = letter_of(record, "right_answer", choices)
        note_text(record, "answer", text, letter, choices)
    else:
        letter = letter_of_text(record, "answer", choices)
        record.note("answer as text", f"no right_answer: the answer's text is that of option {letter}")
    return multiple_choice(
        choices,
        letter,
        problem_id=f"{path.removesuffix('.mp4')}-{record.id('qid')}",
        problem=record.text("question"),
        path=path,
        data_source="cg_bench",
        category=record.category("sub_category"),
        duration_s=record.duration_s(),
        segments=list(spans(record, "clue_intervals")),
    )


BENCHMARK = Benchmark(
    convert,
    "cgbench.json, cgbench_mini.json",
    subsets={"reasoning": lambda sample, record: sample.category.endswith("Cognition")},
)
