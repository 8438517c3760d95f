"""When each frame of a file is shown, found without decoding where the container knows, by decoding where it does not.

Times are kept in the stream's own unit (`time_base` seconds), as the container stores them: whole numbers compare
exactly. Shapes: P packets in the order of the file, T frames in the order in which a player shows them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from video_thinker.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that the container does not state."""

RESTARTING = {"mpegts", "mpeg"}
"""Formats of FFmpeg, by name, that are put together by writing one file behind another."""

RESTART_S = 0.5
"""A decoding time this much before the last one is a clock that started again."""

MOST_REPEATS = 0.1
"""Share of frames that may have the time of another one; nobody sees the earlier of the two."""

MOST_LATE = 0.1
"""Share of frames that may come behind one of a later time, where parts that overlap were put together.

Players drop them: when such a frame is decoded, the later one is on screen.
"""


MOST_REORDERED = 32
"""Frames that a decoder may hold back, and more."""


@dataclass(frozen=True, slots=True)
class PacketTable:
    """The packets of a stream, in the order of the file; every array has shape (P,).

    `pts` and `dts` are presentation and decoding times, `NO_TIME` where the container states none; `size` counts bytes.
    `key` marks packets that decoding can start at, `shown` those whose frame a player shows (an edit list may hide it,
    VP8 has frames that only serve as references). `shift` is what was added to the times that the file states, where
    its clock starts again on the way.
    """

    pts: np.ndarray
    dts: np.ndarray
    duration: np.ndarray
    size: np.ndarray
    key: np.ndarray
    shown: np.ndarray
    shift: np.ndarray | None = None

    @property
    def first_key(self) -> int:
        """Place of the first packet that decoding can start at; 0 where none is marked."""
        return int(self.key.argmax())

    def find(self, packet: Packet[VideoStream]) -> int | None:
        """Give the place of a packet, or `None` where it is not (or not only once) in the table."""
        same = np.flatnonzero((self.pts == _time(packet.pts)) & (self.size == packet.size))
        return int(same[0]) if len(same) == 1 else None

    def is_at(self, packet: Packet[VideoStream], place: int) -> bool:
        """Say whether a packet is the one at a place. Decoding times may differ after a seek (Matroska has none)."""
        if place >= len(self.pts) or self.size[place] != packet.size:
            return False
        shift = 0 if self.shift is None or packet.pts is None else int(self.shift[place])
        return int(self.pts[place]) == _time(packet.pts) + shift

    def place_in_time(self, packet: Packet[VideoStream], place: int) -> None:
        """Give a packet the times that the table has for it."""
        if self.shift is not None and self.pts[place] != NO_TIME:
            packet.pts, packet.dts = int(self.pts[place]), int(self.dts[place])


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The frames of a stream as a player shows them.

    Attributes:
        pts: (T,) presentation times in units of the time base, strictly ascending.
        end_pts: When the last frame leaves the screen.
        packets: The packets behind them.
        decoded: Whether the frames were counted by decoding them all.
        repeats: Whether frames share a time: the last one of each is listed.
        late: Times of frames that nobody sees, since one of a later time is decoded before them.
        by_number: The frames carry no usable times of their own: `pts[n]` is the time of the nth that a decoder gives.
    """

    pts: np.ndarray
    end_pts: int
    packets: PacketTable
    decoded: bool = False
    repeats: bool = False
    late: frozenset[int] = frozenset()
    by_number: bool = False


def read_packets(container: InputContainer, stream: VideoStream) -> PacketTable:
    """Read all packets of a stream, from where the container stands, without decoding them."""
    is_vp8 = stream.codec_context.name == "vp8"
    rows = []
    is_cut = False
    for packet in container.demux(stream):
        if packet.size == 0:  # the end, or (avi) "the frame before stays"
            continue
        shown = not packet.is_discard and not (is_vp8 and _is_hidden_vp8(packet))
        is_cut = packet.is_corrupt
        rows.append(
            (_time(packet.pts), _time(packet.dts), packet.duration or 0, packet.size, packet.is_keyframe, shown)
        )
    if is_cut:
        rows.pop()  # the file ends within it
    if not rows:
        raise DecodeError("it holds no video frames")
    packets = PacketTable(*(np.array(column) for column in zip(*rows, strict=True)))
    return _on_one_clock(packets, _unit_s(stream)) if set(container.format.name.split(",")) & RESTARTING else packets


def _on_one_clock(packets: PacketTable, unit_s: float) -> PacketTable:
    """Join parts of a stream whose clock starts again (transport streams that were put together), like players."""
    if (packets.dts == NO_TIME).any() or (packets.pts == NO_TIME).any():
        return packets
    back = np.diff(packets.dts) < -RESTART_S / unit_s
    if not back.any():
        return packets
    steps = np.diff(packets.dts)
    usual = int(np.median(steps[~back]))
    shift = np.concatenate([[0], np.cumsum(np.where(back, usual - steps, 0))])
    return replace(packets, pts=packets.pts + shift, dts=packets.dts + shift, shift=shift)


def index_by_packets(packets: PacketTable, start: Iterable[VideoFrame]) -> FrameIndex | None:
    """List the frames by the packets' times; `None` where these do not say when every frame is shown.

    Args:
        packets: All packets of the stream.
        start: Decodes the stream from its start; read only where it does not begin with a key frame, as after a cut:
            what a decoder cannot make there, nobody sees.
    """
    late = _late_packets(packets)
    if late.sum() > MOST_LATE * packets.shown.sum():
        return None
    packets = replace(packets, shown=packets.shown & ~late)
    if (untimed := packets.pts == NO_TIME).any():  # Matroska tells no time that is negative
        start = list(islice(start, int(np.flatnonzero(untimed)[-1]) + MOST_REORDERED))
        if untimed.all() or any(frame.pts is None for frame in start):
            return None
        packets = replace(packets, shown=packets.shown & ~untimed)
    shown = packets.shown
    pts = np.sort(packets.pts[shown])
    if not len(pts) or pts[0] == NO_TIME or not np.diff(pts).all():
        return None
    first_key = packets.first_key
    leading = shown & (packets.pts < packets.pts[first_key])
    leading[:first_key] |= shown[:first_key]
    if leading.any():
        made = _made_at_start(start, int(packets.pts[first_key]))
        packets = replace(packets, shown=shown & (~leading | np.isin(packets.pts, made)))
        pts = np.sort(packets.pts[packets.shown])
    if not len(pts):
        return None
    stated = int(packets.duration[packets.pts == pts[-1]].max())
    return FrameIndex(
        pts, int(pts[-1]) + _last_duration(pts, stated), packets, late=frozenset(packets.pts[late].tolist())
    )


def _late_packets(packets: PacketTable) -> np.ndarray:
    """Mark frames that are not later than one decoded before the key frame that they follow; shape (P,).

    All frames before a key frame in the file are shown before those that follow it, leading pictures included.
    """
    pts = np.where(packets.shown, packets.pts, NO_TIME)
    latest = np.concatenate([[NO_TIME], np.maximum.accumulate(pts)[:-1]])
    key = np.maximum.accumulate(np.where(packets.key, np.arange(len(pts)), 0))
    late: np.ndarray = packets.shown & (pts != NO_TIME) & (pts <= latest[key])
    return late


def index_by_decoding(
    packets: PacketTable, times_are_real: bool, frames: Iterable[VideoFrame], rate: Fraction | None, unit: Fraction
) -> FrameIndex:
    """Decode all frames once and keep their times.

    Args:
        packets: All packets of the stream.
        times_are_real: Whether the container has times of presentation at all.
        frames: Decodes the stream from its start.
        rate: Frames a second, for a stream without any times.
        unit: Seconds per unit of time.

    Raises:
        DecodeError: the frames have no times that a player could go by.
    """
    found = [(frame.pts, frame.duration or 0, frame.dts) for frame in frames if not frame.is_corrupt]
    if not found:
        raise DecodeError("no frame of it can be decoded")
    duration = found[-1][1]
    if all(time is not None for time, _, _ in found):
        pts = np.array([time for time, _, _ in found], dtype=np.int64)
        is_late = pts < np.maximum.accumulate(pts)
        late = frozenset(pts[is_late].tolist())
        if is_late.sum() <= MOST_LATE * len(pts):
            pts = pts[~is_late]
        steps = np.diff(pts)
        if (steps >= 0).all() and (steps == 0).sum() <= MOST_REPEATS * len(pts):
            end_pts = int(pts[-1]) + _last_duration(np.unique(pts), duration)
            return FrameIndex(np.unique(pts), end_pts, packets, decoded=True, repeats=not steps.all(), late=late)
        if times_are_real and not (packets.pts == packets.dts).all():
            raise DecodeError(_disorder(pts, unit))
    counted = _times_before_zero([time for time, _, _ in found])
    if counted is None and _has_slots(packets):
        counted = _times_by_output([_time(dts) for _, _, dts in found])
    pts = _times_by_number(packets, len(found), rate, unit) if counted is None else counted
    return FrameIndex(pts, int(pts[-1]) + _last_duration(pts, 0), packets, decoded=True, by_number=True)


def _times_before_zero(times: list[int | None]) -> np.ndarray | None:
    """Count back from the first frame that has a time: Matroska tells no negative ones. Players show these frames."""
    known = [time for time in times if time is not None]
    num_before = len(times) - len(known)
    if len(known) < 2 or any(time is not None for time in times[:num_before]) or (np.diff(known) <= 0).any():
        return None
    step = int(np.median(np.diff(known)))
    pts: np.ndarray = np.concatenate([known[0] - step * np.arange(num_before, 0, -1), known])
    return pts


def _times_by_output(dts: list[int]) -> np.ndarray | None:
    """Times of frames that carry none: each is shown when the decoder gives it, as players do with avi.

    Where packets are missing, the frames around the gap come later than their number says.

    Args:
        dts: Decoding time of the packet after which the decoder gave each frame; `NO_TIME` at the end of the file.
    """
    known = np.array(dts)[np.array(dts) != NO_TIME]
    if len(known) < 2 or NO_TIME in dts[: len(known)] or (np.diff(known) <= 0).any():
        return None
    step = int(np.median(np.diff(known)))
    pts: np.ndarray = np.concatenate([known, known[-1] + step * np.arange(1, len(dts) - len(known) + 1)])
    return pts


def _times_by_number(packets: PacketTable, count: int, rate: Fraction | None, unit: Fraction) -> np.ndarray:
    """Times of frames that carry none: the nth is shown in the nth slot of the file, as avi wants it."""
    dts = packets.dts[packets.shown]
    if _has_slots(packets) and count <= len(dts):
        slots: np.ndarray = dts[:count]
        return slots
    if (dts == NO_TIME).all() and rate:
        return np.array([round(number / rate / unit) for number in range(count)], dtype=np.int64)
    raise DecodeError(
        f"its {count} frames carry no times, and its {len(dts)} packets do not tell them; rewrite the file: "
        "ffmpeg -fflags +genpts -i FILE -c copy NEW.mkv"
    )


def _has_slots(packets: PacketTable) -> bool:
    dts = packets.dts[packets.shown]
    return bool(dts[0] != NO_TIME and (np.diff(dts) > 0).all())


def _disorder(pts: np.ndarray, unit: Fraction) -> str:
    wrong = int((np.diff(pts) <= 0).argmax()) + 1
    before_s, time_s = (float((pts[i] - pts[0]) * unit) for i in (wrong - 1, wrong))
    what = "the same time as" if pts[wrong] == pts[wrong - 1] else "an earlier time than"
    return (
        f"frame {wrong} ({time_s:.3f} s) has {what} the one before ({before_s:.3f} s), so its times say nothing; "
        "encode it anew: ffmpeg -i FILE NEW.mp4"
    )


def _made_at_start(frames: Iterable[VideoFrame], key_pts: int) -> list[int]:
    made: list[int] = []
    for frame in frames:
        if frame.pts is None or frame.pts >= key_pts:
            break
        if not frame.is_corrupt:
            made.append(frame.pts)
    return made


def _last_duration(pts: np.ndarray, stated: int) -> int:
    """Units that the last frame stays: as stated, else as long as its kind usually does."""
    if stated > 0 or len(pts) < 2:
        return stated
    return int(np.median(np.diff(pts)))


def _is_hidden_vp8(packet: Packet[VideoStream]) -> bool:
    """Read `show_frame` of a VP8 frame header (RFC 6386, section 9.1)."""
    return not bytes(packet)[0] & 0x10


def _unit_s(stream: VideoStream) -> float:
    return float(stream.time_base or 0)


def _time(value: int | None) -> int:
    return NO_TIME if value is None else value
