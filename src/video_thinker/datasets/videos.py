"""Your own videos, as JSONL or a JSON list, with captions or with questions.

With captioned segments only, a question is written for each video (at least two segments are needed):

    {"path": "kitchen/031.mp4", "segments": [{"start_s": 4.0, "end_s": 9.5, "caption": "Milk is poured in."},
                                             {"start_s": 12, "end_s": 20, "caption": "Two eggs are added."}]}

With a question, a row is an item of data/README.md with gold segments; segments without captions are captioned from
their frames. `id` (or `problem_id`), `category` and `data_source` are optional where there is no question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from pydantic import AliasChoices, Field

from video_thinker.data.annotations import parse_row
from video_thinker.datasets.annotated import (
    CaptionedVideo,
    Duration,
    Id,
    Row,
    Seconds,
    SourceRow,
    Text,
    check,
    read_rows,
    usable_segments,
)
from video_thinker.errors import DataError


class CaptionedSegment(Row):
    """One captioned segment."""

    start_s: Seconds
    end_s: Seconds
    caption: Text


class Video(Row):
    """The fields of a video without a question."""

    path: Text
    segments: list[CaptionedSegment] = Field(min_length=1)
    id: Id | None = Field(default=None, validation_alias=AliasChoices("id", "problem_id"))
    data_source: str = "videos"
    category: str = ""
    duration_s: Duration | None = None


def read(path: Path) -> Iterator[SourceRow]:
    """Give the videos and questions of a file."""
    return read_rows(path, convert)


def convert(value: object, location: str) -> Iterable[SourceRow]:
    """Turn one row into a captioned video, or into a sample if it has a question."""
    if isinstance(value, dict) and "problem" in value:
        sample = parse_row(value, location)
        if len(sample.media) != 1 or sample.only_stills or not sample.segments:
            raise DataError(
                f"{location}: {len(sample.media)} media and {len(sample.segments)} segments (sample {sample.id!r}); "
                "a trace is written for one video with gold segments; add the segments or leave the row out."
            )
        return [sample]
    row = check(Video, value, location)
    spans = [(segment.start_s, segment.end_s, segment.caption) for segment in row.segments]
    segments, notes = usable_segments(spans, row.duration_s, location)
    name = row.id or str(PurePosixPath(row.path).with_suffix(""))
    video = CaptionedVideo(name, row.path, row.data_source, segments, row.duration_s, row.category, location)
    return [*notes, video]
