"""The default reader: seek to the key frame before, decode forward, know every frame by its own time. Torch-free.

A container is demuxed once, without decoding, for the times of its frames (`video_index`). A frame is then looked for
by its time, from the last key frame that is shown before it. Nothing that a container claims is believed unseen: a seek
that lands elsewhere than the index says, or a frame that does not come, leads to an earlier key frame, then to the
start of the file, then to an index made by decoding everything. That costs time, and never gives another frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.error import InvalidDataError
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from video_thinker.data.containers import (
    counting_goes_wrong,
    has_no_presentation_times,
    stated_duration_s,
    time_unit,
)
from video_thinker.data.index_memory import FileVersion, IndexMemory
from video_thinker.data.mp4_index import check_edits, cut_fragment, read_tables
from video_thinker.data.packet_source import PacketSource, TablesAreWrongError
from video_thinker.data.pixels import check_colors, displayed_size, special_pixels, to_rgb, turn_of
from video_thinker.data.video_index import (
    MOST_REORDERED,
    FrameIndex,
    index_by_decoding,
    index_by_packets,
    read_packets,
)
from video_thinker.errors import DecodeError

DROPS_WHOLE_FRAMES = ("h264", "hevc")
"""Decoders that, told to skip frames without successors, skip just those and keep all others as they are."""

INDEXES: IndexMemory[tuple[FrameIndex, bool]] = IndexMemory(lambda known: len(known[0].packets.pts))
"""Of the files opened last, and whether each was made of the tables in the file's head."""


