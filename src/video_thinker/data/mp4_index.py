"""The packets of an mp4 or mov file from the tables in its head, without reading the file through. Torch-free.

FFmpeg keeps the tables with edit lists applied (`stream.index_entries`): decoding times, key frames, what is hidden. It
does not give out how much later each frame is shown than decoded, so that is read from the box `ctts` (ISO/IEC
14496-12, 8.6.1.3). The result is compared with packets from the start and the end of the file; the reader compares
every further one that it decodes.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from video_thinker.data.video_index import PacketTable
from video_thinker.errors import DecodeError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

LARGEST_HEAD = 256 * 2**20
SHOWN_OTHERWISE = (
    "which the bundled FFmpeg does not show as a player does; play it and record it anew, or give the parts as files"
)
MAY_BE_LOST = (b"mfra", b"free", b"skip", b"udta", b"meta", b"uuid")
"""Boxes that hold no frames and stand at the end of a file."""
COMPARED = 8
"""Packets that are compared with the tables, at the start and at the end."""
ENDS = 64
"""Entries that are compared at each end, and between them: no codec reorders more than 16 frames."""


def read_tables(path: Path, container: InputContainer, stream: VideoStream) -> PacketTable | None:
    """Make the table of packets from a file's head; `None` where that does not tell them all, surely.

    The container is left somewhere else than it stood.
    """
    if "mp4" not in container.format.name.split(","):
        return None
    samples = _read_samples(path, stream.id)
    if len(stream.index_entries) < 2 * COMPARED or samples is None:
        return None
    rows = _whole_track(samples, stream) or _edited_track(samples, stream, path.stat().st_size)
    first = next((packet for packet in container.demux(stream) if packet.size), None)
    if rows is None or first is None or first.pts is None:
        return None
    dts, size, key, hidden, offset = rows
    pts = dts + offset + (first.pts - int(dts[0]) - int(offset[0]))
    duration = np.append(np.diff(dts), first.duration or 0)
    table = PacketTable(pts, dts, duration, size, key, ~hidden)
    return table if _holds(table, container, stream) else None


@dataclass(frozen=True, slots=True)
class _Samples:
    """The samples of a track as its boxes list them, each (samples,): bytes, decoding time, and how much later shown.

    `key` marks those that decoding can start at; `edits` counts the parts of them that an edit list shows.
    """

    size: np.ndarray
    dts: np.ndarray
    offset: np.ndarray
    key: np.ndarray
    edits: int


_Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of each packet (P,): decoding time, bytes, whether it is a key frame, whether it is hidden, how much later shown."""


