"""Results -> the files of a data set: items, what was left out and why.

    OUTPUT_DIR/
      train_sft.jsonl    items with traces (`process`)        train_grpo.jsonl  the same items without
      test.jsonl         held-out items, on videos of their own, without traces
      rejected.jsonl     samples that failed, with every attempt    duplicates.jsonl  which item they repeat
      dropped.jsonl      rows and videos that could not be used     results.jsonl     all samples, in input order
      card.md card.json *.png   the data card                 run.yaml          config, versions, commit
      cache/             the replies of the models

An item is a row of data/README.md and its `provenance`. All files but results.jsonl are derived from it, and each
appears under its name only when it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from video_thinker.runs.files import replacing
from video_thinker.synthesis.pipeline import ACCEPTED, REJECTED
from video_thinker.synthesis.selection import find_duplicates, held_out_videos, make_record

RESULTS = "results.jsonl"
ITEM_FILES = ("train_sft.jsonl", "train_grpo.jsonl", "test.jsonl", "rejected.jsonl", "duplicates.jsonl")

Row = dict[str, Any]


def to_line(row: Mapping[str, Any]) -> str:
    """Write a row as a line."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to a file that appears when it is whole."""
    with replacing(path) as file:
        file.writelines(map(to_line, rows))


def read_results(folder: Path) -> Iterator[Row]:
    """Read results.jsonl row by row."""
    with (folder / RESULTS).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


@dataclass(frozen=True)
class Selection:
    """Which accepted samples are copies of which, and which videos are held out."""

    duplicates: Mapping[str, str]
    held_out: frozenset[str]

    def place(self, row: Row) -> str:
        """Say where a result goes: "train", "test", "duplicate", or its status if it was not accepted."""
        if row["status"] != ACCEPTED:
            return str(row["status"])
        if row["id"] in self.duplicates:
            return "duplicate"
        return "test" if row["video"]["digest"] in self.held_out else "train"


def select(folder: Path, *, threshold: float, scope: str, test_share: float, seed: int) -> Selection:
    """Find the duplicates and choose the held-out videos of a folder's results."""
    records = [make_record(row) for row in read_results(folder) if row["status"] == ACCEPTED]
    duplicates = find_duplicates(records, threshold, scope)
    kept = [record for record in records if record.id not in duplicates]
    return Selection(duplicates, frozenset(held_out_videos(kept, test_share, seed)))


def without_trace(row: Row) -> Row:
    """Write an item as GRPO and evaluation want it: no trace, and the true answer."""
    item = {key: value for key, value in row["item"].items() if key != "process"}
    return {**item, "solution": f"<answer>{row['gold']}</answer>"}


def write_items(folder: Path, selection: Selection) -> None:
    """Write the item files from the results, one pass each, so that memory does not grow with the set."""
    places: dict[str, tuple[str, Callable[[Row], Row]]] = {
        "train_sft.jsonl": ("train", _with_trace),
        "train_grpo.jsonl": ("train", without_trace),
        "test.jsonl": ("test", without_trace),
        "rejected.jsonl": (REJECTED, _rejected),
        "duplicates.jsonl": ("duplicate", partial(_duplicate, selection)),
    }
    for name, (place, convert) in places.items():
        write_lines(folder / name, (convert(row) for row in read_results(folder) if selection.place(row) == place))


def _with_trace(row: Row) -> Row:
    item: Row = row["item"]
    return item


def _duplicate(selection: Selection, row: Row) -> Row:
    return {"id": row["id"], "of": selection.duplicates[row["id"]]}


def _rejected(row: Row) -> Row:
    return {key: row[key] for key in ("id", "source", "reason", "video", "gold", "attempts", "item")}
