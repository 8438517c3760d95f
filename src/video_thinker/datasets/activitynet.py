"""ActivityNet as in Video-Thinker's in-domain test: multiple-choice items whose questions were generated.

The questions were written by a language model from the captions of ActivityNet Captions and have no official file of
their own. What is known (arXiv 2510.23473): the item schema, and that the test has 1,250 questions; which videos they
are on is not published. So items in that schema are taken over as they are (see `video_r1.py`):

    {"problem_id": "v_QOlSCBRmfWY-0", "problem": "What does she do after the dance?", "data_type": "video",
     "problem_type": "multiple choice", "options": ["A. …", "B. …"], "solution": "<answer>B</answer>",
     "path": "v_QOlSCBRmfWY.mp4", "data_source": "activitynet",
     "segments": [{"start_s": 0.83, "end_s": 19.86, "caption": "A young woman stands in a room."}]}

and the public caption file is turned into grounding and captioning items (see `activitynet_captions.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from video_thinker.datasets import activitynet_captions, video_r1
from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.captions import convert_segments, read_videos


def split(record: Record) -> Iterable[Record]:
    """Give the one question of an item, or those of a captioned video."""
    return [record] if "problem_id" in record.fields else activitynet_captions.split(record)


def convert(record: Record) -> Item:
    """Turn one question into an item."""
    if "problem_id" in record.fields:
        return {"data_source": "activitynet", **video_r1.convert(record)}
    return convert_segments(record)


BENCHMARK = Benchmark(
    convert, "items in data/README.md's schema, or val_1.json", split, activitynet_captions.SUBSETS, read_videos
)
