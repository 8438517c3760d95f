"""The packets of an mp4 or mov file from the tables in its head, without reading the file through. Torch-free.

FFmpeg keeps the tables with edit lists applied (`stream.index_entries`): decoding times, key frames, what is hidden. It
does not give out how much later each frame is shown than decoded, so that is read from the box `ctts` (ISO/IEC
14496-12, 8.6.1.3). The result is compared with packets from the start and the end of the file; the reader compares
every further one that it decodes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from video_thinker.data.video_index import PacketTable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

LARGEST_HEAD = 256 * 2**20
COMPARED = 8
"""Packets that are compared with the tables, at the start and at the end."""


def read_tables(path: Path, container: InputContainer, stream: VideoStream) -> PacketTable | None:
    """Make the table of packets from a file's head; `None` where that does not tell them all, surely.

    The container is left somewhere else than it stood.
    """
    if "mp4" not in container.format.name.split(","):
        return None
    entries = [(e.timestamp, e.size, e.is_keyframe, e.is_discard, e.pos) for e in stream.index_entries]
    boxes = _sample_boxes(path, stream.id)
    if len(entries) < 2 * COMPARED or boxes is None:
        return None
    dts, size, key, hidden, position = (np.array(column) for column in zip(*entries, strict=True))
    if (position + size).max() > path.stat().st_size:
        return None  # the file is cut off
    offsets = _offsets_of(size, *boxes)
    first = next((packet for packet in container.demux(stream) if packet.size), None)
    if offsets is None or first is None or first.pts is None:
        return None
    pts = dts + offsets + (first.pts - int(dts[0]) - int(offsets[0]))
    duration = np.append(np.diff(dts), first.duration or 0)
    table = PacketTable(pts, dts, duration, size, key, ~hidden)
    return table if _holds(table, container, stream) else None


def _holds(table: PacketTable, container: InputContainer, stream: VideoStream) -> bool:
    """Compare a table with packets from the start and from the last key frame on."""
    last_key = int(np.flatnonzero(table.key)[-1])
    for key in (0, last_key):
        container.seek(int(table.dts[key]), stream=stream)
        place = None
        for read, packet in enumerate(container.demux(stream)):
            if not packet.size:
                break
            place = table.find(packet) if place is None else place + 1
            if place is None or not table.is_at(packet, place) or packet.is_discard == table.shown[place]:
                return False
            if packet.is_keyframe != table.key[place] or packet.dts != table.dts[place]:
                return False
            if read == 0 and place > key:
                return False
            table.duration[place] = packet.duration or table.duration[place]
            if read >= COMPARED and key == 0:
                break
        else:
            return False
        if key == last_key and place != len(table.pts) - 1:
            return False
    return True


def _offsets_of(size: np.ndarray, sizes: np.ndarray, offsets: np.ndarray) -> np.ndarray | None:
    """Find the run of samples that the entries are (an edit list leaves some out) and give their offsets."""
    if len(offsets) != len(sizes):
        return None
    for start in np.flatnonzero(sizes[: len(sizes) - len(size) + 1] == size[0]).tolist():
        if np.array_equal(sizes[start : start + len(size)], size):
            run: np.ndarray = offsets[start : start + len(size)]
            return run
    return None


def _sample_boxes(path: Path, track_id: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Read sizes in bytes, and presentation minus decoding time, of all samples of a track; both (samples,)."""
    with path.open("rb") as file:
        tops = list(_top_boxes(file))
        names = [name for name, _, _ in tops]
        if names.count(b"moov") != 1 or b"moof" in names:
            return None  # in fragments: the head does not list them
        start, length = next((start, length) for name, start, length in tops if name == b"moov")
        if length > LARGEST_HEAD:
            return None
        file.seek(start)
        moov = memoryview(file.read(length))
    for name, trak in _boxes(moov):
        if name == b"trak" and _track_id(trak) == track_id:
            table = _inside(trak, b"mdia", b"minf", b"stbl")
            return None if table is None else _tables(table)
    return None


def _tables(stbl: memoryview) -> tuple[np.ndarray, np.ndarray] | None:
    boxes = dict(_boxes(stbl))
    if b"stsz" not in boxes:
        return None
    fixed, count = struct.unpack_from(">II", boxes[b"stsz"], 4)
    sizes = np.full(count, fixed) if fixed else np.frombuffer(boxes[b"stsz"], ">u4", count, 12).astype(np.int64)
    if b"ctts" not in boxes:
        return sizes, np.zeros(count, dtype=np.int64)
    (runs,) = struct.unpack_from(">I", boxes[b"ctts"], 4)
    pairs = np.frombuffer(boxes[b"ctts"], ">i4", 2 * runs, 8).reshape(-1, 2).astype(np.int64)
    return sizes, np.repeat(pairs[:, 1], pairs[:, 0])


def _track_id(trak: memoryview) -> int | None:
    tkhd = _inside(trak, b"tkhd")
    if tkhd is None:
        return None
    return int(struct.unpack_from(">I", tkhd, 20 if tkhd[0] else 12)[0])


def _inside(box: memoryview, *names: bytes) -> memoryview | None:
    for name in names:
        found = dict(_boxes(box)).get(name)
        if found is None:
            return None
        box = found
    return box


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """List the boxes in a box: name and content."""
    place = 0
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if length < 8 or place + length > len(data):  # 64-bit lengths are for media data only
            return
        yield name, data[place + 8 : place + length]
        place += length


def _top_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """List the boxes of a file: name, where the content starts, its length."""
    end = file.seek(0, 2)
    place = 0
    while place + 8 <= end:
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            (length,), head = struct.unpack(">Q", file.read(8)), 16
        elif length == 0:
            length = end - place
        if length < head:
            return
        yield name, place + head, min(length, end - place) - head
        place += length
