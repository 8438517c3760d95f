r"""TempCompass (arXiv 2403.00476): speed, direction, order and change, asked in four ways.

One official file for each way (multi-choice.json, yes_no.json, caption_matching.json; give one, or the folder) is one
JSON object of videos with their aspects:

    {"1034419625": {"direction": [{"question": "What is the direction?\nA. to the left\nB. to the right",
                                   "answer": "B. to the right"}]}}

or parquet, a question a row: `video_id`, `question`, `answer`, `dim` (the aspect). Questions that are matched with a
caption have options like "Caption A: …" or "Option 1: …": they become A and B, the captions their texts. Yes-or-no
questions become a choice between these two words. captioning.json cannot be graded here: a language model reads the
caption and answers `mc_question` from it. The category is the way and the aspect, "yes_no (speed)". Videos are named
VIDEO_ID.mp4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from video_thinker.data.raw_files import RawRow, iter_rows
from video_thinker.data.texts import brief
from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.files import in_folder, read_json_object
from video_thinker.datasets.inline_options import split_inline_options
from video_thinker.datasets.items import LETTERS, comparable, letter_of, multiple_choice, read_options
from video_thinker.errors import DataError

_CAPTION = re.compile(r"^((?:Caption|Sentence|Option|Description) (?:[A-Z]|\d+))[:.)] ?(.*)$", re.MULTILINE)
MULTI_CHOICE, YES_NO, CAPTION_MATCHING = "multi-choice", "yes_no", "caption_matching"


def read(path: Path) -> Iterator[RawRow | DataError]:
    """Read a JSON object of videos, or rows with one question each."""
    videos = read_json_object(path)
    if videos is None or "question" in videos:
        yield from iter_rows(path)
        return
    for number, (video_id, aspects) in enumerate(videos.items(), start=1):
        value = {"video_id": video_id, "aspects": aspects} if isinstance(aspects, dict) else aspects
        yield RawRow(f"{path} (entry {number}, {video_id!r})", value)


def split(record: Record) -> Iterable[Record | DataError]:
    """Give the questions of a video, or the one of a row."""
    if "aspects" not in record.fields:
        yield record
        return
    for aspect, questions in record.mapping("aspects").items():
        for index, question in enumerate(questions if isinstance(questions, list) else [questions], start=1):
            try:
                part = record.part(f"{aspect} {index}", question)
            except DataError as error:
                yield error
            else:
                shared = {key: record.fields.get(key) for key in ("video_id", "file_name")}
                yield record.part(part.name, {**part.fields, **shared, "dim": aspect})


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    if "mc_question" in record.fields:
        raise record.error("mc_question", "a language model grades captions here", "give the other three files")
    path, question = record.video("video_id", ".mp4"), record.text("question")
    if record.text("answer").strip(" .").lower() in ("yes", "no"):
        way = YES_NO
        item = {
            **multiple_choice({}, record.text("answer").strip(" .").lower(), problem=question),
            "options": ["yes", "no"],
        }
    elif captions := list(_CAPTION.finditer(question)):
        way = CAPTION_MATCHING
        options = read_options(record, [caption.group(2) for caption in captions])
        problem = question[: captions[0].start()].strip()
        item = multiple_choice(options, _matched(record, captions), problem=problem)
    else:
        way = MULTI_CHOICE
        problem, options = split_inline_options(record, question)
        item = multiple_choice(options, letter_of(record, "answer", options), problem=problem)
    aspect = record.category("dim")
    name = record.name.replace(" ", "-") or f"row{record.fields.get('file_row', record.number)}"
    return {
        **item,
        "problem_id": f"{path.removesuffix('.mp4')}-{way}-{name}",
        "path": path,
        "data_source": "tempcompass",
        "category": f"{way} ({aspect})" if aspect else way,
    }


def _matched(record: Record, captions: list[re.Match[str]]) -> str:
    """Return the letter of the caption that is the answer: its label counts, else its text."""
    answer = record.text("answer")
    label = _CAPTION.fullmatch(answer)
    wanted = label.group(1) if label else answer.rstrip(".:")
    for letter, caption in zip(LETTERS, captions, strict=False):
        if wanted.lower() in (caption.group(1).lower(), caption.group(1).split()[1].lower()):
            return letter
    found = [
        letter
        for letter, caption in zip(LETTERS, captions, strict=False)
        if comparable(caption.group(2)) == comparable(answer)
    ]
    if len(found) != 1:
        raise record.error(f"answer={brief(answer)}", "it is one of the captions in the question")
    return found[0]


BENCHMARK = Benchmark(
    convert,
    "multi-choice.json, yes_no.json, caption_matching.json, or their folder, or parquet",
    split,
    {
        MULTI_CHOICE: lambda sample, record: sample.category.startswith(MULTI_CHOICE),
        YES_NO: lambda sample, record: sample.category.startswith(YES_NO),
        CAPTION_MATCHING: lambda sample, record: sample.category.startswith(CAPTION_MATCHING),
    },
    in_folder(read),
    remarks=("The official scorer asks a language model about answers that its rules cannot read.",),
)
