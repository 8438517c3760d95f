"""YouCook2 (arXiv 1703.09788): the steps of cooking videos, with a sentence each.

The official youcookii_annotations_trainval.json is one JSON object; videos are named VIDEO_ID.mp4:

    {"database": {"GLd3aX16zBg": {"subset": "training", "duration": 241.62, "recipe_type": "113",
        "annotations": [{"id": 0, "segment": [90, 102], "sentence": "spread margarine on two slices of white bread"},
                        {"id": 1, "segment": [114, 127], "sentence": "place a slice of cheese on the bread"}]}}}

Its recipe type is the category. Videos of all subsets are given; take the validation ones out where they are to be a
test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from pydantic import Field

from video_thinker.datasets.sources.base import (
    CaptionedVideo,
    Duration,
    Row,
    Seconds,
    SourceRow,
    Text,
    check,
    guarded,
    read_object,
    usable_segments,
)


class Step(Row):
    """One step of a recipe."""

    segment: tuple[Seconds, Seconds]
    sentence: Text


class Video(Row):
    """The fields of one video."""

    annotations: list[Step] = Field(min_length=1)
    duration: Duration | None = None
    recipe_type: str | int = ""


def read(path: Path) -> Iterator[SourceRow]:
    """Give the captioned videos of the official file."""
    for video_id, value in read_object(path, "database").items():
        yield from guarded(partial(convert, video_id), value, f"{path}: {video_id}")


def convert(video_id: str, value: object, location: str) -> Iterable[SourceRow]:
    """Turn one video into captioned segments."""
    row = check(Video, value, location)
    spans = [(*step.segment, step.sentence) for step in row.annotations]
    segments, notes = usable_segments(spans, row.duration, location)
    return [
        *notes,
        CaptionedVideo(
            video_id, f"{video_id}.mp4", "youcook2", segments, row.duration, str(row.recipe_type), location=location
        ),
    ]
