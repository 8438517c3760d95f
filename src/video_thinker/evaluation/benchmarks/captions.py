"""Videos with captioned segments -> grounding and captioning items, for ActivityNet Captions and YouCook2.

Each segment becomes a grounding item (when does this happen? graded by temporal IoU), and each video one captioning
item (what happens, moment by moment?), whose gold answer is all captions in the file's order. A captioning item is
graded as free-form text; its gold segments are there for figures that compare the captions of a trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from video_thinker.data.annotations import RawRow, iter_rows
from video_thinker.errors import DataError
from video_thinker.evaluation.benchmarks.base import Item, Record, captioning, grounding

GROUNDING, CAPTIONING = "grounding", "captioning"


def read_videos(path: Path) -> Iterator[RawRow | DataError]:
    """Read a JSON object of videos by id, as it is or under "database"; any other file as rows (JSON list or JSONL).

    A video's row gets its id as `video_id`.
    """
    videos = _load_object(path)
    if videos is None or "problem_id" in videos:
        yield from iter_rows(path)
        return
    if isinstance(videos.get("database"), dict):
        videos = videos["database"]
    for number, (video_id, video) in enumerate(videos.items(), start=1):
        value = {"video_id": video_id, **video} if isinstance(video, dict) else video
        yield RawRow(f"{path} (entry {number}, {video_id!r})", value)


def _load_object(path: Path) -> dict[str, Any] | None:
    """Read a file that is one JSON object that is not empty; `None` if it is not."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None  # not one JSON value: `iter_rows` reads it, or has the words for what is wrong
    return value if isinstance(value, dict) and value else None


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{path}: the key {twice!r} is there twice in one JSON object; each counts once; drop one.")
    return found


def split_segments(record: Record, segments: list[Item], **fields: Any) -> Iterable[Record]:
    """Make the records of a video's grounding items and, last, that of its captioning item.

    `fields` are the items' own: path, data source, duration. `category` is the kind of item, followed by " (CATEGORY)"
    if the fields name a category.
    """
    of_video = {"video_id": record.text("video_id"), "item": fields}
    for number, segment in enumerate(segments, start=1):
        yield record.part(f"segment {number}", {**of_video, "number": number, "segments": [segment]})
    yield record.part("all segments", {**of_video, "segments": segments})


def convert_segments(record: Record) -> Item:
    """Make the item of a record of `split_segments`: grounding for one segment, captioning for all."""
    video, segments, fields = record.text("video_id"), record.sequence("segments"), record.mapping("item")
    for segment in segments:
        if not segment["caption"]:
            raise record.error('a sentence is ""', "a segment's sentence is a text that is not empty")
    number = record.fields.get("number")
    kind = GROUNDING if number else CAPTIONING
    category = f"{kind} ({fields['category']})" if fields.get("category") else kind
    item = {**fields, "problem_id": f"{video}-{number or CAPTIONING}", "category": category}
    return grounding(segments[0]["caption"], segments, **item) if number else captioning(segments, **item)
