"""MMVU (arXiv 2501.12380): expert questions on videos of 27 subjects.

One row of the official validation.json (1,000; the gold of the test split is withheld):

    {"id": "validation_1", "video": "https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/videos/Chemistry/0.mp4",
     "youtube_url": "…", "question_type": "multiple-choice", "metadata": {"subject": "Chemistry", "textbook": "…"},
     "question": "How many grams?", "choices": {"A": "10.0", "B": "5.0", "C": "12.0", "D": "15.0", "E": "20.0"},
     "answer": "A"}

An open-ended question has empty choices and a short text as its answer: the official score is a language model's, here
it is graded by ROUGE. Subsets: `multiple_choice` and `open_ended`. The category is the subject. A video's path is what
follows the repository in its address, videos/Chemistry/0.mp4.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from video_thinker.datasets.base import Benchmark, Item, Record, as_text
from video_thinker.datasets.items import free_form, letter_of, multiple_choice, read_options


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    path = _path(record)
    fields = {
        "problem_id": record.id("id"),
        "problem": record.text("question"),
        "path": path,
        "data_source": "mmvu",
        "category": _subject(record, path),
    }
    choices = record.fields.get("choices")
    given = choices.values() if isinstance(choices, dict) else choices if isinstance(choices, list) else []
    if record.optional_text("question_type") == "open-ended" or not any(as_text(choice) for choice in given):
        if record.optional_text("question_type") == "multiple-choice":
            raise record.error("no choices", "a multiple-choice question has some")
        record.note("graded by ROUGE", "open-ended: the official score is a language model's")
        return free_form(record.text("answer"), **fields)
    options = read_options(record, choices, "choices")
    return multiple_choice(options, letter_of(record, "answer", options), **fields)


def _path(record: Record) -> str:
    """Return the path of a video without its address: "videos/Chemistry/0.mp4"."""
    text = record.video("video_path") if record.optional_text("video_path") else record.video("video")
    folders = PurePosixPath(text.partition("?")[0]).parts
    return "/".join(folders[folders.index("videos") :]) if "://" in text and "videos" in folders else text


def _subject(record: Record, path: str) -> str:
    metadata = record.fields.get("metadata")
    subject = as_text(metadata.get("subject")) if isinstance(metadata, dict) else None
    folder = PurePosixPath(path).parent.name.replace("_", " ")
    if subject or not folder:
        return subject or record.category("subject")
    record.note("no category", f"no metadata.subject: the category is the video's folder, {folder!r}")
    return folder


BENCHMARK = Benchmark(
    convert,
    "validation.json",
    subsets={
        "multiple_choice": lambda sample, record: sample.problem_type == "multiple choice",
        "open_ended": lambda sample, record: sample.problem_type == "free-form",
    },
)
