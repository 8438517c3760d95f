"""When each frame of a file is shown, found without decoding where the container knows, by decoding where it does not.

Times are kept in the stream's own unit (`time_base` seconds), as the container stores them: whole numbers compare
exactly. Shapes: P packets in the order of the file, T frames in the order in which a player shows them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
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


@dataclass(frozen=True, slots=True)
class PacketTable:
    """The packets of a stream, in the order of the file; every array has shape (P,).

    `pts` and `dts` are presentation and decoding times, `NO_TIME` where the container states none; `size` counts bytes.
    `key` marks packets that decoding can start at, `shown` those whose frame a player shows (an edit list may hide it,
    VP8 has frames that only serve as references).
    """

    pts: np.ndarray
    dts: np.ndarray
    duration: np.ndarray
    size: np.ndarray
    key: np.ndarray
    shown: np.ndarray

    def find(self, packet: Packet) -> int | None:
        """Give the place of a packet, or `None` where it is not (or not only once) in the table."""
        same = np.flatnonzero((self.pts == _time(packet.pts)) & (self.size == packet.size))
        return int(same[0]) if len(same) == 1 else None

    def is_at(self, packet: Packet, place: int) -> bool:
        """Say whether a packet is the one at a place. Decoding times may differ after a seek (Matroska has none)."""
        return place < len(self.pts) and self.pts[place] == _time(packet.pts) and self.size[place] == packet.size


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The frames of a stream as a player shows them.

    Attributes:
        pts: (T,) presentation times in units of the time base, strictly ascending.
        end_pts: When the last frame leaves the screen.
        packets: The packets behind them.
        decoded: Whether the frames were counted by decoding them all.
        by_number: The frames carry no usable times of their own: `pts[n]` is the time of the nth that a decoder gives.
    """

    pts: np.ndarray
    end_pts: int
    packets: PacketTable
    decoded: bool = False
    by_number: bool = False


def read_packets(container: InputContainer, stream: VideoStream) -> PacketTable:
    """Read all packets of a stream, from where the container stands, without decoding them."""
    is_vp8 = stream.codec_context.name == "vp8"
    rows = []
    for packet in container.demux(stream):
        if packet.size == 0:  # the end, or (avi) "the frame before stays"
            continue
        shown = not packet.is_discard and not (is_vp8 and _is_hidden_vp8(packet))
        rows.append(
            (_time(packet.pts), _time(packet.dts), packet.duration or 0, packet.size, packet.is_keyframe, shown)
        )
    if not rows:
        raise DecodeError("it holds no video frames")
    return PacketTable(*(np.array(column) for column in zip(*rows, strict=True)))


def index_by_packets(packets: PacketTable, start: Iterable[VideoFrame]) -> FrameIndex | None:
    """List the frames by the packets' times; `None` where these do not say when every frame is shown.

    Args:
        packets: All packets of the stream.
        start: Decodes the stream from its start; read only where it does not begin with a key frame, as after a cut:
            what a decoder cannot make there, nobody sees.
    """
    shown = packets.shown
    pts = packets.pts[shown]
    if (pts == NO_TIME).any() or len(np.unique(pts)) < len(pts):
        return None
    first_key = int(packets.key.argmax())  # 0 without any
    leading = shown & (packets.pts < packets.pts[first_key])
    leading[:first_key] |= shown[:first_key]
    if leading.any():
        made = _made_at_start(start, int(packets.pts[first_key]))
        keep = shown & (~leading | np.isin(packets.pts, made))
        packets = replace(packets, shown=keep)
        pts = packets.pts[keep]
    if not len(pts):
        return None
    last = int(np.flatnonzero(packets.shown)[pts.argmax()])
    return FrameIndex(np.sort(pts), int(pts.max()) + _last_duration(pts, int(packets.duration[last])), packets)


def index_by_decoding(
    packets: PacketTable, frames: Iterable[VideoFrame], rate: Fraction | None, unit: Fraction
) -> FrameIndex:
    """Decode all frames once and keep their times.

    Args:
        packets: All packets of the stream.
        frames: Decodes the stream from its start.
        rate: Frames a second, for a stream without any times.
        unit: Seconds per unit of time.

    Raises:
        DecodeError: the frames have no times that a player could go by.
    """
    found = [(frame.pts, frame.duration or 0) for frame in frames if not frame.is_corrupt]
    if not found:
        raise DecodeError("no frame of it can be decoded")
    duration = found[-1][1]
    if all(time is not None for time, _ in found):
        pts = np.array([time for time, _ in found], dtype=np.int64)
        if (np.diff(pts) > 0).all():
            return FrameIndex(pts, int(pts[-1]) + _last_duration(pts, duration), packets, decoded=True)
        if not _has_slots(packets):
            raise DecodeError(_disorder(pts, unit))
    pts = _times_by_number(packets, len(found), rate, unit)
    return FrameIndex(pts, int(pts[-1]) + _last_duration(pts, 0), packets, decoded=True, by_number=True)


def _times_by_number(packets: PacketTable, count: int, rate: Fraction | None, unit: Fraction) -> np.ndarray:
    """Times of frames that carry none: the nth is shown in the nth slot of the file, as avi wants it."""
    dts = packets.dts[packets.shown]
    if _has_slots(packets) and count <= len(dts):
        return dts[:count]
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
    return int(np.median(np.diff(np.sort(pts))))


def _is_hidden_vp8(packet: Packet) -> bool:
    """Read `show_frame` of a VP8 frame header (RFC 6386, section 9.1)."""
    return not bytes(packet)[0] & 0x10


def _time(value: int | None) -> int:
    return NO_TIME if value is None else value
