"""MLVU (arXiv 2406.04264): nine tasks on long videos.

One row of an official file, a JSON list for each task (1_plotQA.json, …); give one file, or the folder:

    {"video": "movie101_66.mp4", "duration": 246, "question": "What color is his hat?", "candidates": ["Yellow", "Red"],
     "answer": "Yellow", "question_type": "plotQA"}

The gold is a text; where it is not exactly one of the candidates, nobody can grade the row (in 8 of the 2,175
multiple-choice rows of dev). The test split has `question_id` and six candidates, and its gold is withheld. M-Avg is
the mean over the tasks, which are the categories. Tasks 8 and 9 (subPlot, summary) are free text: the official score is
a language model's, here they are graded by ROUGE. Subsets: `multiple_choice` and `generation`. Videos are named by
`video`; the official folders of the tasks are found by `--media-root`.
"""

from __future__ import annotations

from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.files import in_folder
from video_thinker.datasets.items import free_form, letter_of_text, multiple_choice, read_options

GENERATION = ("subPlot", "summary")


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    task = record.optional_text("question_type")
    if not task:
        task = record.text("file_name")
        record.note("no category", f"no question_type: the category is the file's name, {task!r}")
    path = record.video("video")
    fields = {
        "problem_id": record.optional_text("question_id") or f"{task}-{record.fields['file_row']}",
        "problem": record.text("question"),
        "path": path,
        "data_source": "mlvu",
        "category": task,
        "duration_s": record.duration_s(),
    }
    if record.fields.get("candidates") is None and (task in GENERATION or "scoring_points" in record.fields):
        record.note("graded by ROUGE", "free text: the official score is a language model's")
        return free_form(record.text("answer"), **fields)
    options = read_options(record, record.fields.get("candidates"), "candidates")
    return multiple_choice(options, letter_of_text(record, "answer", options), **fields)


BENCHMARK = Benchmark(
    convert,
    "the JSON list of a task (1_plotQA.json …), or the folder of all",
    subsets={
        "multiple_choice": lambda sample, record: sample.problem_type == "multiple choice",
        "generation": lambda sample, record: sample.problem_type == "free-form",
    },
    read=in_folder(),
    sizes={"multiple_choice": 2175},
)
