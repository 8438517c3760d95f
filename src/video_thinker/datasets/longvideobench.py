"""LongVideoBench (arXiv 2407.15754): questions that refer to a moment of videos of 8 s to an hour.

One row of the official lvb_val.json (1,337; the test split has no gold):

    {"video_id": "86CxyhFV9MI", "question": "When the man …, which word is on the screen?", "candidates": ["up", "in"],
     "correct_choice": 1, "position": [854, 948], "topic_category": "NP-News-Programs", "question_category": "TOS",
     "level": "L2-Relation", "id": "86CxyhFV9MI_0", "video_path": "86CxyhFV9MI.mp4",
     "subtitle_path": "86CxyhFV9MI_en.json", "duration_group": 600, "starting_timestamp_for_subtitles": 0,
     "duration": 190.16, "view_count": 259852}

The parquet file has `option0` to `option4` in place of `candidates`, "N/A" where there is none. The category is
`question_category` (17: T2O, E3E, …). `position` counts frames: without a frame rate it gives no times, so there are
gold segments, each as long as a frame, only where a row has an `fps`. Subsets: the duration groups `15`, `60`, `600`
and `3600` (seconds, upper ends).
"""

from __future__ import annotations

from collections.abc import Iterator

from video_thinker.data.texts import brief
from video_thinker.datasets.base import Belongs, Benchmark, Item, Record, as_seconds, as_text
from video_thinker.datasets.items import letter_of_index, multiple_choice, read_options, segment

GROUPS = ("15", "60", "600", "3600")


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    options = read_options(record, _candidates(record), "candidates")
    path = record.video("video_path") if record.optional_text("video_path") else record.video("video_id", ".mp4")
    return multiple_choice(
        options,
        letter_of_index(record, "correct_choice", options),
        problem_id=record.id("id"),
        problem=record.text("question"),
        path=path,
        data_source="longvideobench",
        category=record.category("question_category"),
        duration_s=record.duration_s(),
        segments=list(_segments(record)),
    )


def _candidates(record: Record) -> object:
    if record.fields.get("candidates") is not None:
        return record.fields["candidates"]
    options = [record.fields.get(f"option{index}") for index in range(5)]
    return [None if as_text(option) == "N/A" else option for option in options]


def _segments(record: Record) -> Iterator[Item]:
    frames, rate = record.fields.get("position"), as_seconds(record.fields.get("fps"))
    if not isinstance(frames, list) or not frames:
        record.note("no times", f"position={brief(frames)}: no gold segments")
    elif not rate:
        found = f"position={brief(frames)} counts frames, and the row gives no rate: no gold segments"
        record.note("frames without a rate", found)
    else:
        for frame in frames:
            if (number := as_seconds(frame)) is None:
                record.note("unusable times", f"{brief(frame)} in position is no frame number")
            else:
                yield segment(number / rate, (number + 1) / rate)


def _in_group(group: str) -> Belongs:
    return lambda sample, record: as_text(record.fields.get("duration_group")) == group


BENCHMARK = Benchmark(
    convert,
    "lvb_val.json, or the validation parquet",
    subsets={group: _in_group(group) for group in GROUPS},
    sizes={"": 1337},
    remarks=("Subtitles are an input of the official evaluation; they are not used here.",),
)
