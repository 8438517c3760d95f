"""ActivityNet Captions (arXiv 1705.00754): captioned segments of activities.

The official file is one JSON object of videos, which are named V_ID.mp4:

    {"v_QOlSCBRmfWY": {"duration": 82.73, "timestamps": [[0.83, 19.86], [17.37, 60.81]],
                       "sentences": ["A young woman is seen standing in a room.", " The girl dances around."]}}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

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
from video_thinker.errors import DataError


class Video(Row):
    """The fields of one video."""

    duration: Duration
    timestamps: list[tuple[Seconds, Seconds]]
    sentences: list[Text]


def read(path: Path) -> Iterator[SourceRow]:
    """Give the captioned videos of the official file."""
    for video_id, value in read_object(path).items():
        yield from guarded(partial(convert, video_id), value, f"{path}: {video_id}")


def convert(video_id: str, value: object, location: str) -> Iterable[SourceRow]:
    """Turn one video into captioned segments."""
    row = check(Video, value, location)
    if len(row.timestamps) != len(row.sentences):
        raise DataError(
            f"{location}: {len(row.timestamps)} timestamps and {len(row.sentences)} sentences; each sentence has a "
            "timestamp; fix the row or leave it out."
        )
    spans = [(*times, text) for times, text in zip(row.timestamps, row.sentences, strict=True)]
    segments, notes = usable_segments(spans, row.duration, location)
    return [
        *notes,
        CaptionedVideo(video_id, f"{video_id}.mp4", "activitynet", segments, row.duration, location=location),
    ]