def _whole_track(samples: _Samples, stream: VideoStream) -> _Rows | None:
    """Take the samples as they are where FFmpeg has each of them and hides none.

    One edit hides samples at the start or at the end only, so looking there and at some between is enough. Asking
    FFmpeg for each entry would take most of the time that a look into a long file takes.
    """
    entries, count = stream.index_entries, len(samples.size)
    if len(entries) != count or samples.edits > 1:
        return None
    shift = entries[0].timestamp - int(samples.dts[0])
    looked_at = {*range(min(ENDS, count)), *range(max(0, count - ENDS), count), *range(0, count, count // ENDS + 1)}
    for place in looked_at:
        entry = entries[place]
        if entry.is_discard or (entry.timestamp, entry.size, entry.is_keyframe) != (
            samples.dts[place] + shift,
            samples.size[place],
            samples.key[place],
        ):
            return None
    return samples.dts + shift, samples.size, samples.key, np.zeros(count, dtype=bool), samples.offset


def _edited_track(samples: _Samples, stream: VideoStream, num_bytes: int) -> _Rows | None:
    """Take FFmpeg's entries, one after the other, which leave out or hide what an edit list does not show."""
    entries = [(e.timestamp, e.size, e.is_keyframe, e.is_discard, e.pos) for e in stream.index_entries]
    dts, size, key, hidden, position = (np.array(column) for column in zip(*entries, strict=True))
    if (position + size).max() > num_bytes:
        return None  # the file is cut off
    offset = _offsets_of(size, samples.size, samples.offset)
    return None if offset is None else (dts, size, key, hidden, offset)


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


def read_head(path: Path) -> memoryview | None:
    """Read the box that describes all tracks (`moov`); `None` where there is not just one, or not all of it."""
    with path.open("rb") as file:
        found = [(start, length) for name, start, length in _top_boxes(file) if name == b"moov"]
        if len(found) != 1 or found[0][1] > LARGEST_HEAD:
            return None
        start, length = found[0]
        file.seek(start)
        return memoryview(file.read(length))


def cut_fragment(path: Path) -> str:
    """Say that an mp4 file in fragments ends in the middle of one, as half a download does; empty if it does not.

    Its head lists no frames, so that FFmpeg reads what there is. A file that ends exactly behind a fragment cannot be
    told from a whole one by its boxes; `stated_fragments_s` may tell it by its length.
    """
    with path.open("rb") as file:
        tops = list(_top_boxes(file))
        num_bytes = file.seek(0, 2)
    if not any(name == b"moof" for name, _, _ in tops):
        return ""
    name, start, length = tops[-1]
    if start + length == num_bytes or name in MAY_BE_LOST:
        return ""
    return f"it ends in the middle of a fragment (box {name.decode('latin-1')!r} at byte {start - 8})"


def stated_fragments_s(path: Path) -> float | None:
    """Read how long all fragments of an mp4 file are together, in seconds (the box `mehd`, ISO/IEC 14496-12, 8.8.2).

    `None` where the head does not say.
    """
    moov = read_head(path)
    mehd, mvhd = (None, None) if moov is None else (_inside(moov, b"mvex", b"mehd"), _inside(moov, b"mvhd"))
    if mehd is None or mvhd is None:
        return None
    (scale,) = struct.unpack_from(">I", mvhd, 20 if mvhd[0] else 12)
    (length,) = struct.unpack_from(">Q" if mehd[0] else ">I", mehd, 4)
    return float(length / scale) if scale and length else None


def _read_samples(path: Path, track_id: int) -> _Samples | None:
    """Read what the head of a file lists of a track; `None` where it does not list all, or the file is cut off."""
    with path.open("rb") as file:
        tops = list(_top_boxes(file))
    if any(name == b"moof" for name, _, _ in tops):
        return None  # in fragments: the head does not list them
    moov = read_head(path)
    if moov is None or max(start + length for _, start, length in tops) > path.stat().st_size:
        return None
    for name, trak in _boxes(moov):
        if name == b"trak" and _track_id(trak) == track_id:
            table = _inside(trak, b"mdia", b"minf", b"stbl")
            try:
                return None if table is None else _samples_of(table, sum(start >= 0 for _, start in _edits(trak)))
            except (struct.error, ValueError, IndexError):  # damaged; FFmpeg goes by the rest
                return None
    return None


def _samples_of(stbl: memoryview, edits: int) -> _Samples | None:
    boxes = dict(_boxes(stbl))
    if b"stsz" not in boxes or b"stts" not in boxes:
        return None
    fixed, count = struct.unpack_from(">II", boxes[b"stsz"], 4)
    size = np.full(count, fixed) if fixed else np.frombuffer(boxes[b"stsz"], ">u4", count, 12).astype(np.int64)
    steps = _runs(boxes[b"stts"], ">u4")
    offset = _runs(boxes[b"ctts"], ">i4") if b"ctts" in boxes else np.zeros(count, dtype=np.int64)
    if len(steps) != count or len(offset) != count:
        return None
    key = np.ones(count, dtype=bool)
    if b"stss" in boxes:
        (num_keys,) = struct.unpack_from(">I", boxes[b"stss"], 4)
        key[:] = False
        key[np.frombuffer(boxes[b"stss"], ">u4", num_keys, 8).astype(np.int64) - 1] = True
    return _Samples(size, np.cumsum(steps) - steps, offset, key, edits)


def _runs(box: memoryview, kind: str) -> np.ndarray:
    """Spell out a box of pairs, how often and which value."""
    (count,) = struct.unpack_from(">I", box, 4)
    pairs = np.frombuffer(box, kind, 2 * count, 8).reshape(-1, 2).astype(np.int64)
    spelled: np.ndarray = np.repeat(pairs[:, 1], pairs[:, 0])
    return spelled


def check_edits(path: Path, track_id: int, shown_s: float, frame_s: float) -> None:
    """Refuse an edit list that FFmpeg does not show as it says (ISO/IEC 14496-12, 8.6.6).

    FFmpeg shows frames in a pause that is not at the start, and where parts are shown in another order than they are
    stored, it may give two frames the same time.

    Args:
        path: An mp4 or mov file.
        track_id: Number of the video's track.
        shown_s: How long the frames are that FFmpeg gives.
        frame_s: How long one frame usually stays.

    Raises:
        DecodeError: it is such a list.
    """
    moov = read_head(path)
    tracks = [] if moov is None else [box for name, box in _boxes(moov) if name == b"trak"]
    trak = next((box for box in tracks if _track_id(box) == track_id), None)
    mvhd = None if moov is None else _inside(moov, b"mvhd")
    if trak is None or mvhd is None:
        return
    (scale,) = struct.unpack_from(">I", mvhd, 20 if mvhd[0] else 12)
    edits = list(itertools.dropwhile(lambda edit: edit[1] < 0, _edits(trak)))
    if len(edits) < 2 or not scale or not all(length for length, _ in edits):
        return
    told_s = sum(length for length, _ in edits) / scale
    if any(start < 0 for _, start in edits):
        raise DecodeError(f"its edit list has a pause behind its start, {SHOWN_OTHERWISE}")
    if abs(told_s - shown_s) > 1.01 * frame_s:
        raise DecodeError(
            f"its edit list puts {len(edits)} parts together to {told_s:.2f} s, of which {shown_s:.2f} s come out: the "
            f"parts lie in an order {SHOWN_OTHERWISE}"
        )


def _edits(trak: memoryview) -> list[tuple[int, int]]:
    """Read a track's edit list: how long each edit is, in units of the film, and its start; below 0 is a pause."""
    elst = _inside(trak, b"edts", b"elst")
    if elst is None:
        return []
    (count,) = struct.unpack_from(">I", elst, 4)
    row = ">Qqi" if elst[0] else ">Iii"
    rows = (struct.unpack_from(row, elst, 8 + number * struct.calcsize(row)) for number in range(count))
    return [(length, start) for length, start, _ in rows]


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
        yield name, place + head, length - head
        place += length
