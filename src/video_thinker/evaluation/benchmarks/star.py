"""STAR (NeurIPS 2021): situated reasoning in Charades videos. Its test answers are not public: use the val file.

One row of the official JSON list (`question_program`, `situations` and more are not used):

    {"question_id": "Interaction_T1_13", "question": "Which object was tidied up by the person?", "video_id": "6H78U",
     "start": 11.1, "end": 19.6, "answer": "The closet/cabinet.",
     "choices": [{"choice_id": 0, "choice": "The blanket."}, {"choice_id": 1, "choice": "The closet/cabinet."}]}

The gold segment is start to end (seconds), the category is the word before the first underscore of the id:
Interaction, Sequence, Prediction or Feasibility. Options stand in the order of their choice_id. Videos are named
VIDEO_ID.mp4 and are shown whole; the file gives no durations. Which 335 questions Video-Thinker's in-domain test uses
is not published.
"""

from __future__ import annotations

from video_thinker.evaluation.benchmarks.base import (
    Benchmark,
    Item,
    Record,
    letter_of,
    lettered,
    multiple_choice,
    segment,
)


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    question_id, video = record.text("question_id"), record.text("video_id")
    choices = [
        record.part(f"choice {index}", choice) for index, choice in enumerate(record.sequence("choices"), start=1)
    ]
    if all("choice_id" in choice.fields for choice in choices):
        choices.sort(key=lambda choice: choice.get("choice_id", int, "a whole number"))
    options = lettered([choice.text("choice") for choice in choices])
    return multiple_choice(
        record,
        options,
        letter_of(record, record.text("answer"), options),
        problem_id=question_id,
        problem=record.text("question"),
        path=f"{video}.mp4",
        data_source="star",
        category=question_id.partition("_")[0],
        segments=[segment(record.seconds("start"), record.seconds("end"))],
    )


BENCHMARK = Benchmark(convert)
