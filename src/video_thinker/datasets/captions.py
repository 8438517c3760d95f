"""Videos with captioned segments -> grounding and captioning items, for ActivityNet Captions and YouCook2.

Each segment becomes a grounding item (when does this happen? graded by temporal IoU), and each video one captioning
item (what happens, moment by moment?), whose gold answer is all captions in the file's order. A captioning item is
graded as free-form text; its gold segments are there for figures that compare the captions of a trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from video_thinker.data.raw_files import RawRow, iter_rows
from video_thinker.data.texts import brief
from video_thinker.datasets.base import Item, Record, as_text
from video_thinker.datasets.files import read_json_object
from video_thinker.datasets.items import captioning, grounding, segment
from video_thinker.errors import DataError

GROUNDING, CAPTIONING = "grounding", "captioning"
ALL_SEGMENTS = "all segments"


def read_videos(path: Path) -> Iterator[RawRow | DataError]:
    """Read a JSON object of videos by id, as it is or under "database"; any other file as rows (JSON list or JSONL).

    A video's row gets its id as `video_id`.
    """
    videos = read_json_object(path)
    if videos is None or "problem_id" in videos:
        yield from iter_rows(path)
        return
    database = videos.get("database")
    videos = database if isinstance(database, dict) else videos
    for number, (video_id, video) in enumerate(videos.items(), start=1):
        value = {"video_id": video_id, **video} if isinstance(video, dict) else video
        yield RawRow(f"{path} (entry {number}, {video_id!r})", value)


def split_segments(
    record: Record, steps: Sequence[tuple[object, object]], topic: str = "", **fields: Any
) -> Iterator[Record]:
    """Make the records of a video's grounding items and, last, that of its captioning item.

    `steps` are the raw ([start, end], sentence) of the video, `topic` says what it is about. `fields` are the items'
    own: path, data source, duration. `category` is the kind of item, followed by " (CATEGORY)" if the fields name one.
    """
    of_video = {"video_id": record.id("video_id"), "topic": topic, "item": fields}
    for number, step in enumerate(steps, start=1):
        yield record.part(f"segment {number}", {**of_video, "number": number, "steps": [step]})
    yield record.part(ALL_SEGMENTS, {**of_video, "steps": list(steps)})


def is_of_all_segments(record: Record) -> bool:
    """Tell whether a record is that of a video's captioning item."""
    return record.name == ALL_SEGMENTS


def convert_segments(record: Record) -> Item:
    """Make the item of a record of `split_segments`: grounding for one segment, captioning for all."""
    video, steps, fields = record.text("video_id"), record.sequence("steps"), record.mapping("item")
    number = record.fields.get("number")
    kind = GROUNDING if number else CAPTIONING
    category = f"{kind} ({fields['category']})" if fields.get("category") else kind
    item = {**fields, "problem_id": f"{video}-{number or CAPTIONING}", "category": category}
    segments = [_segment(record, times, sentence) for times, sentence in steps]
    if not number:
        if not any(part["caption"] for part in segments):
            raise record.error("no sentence", "a captioned video has sentences")
        return captioning(segments, **item)
    if not segments[0]["caption"]:
        raise record.error(f"the sentence is {brief(steps[0][1])}", "a segment's sentence is a text that is not empty")
    start_s, end_s, caption = (segments[0][key] for key in ("start_s", "end_s", "caption"))
    return grounding(record, caption, start_s, end_s, gold_caption=caption, **item)


def _segment(record: Record, times: object, sentence: object) -> Item:
    caption = as_text(sentence) or ""
    if not caption and "number" not in record.fields:
        record.note("no sentence", f"the sentence {brief(sentence)} is left out of the captions")
    start_s, end_s = times if isinstance(times, list) and len(times) == 2 else (None, None)
    return segment(start_s, end_s, caption)
