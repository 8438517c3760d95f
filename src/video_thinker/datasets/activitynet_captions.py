"""ActivityNet Captions (arXiv 1705.00754): captioned segments of activities; grounding and captioning items.

The official file is one JSON object of videos:

    {"v_QOlSCBRmfWY": {"duration": 82.73, "timestamps": [[0.83, 19.86], [17.37, 60.81]],
                       "sentences": ["A young woman is seen standing in a room.", " The girl dances around."]}}

A video gives one grounding item for each sentence and one captioning item (subsets `grounding` and `captioning`, also
the category). Videos are named V_ID.mp4. Which 1,000 caption-labelled samples Video-Thinker's grounding and captioning
tables use is not published; its figures come from the traces of multiple-choice questions on them. The synthesis takes
the captioned videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from video_thinker.datasets.annotated import SourceRow, read_captioned_videos
from video_thinker.datasets.base import Benchmark, Record
from video_thinker.datasets.captions import CAPTIONING, GROUNDING, convert_segments, read_videos, split_segments


def split(record: Record) -> Iterable[Record]:
    """Give the grounding questions of a video, and its captioning question."""
    sentences, timestamps = record.sequence("sentences"), record.sequence("timestamps")
    if len(sentences) != len(timestamps):
        raise record.error(
            f"{len(timestamps)} timestamps and {len(sentences)} sentences", "each timestamp has one sentence, a text"
        )
    return split_segments(
        record,
        list(zip(timestamps, sentences, strict=True)),
        path=record.video("video_id", ".mp4"),
        data_source="activitynet_captions",
        duration_s=record.duration_s(),
    )


SUBSETS = {
    GROUNDING: lambda sample, record: sample.category == GROUNDING,
    CAPTIONING: lambda sample, record: sample.category == CAPTIONING,
}

BENCHMARK = Benchmark(convert_segments, "val_1.json, val_2.json", split, SUBSETS, read_videos)


def read(path: Path) -> Iterator[SourceRow]:
    """Give the captioned videos of the official file."""
    return read_captioned_videos(BENCHMARK, path, "activitynet")
