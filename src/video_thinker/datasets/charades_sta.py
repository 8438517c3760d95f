"""Charades-STA (arXiv 1705.02101): temporal grounding in Charades videos.

One line of the official charades_sta_test.txt, times in seconds:

    3MSZA 24.3 30.4##person turn a light on.

A JSON file of rows as in TVGBench is read, too. The item asks when the sentence happens, the gold answer is the time
span, graded by temporal IoU. The text file gives no durations and no categories. Videos are named VIDEO_ID.mp4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from video_thinker.data.raw_files import RawRow, iter_rows
from video_thinker.datasets import tvgbench
from video_thinker.datasets.base import Benchmark, Item, Record
from video_thinker.datasets.items import grounding
from video_thinker.errors import DataError

_LINE = re.compile(r"(\S+) ([0-9]+(?:\.[0-9]+)?) ([0-9]+(?:\.[0-9]+)?)##\s*(\S.*)")


def read(path: Path) -> Iterator[RawRow | DataError]:
    """Read the lines of the text file, or the rows of a JSON file, told apart by the first character."""
    if not path.is_file() or path.read_text(encoding="utf-8-sig").lstrip()[:1] in ("[", "{", ""):
        yield from iter_rows(path)  # also has the words for a file that is missing or empty
        return
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            yield RawRow(f"{path}:{number}", {"line": line.strip()})


def convert(record: Record) -> Item:
    """Turn one line into a grounding item; lines have no id, so it is the video and the line's number."""
    if "line" not in record.fields:
        return {**tvgbench.convert(record), "data_source": "charades_sta"}
    line = record.text("line")
    match = _LINE.fullmatch(line)
    if match is None:
        raise record.error(f"the line {line[:120]!r}", "a line is VIDEO START END##SENTENCE")
    video, start_s, end_s, sentence = match.groups()
    return grounding(
        record,
        sentence,
        start_s,
        end_s,
        problem_id=f"{video}-{record.number}",
        path=f"{video}.mp4",
        data_source="charades_sta",
    )


BENCHMARK = Benchmark(convert, "charades_sta_test.txt, or JSON as TVGBench's", read=read)
