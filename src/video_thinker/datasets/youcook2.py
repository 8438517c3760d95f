"""YouCook2 (arXiv 1703.09788): cooking videos with captioned steps.

Video-Thinker's in-domain test has 262 multiple-choice questions that a language model wrote from the captions; which
videos they are on is not published. Items in that schema (see `activitynet.py`) are taken over as they are. The
official youcookii_annotations_trainval.json is one JSON object:

    {"database": {"GLd3aX16zBg": {"subset": "validation", "duration": 241.62, "recipe_type": "113",
      "annotations": [{"id": 0, "segment": [90, 102], "sentence": "spread margarine on two slices of white bread"}]}}}

A video gives one grounding item for each step and one captioning item. The category is the kind of item and the split
of the video, "grounding (validation)". Subsets: `grounding` and `captioning`, of all videos, and
`validation_grounding` and `validation_captioning`. Videos are named VIDEO_ID.mp4.

The synthesis takes the captioned videos of all splits, with the recipe type as their category; take the validation
ones out where they are to be a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from video_thinker.datasets import video_r1
from video_thinker.datasets.annotated import SourceRow, read_captioned_videos
from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.captions import CAPTIONING, GROUNDING, convert_segments, read_videos, split_segments


def split(record: Record) -> Iterable[Record]:
    """Give the one question of an item, or those of a captioned video."""
    if "problem_id" in record.fields:
        return [record]
    steps = [step if isinstance(step, dict) else {} for step in record.sequence("annotations")]
    return split_segments(
        record,
        [(step.get("segment"), step.get("sentence")) for step in steps],
        record.optional_text("recipe_type"),
        path=record.video("video_id", ".mp4"),
        data_source="youcook2",
        category=record.category("subset"),
        duration_s=record.duration_s(),
    )


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    if "problem_id" in record.fields:
        return {"data_source": "youcook2", **video_r1.convert(record)}
    return convert_segments(record)


SUBSETS = {
    GROUNDING: lambda sample, record: sample.category.startswith(GROUNDING),
    CAPTIONING: lambda sample, record: sample.category.startswith(CAPTIONING),
    "validation_grounding": lambda sample, record: sample.category == f"{GROUNDING} (validation)",
    "validation_captioning": lambda sample, record: sample.category == f"{CAPTIONING} (validation)",
}

BENCHMARK = Benchmark(
    convert, "youcookii_annotations_trainval.json, or items in data/README.md's schema", split, SUBSETS, read_videos
)


def read(path: Path) -> Iterator[SourceRow]:
    """Give the captioned videos of the official file."""
    return read_captioned_videos(BENCHMARK, path, "youcook2")
