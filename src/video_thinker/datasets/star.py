"""STAR (NeurIPS 2021): situated reasoning in Charades videos. Its test answers are not public: use the val file.

One row of the official JSON list (`question_program`, `situations` and more are not used):

    {"question_id": "Interaction_T1_13", "question": "Which object was tidied up by the person?", "video_id": "6H78U",
     "start": 11.1, "end": 19.6, "answer": "The closet/cabinet.",
     "choices": [{"choice_id": 0, "choice": "The blanket."}, {"choice_id": 1, "choice": "The closet/cabinet."}]}

The gold segment is start to end (seconds), the category is the word before the first underscore of the id:
Interaction, Sequence, Prediction or Feasibility. Options stand in the order of their choice_id. Videos are named
VIDEO_ID.mp4 and are shown whole; the file gives no durations. Which 335 questions Video-Thinker's in-domain test uses
is not published. The synthesis takes the options without letters, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from video_thinker.datasets.annotated import SourceRow, read_questions
from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.items import letter_of_text, multiple_choice, read_options, segment


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    question_id = record.id("question_id")
    kind = question_id.partition("_")[0] if "_" in question_id else ""
    if not kind:
        record.note("no category", f"question_id={question_id!r} does not begin with a kind of question")
    options = read_options(record, _texts(record), "choices")
    if record.fields.get("start") is None or record.fields.get("end") is None:
        record.note("no times", "no start or no end: no gold segment")
        segments = []
    else:
        segments = [segment(record.fields["start"], record.fields["end"])]
    return multiple_choice(
        options,
        letter_of_text(record, "answer", options),
        problem_id=question_id,
        problem=record.text("question"),
        path=record.video("video_id", ".mp4"),
        data_source="star",
        category=kind,
        segments=segments,
    )


def _texts(record: Record) -> list[object]:
    """Return the texts of the choices in the order of their choice_id, if all have one."""
    choices = record.sequence("choices")
    if not all(isinstance(choice, dict) for choice in choices):
        return choices
    if all(isinstance(choice.get("choice_id"), int) for choice in choices):
        choices = sorted(choices, key=lambda choice: int(choice["choice_id"]))
    return [choice.get("choice") for choice in choices]


BENCHMARK = Benchmark(convert, "STAR_val.json")


def read(path: Path) -> Iterator[SourceRow]:
    """Give the questions of the official file, with options in any order."""
    return read_questions(BENCHMARK, path, free_order=True)