class PyavReader:
    """An opened file; see `video_thinker.data.readers.VideoReader`."""

    backend = "pyav"

    # Where the decoder stands: frames it gave, and the time and number of the last one.
    _ready: deque[av.VideoFrame]
    _drained: bool
    _skip: Literal["DEFAULT", "NONREF"]
    _given_pts: int | None
    _given_number: int

    def __init__(self, path: Path) -> None:
        """Open `path`, index its frames and decode the first one.

        Raises:
            DecodeError: it holds no video that can be read.
            FFmpegError: it is no media file, or a damaged one.
        """
        self._path = path
        self._reformatter = VideoReformatter()
        self._source = PacketSource(path)
        self.codec: str = self._stream.codec_context.name
        self._unit = time_unit(self._stream)
        self._version = FileVersion.of(path)
        if (known := INDEXES.get(self._version)) is None:
            self._index_file()
            if "mp4" in self._container.format.name.split(","):
                frame_s = self.duration_s / max(1, len(self.times_s))
                check_edits(path, self._stream.id, self.duration_s, frame_s)
        else:
            index, self._source.by_tables = known
            self._set_index(index)
            self._forget_frames()
            self._drained = True  # so that the next frame is sought
        self._read_first()

    @property
    def _container(self) -> InputContainer:
        return self._source.container

    @property
    def _stream(self) -> VideoStream:
        return self._source.stream

    def _index_file(self) -> None:
        source = self._source
        tables = read_tables(self._path, source.container, source.stream) if source.by_tables else None
        source.by_tables = tables is not None
        if tables is None:
            source.reopen()
        source.packets = tables or read_packets(source.container, source.stream)
        index = (
            None
            if has_no_presentation_times(source.container, source.stream)
            else index_by_packets(source.packets, self._decode_all())
        )
        self._set_index(index or self._index_by_decoding())
        if source.by_tables:
            source.start_reading()
            self._forget_frames()
            self._drained = True  # so that the next frame is sought
        else:
            self._start_over()

    def _set_index(self, index: FrameIndex) -> None:
        INDEXES.keep(self._version, (index, self._source.by_tables))
        self._index, self._source.packets = index, index.packets
        self._keys = np.flatnonzero(index.packets.key)
        self.times_s = (index.pts - index.pts[0]) * float(self._unit)
        self.duration_s = float((index.end_pts - index.pts[0]) * self._unit)
        self.fps = len(index.pts) / self.duration_s if self.duration_s > 0 else 0.0

    def _read_first(self) -> None:
        frame = self._first_frame()
        check_colors(frame)
        aspect = self._stream.sample_aspect_ratio
        self.width, self.height = displayed_size(frame.width, frame.height, aspect, turn_of(frame))

    def _first_frame(self) -> av.VideoFrame:
        while (frame := next(self._frames([0]), None)) is None:
            pass  # the index was made anew
        return frame

    @property
    def stream_index(self) -> int:
        """Number of the video's stream in the container."""
        return int(self._stream.index)

    def special_pixels(self) -> str:
        """Say what must be done to the pictures beyond turning them by quarters; empty if nothing."""
        return special_pixels(self._first_frame())

    def counting_goes_wrong(self) -> str:
        """Say why a frame cannot be found by counting from a key frame on; empty if it can."""
        return counting_goes_wrong(self._path, self._container, self._stream, self._index)

    @cached_property
    def stated_duration_s(self) -> float | None:
        """Until when the container states that the video goes, from its first frame on; `None` if it does not."""
        first_s = float(self._index.pts[0] * self._unit)
        return stated_duration_s(self._path, self._container, self._stream, first_s, self.duration_s)

    @cached_property
    def cut_off(self) -> str:
        """Where the file ends too early, if its boxes tell that; else empty."""
        return cut_fragment(self._path) if "mp4" in self._container.format.name.split(",") else ""

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """Decode the frames on screen at ascending times, one at a time.

        Yields:
            The frame's own time in seconds, and its pixels uint8 (H, W, 3): upright, but with the file's pixel aspect.

        Raises:
            DecodeError: one cannot be decoded.
        """
        wanted = np.asarray(times_s, dtype=np.float64)
        done = 0
        while done < len(wanted):
            numbers = np.searchsorted(self.times_s, wanted[done:] + 1e-6, side="right") - 1
            numbers = np.maximum(numbers, 0).tolist()
            for number, frame in zip(numbers, self._frames(numbers), strict=False):
                yield float(self.times_s[number]), turn_of(frame).apply(to_rgb(frame, self._reformatter))
                done += 1

    def _frames(self, numbers: Sequence[int]) -> Iterator[av.VideoFrame]:
        """Decode frames by ascending number. Ends early when the index turned out wrong and was made anew."""
        index = self._index
        wanted = {int(index.pts[number]) for number in numbers}
        frame = None
        for position, number in enumerate(numbers):
            if frame is None or number != numbers[position - 1]:
                following = numbers[position + 1] if position + 1 < len(numbers) else None
                try:
                    frame = self._find(number, following, wanted)
                except TablesAreWrongError:
                    self._source.by_tables = False
                    self._index_file()
                    return
            if frame is None:
                if index.decoded:
                    raise DecodeError(f"codec {self.codec}: the frame at {self.times_s[number]:.3f} s is damaged")
                self._set_index(self._index_by_decoding())
                return
            yield frame

    def _find(self, number: int, following: int | None, wanted: set[int]) -> av.VideoFrame | None:
        """Find a frame; `None` if no decoder pass, not even one from the start, gives one of its time."""
        if self._index.by_number:
            return self._frame_by_number(number)
        index = self._index
        pts = int(index.pts[number])
        keys = self._keys_before(pts)
        if self._can_go_on(pts, keys[-1] if keys else 0):
            frame = self._run_to(pts, following, wanted)
            if frame is not None:
                return frame
        back = 1
        while self._source.seekable and index.packets.shift is None and len(keys) >= back:
            if self._seek(keys[-back]):
                frame = self._run_to(pts, following, wanted)
                if frame is not None:
                    return frame
            back *= 2
        if keys and self._source.seekable and self._seek(keys[-1]) and (frame := self._find_out_of_order(pts)):
            return frame
        self._start_over()
        return self._run_to(pts, following, wanted)

    def _find_out_of_order(self, pts: int) -> av.VideoFrame | None:
        """Look further for a frame that the decoder gives after later ones, as where parts were joined."""
        left = MOST_REORDERED
        while left and (packet := self._source.read()) is not None:
            self._drained = True  # so that the next frame is sought
            left -= packet.pts is not None and packet.pts > pts
            for frame in self._decode(packet):
                if frame.pts == pts and not frame.is_corrupt:
                    return frame
        return next(
            (frame for frame in self._source.decoder.decode(None) if frame.pts == pts and not frame.is_corrupt), None
        )

    def _keys_before(self, pts: int) -> list[int]:
        packets = self._index.packets
        places = np.flatnonzero(packets.shown & (packets.pts == pts))
        keys = self._keys[: np.searchsorted(self._keys, places[0], side="right")] if len(places) else self._keys
        return [int(key) for key in keys[packets.pts[keys] <= pts]]

    def _can_go_on(self, pts: int, key: int) -> bool:
        """Whether the decoder stands before a frame and behind, or right at, the key frame it starts from."""
        return not self._drained and self._given_pts is not None and self._given_pts < pts and key <= self._source.place

    def _seek(self, key: int) -> bool:
        """Go to a key frame by its place among the packets; `False` if the container leads elsewhere."""
        found = self._source.seek(key)
        self._forget_frames()
        return found

    def _run_to(self, pts: int, following: int | None, wanted: set[int]) -> av.VideoFrame | None:
        """Decode on until the frame of a time comes; `None` if a later one does, or the stream ends."""
        next_pts = int(self._index.pts[following]) if following is not None else None
        key_pts, fed = self._index.packets.pts[self._keys], False
        while True:
            while self._ready:
                frame = self._ready[0]
                if frame.pts is None or frame.pts > pts:
                    return None
                if self._given_pts is not None and frame.pts < self._given_pts and frame.pts not in self._index.late:
                    return None  # out of order: these are not the times of the frames
                self._given_pts = frame.pts
                if frame.pts == pts:
                    if self._index.repeats and self._is_repeated(pts):
                        self._ready.popleft()
                        continue
                    return None if frame.is_corrupt else frame
                self._ready.popleft()
            if self._drained:
                return None
            if fed and (next_pts is None or ((key_pts > pts) & (key_pts <= next_pts)).any()):
                self._drain()
                continue
            packet = self._source.read()
            if packet is None:
                self._drain()
                continue
            fed = fed or packet.pts == pts
            self._feed(packet, wanted)

    def _is_repeated(self, pts: int) -> bool:
        """Whether the frame behind the first ready one has the same time: it replaces that at once."""
        while len(self._ready) < 2 and not self._drained:
            packet = self._source.read()
            if packet is None:
                self._drain()
            else:
                self._ready.extend(self._decode(packet))
        return len(self._ready) > 1 and self._ready[1].pts == pts

    def _feed(self, packet: av.Packet[VideoStream], wanted: set[int]) -> None:
        if self.codec in DROPS_WHOLE_FRAMES and not self._index.decoded:
            skip: Literal["DEFAULT", "NONREF"] = "DEFAULT" if packet.pts in wanted else "NONREF"
            if skip != self._skip:
                self._source.decoder.skip_frame = self._skip = skip
        self._ready.extend(self._decode(packet))

    def _decode(self, packet: av.Packet[VideoStream]) -> list[av.VideoFrame]:
        """Decode a packet. What cannot be decoded before the first key frame is the rest of a cut: nobody sees it."""
        try:
            return self._source.decoder.decode(packet)
        except InvalidDataError as error:
            packets = self._source.packets
            if self._source.place <= packets.first_key:
                return []
            start = int(packets.pts[packets.shown].min())
            time_s = float((packet.pts - start) * self._unit) if packet.pts is not None else 0.0
            raise DecodeError(f"codec {self.codec}: the data at {max(0.0, time_s):.2f} s is damaged") from error

    def _drain(self) -> None:
        self._ready.extend(self._source.decoder.decode(None))
        self._drained = True

    # By number.

    def _frame_by_number(self, number: int) -> av.VideoFrame | None:
        if self._drained or self._given_number >= number:
            self._start_over()
        while True:
            while self._ready:
                frame = self._ready.popleft()
                if frame.is_corrupt:
                    continue
                self._given_number += 1
                if self._given_number == number:
                    return frame
            if self._drained:
                return None
            packet = self._source.read()
            if packet is None:
                self._drain()
            else:
                self._ready.extend(self._decode(packet))

    # From the start.

    def _start_over(self) -> None:
        self._source.reopen()
        self._forget_frames()

    def _forget_frames(self) -> None:
        self._ready = deque()
        self._drained = False
        self._skip = "DEFAULT"
        self._given_pts = None
        self._given_number = -1

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        """Decode everything from the start."""
        self._start_over()
        while (packet := self._source.read()) is not None:
            yield from self._decode(packet)
        yield from self._source.decoder.decode(None)

    def _index_by_decoding(self) -> FrameIndex:
        unreal = has_no_presentation_times(self._container, self._stream)
        packets, rate = self._source.packets, self._stream.guessed_rate
        index = index_by_decoding(packets, not unreal, self._decode_all(), rate, self._unit)
        self._start_over()
        return index
