"""Which accepted items are kept, and on which side of the split: near-duplicates removed, no video on both sides.

Both work on small records in the order of the results, so that the items themselves stay on disk.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasketch import MinHash, MinHashLSH

NUM_PERM = 128
SHINGLE_WORDS = 3

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Record:
    """What the selection needs of an item. `video` names the video's content, `stratum` source and category."""

    id: str
    video: str
    stratum: str
    shingles: frozenset[str]


def make_record(row: Mapping[str, Any]) -> Record:
    """Make the record of an accepted row of results.jsonl."""
    item = row["item"]
    captions = [segment["caption"] for segment in item.get("segments", [])]
    text = " ".join([item["problem"], *item["options"], item["solution"], *captions])
    stratum = f"{item['data_source']}/{item.get('category', '')}"
    return Record(row["id"], row["video"]["digest"], stratum, frozenset(shingles(text)))


def shingles(text: str) -> set[str]:
    """Cut a text into runs of three words, in lower case."""
    words = _WORD.findall(text.casefold())
    runs = {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)}
    return runs or set(words)


def find_duplicates(records: Sequence[Record], threshold: float, scope: str) -> dict[str, str]:
    """Find items that are a copy, or nearly, of an earlier one.

    Candidates come from MinHash LSH (datasketch); what counts is their true Jaccard similarity.

    Args:
        records: In order; of two alike the first stays.
        threshold: Least similarity of duplicates; 0 finds none.
        scope: "video" compares items on the same video content, "all" compares all.

    Returns:
        Id of the duplicate -> id of the one that stays.
    """
    duplicates: dict[str, str] = {}
    if threshold == 0:
        return duplicates
    kept: dict[str, Record] = {}
    # A lower threshold in the index finds candidates that its approximation would miss.
    index = MinHashLSH(threshold=max(0.1, threshold - 0.2), num_perm=NUM_PERM)
    for record in records:
        group = record.video if scope == "video" else ""  # part of each shingle: groups have none in common
        signature = MinHash(num_perm=NUM_PERM, seed=1)
        signature.update_batch([f"{group} {shingle}".encode() for shingle in sorted(record.shingles)])
        alike = [kept[name] for name in index.query(signature)]
        first = min((one.id for one in alike if _alike(one, record, threshold, scope)), default=None)
        if first is None:
            index.insert(record.id, signature)
            kept[record.id] = record
        else:
            duplicates[record.id] = first
    return duplicates


def _alike(a: Record, b: Record, threshold: float, scope: str) -> bool:
    return (scope == "all" or a.video == b.video) and jaccard(a, b) >= threshold


def jaccard(a: Record, b: Record) -> float:
    """Share of the shingles of either that both have."""
    union = len(a.shingles | b.shingles)
    return len(a.shingles & b.shingles) / union if union else 1.0


def held_out_videos(records: Sequence[Record], test_share: float, seed: int) -> set[str]:
    """Choose the videos of the test side, stratified by source and category.

    Videos are walked stratum by stratum, in a random order within each that depends on the seed and their content only;
    one goes to the test side when that brings the items so far closer to `test_share`. So every stratum is split, up to
    its last video, and what a small one cannot give the next one makes up for.
    """
    sizes: dict[str, int] = defaultdict(int)
    strata: dict[str, str] = {}
    for record in records:
        sizes[record.video] += 1
        strata.setdefault(record.video, record.stratum)
    held_out: set[str] = set()
    num_items = num_held_out = 0
    for video in sorted(sizes, key=lambda name: (strata[name], _rank(name, seed))):
        num_items += sizes[video]
        if num_held_out + sizes[video] / 2 <= test_share * num_items and test_share > 0:
            held_out.add(video)
            num_held_out += sizes[video]
    return held_out


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
