"""The packets of a file's video, read from its start or from a key frame, each checked against a table. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from av.error import FFmpegError
from av.stream import Discard
from av.video.stream import VideoStream

from video_thinker.data.containers import IO_TIMEOUT_S, best_stream, check_kind, decoder_for
from video_thinker.data.video_index import NO_TIME, PacketTable
from video_thinker.errors import DecodeError

SEEKS_BY_PTS = {"mp4", "matroska"}
"""Formats of FFmpeg, by name, whose seeks compare times of presentation; the others' compare times of decoding."""


class TablesAreWrongError(Exception):
    """The file's packets are not those that the tables in its head announce."""


class PacketSource:
    """An opened container and the place in it.

    Attributes:
        container: The file.
        stream: Its video.
        decoder: What its packets are to be decoded with.
        packets: The table of its packets; to be set before one is read.
        by_tables: Whether that table was made of the file's head.
        seekable: Whether seeks lead where the table says, as far as is known.
        place: How many packets lie before the next one.
    """

    packets: PacketTable
    place: int
    _demuxed: Iterator[av.Packet[VideoStream]]
    _pending: av.Packet[VideoStream] | None
    _skip_to: int
    _from_start: bool

    def __init__(self, path: Path) -> None:
        """Open a file. Raises as `PyavReader`."""
        self._path = path
        self.by_tables = self.seekable = True
        self._open()
        check_kind(path, self.container, self.stream)

    def _open(self) -> None:
        self.container = av.open(str(self._path), timeout=IO_TIMEOUT_S)
        self.stream = best_stream(self.container)
        self.decoder = decoder_for(self.stream)
        for stream in self.container.streams:
            if stream.index != self.stream.index:
                stream.discard = Discard.all
        self.start_reading()

    def reopen(self) -> None:
        """Go to the start. Opening anew is the only way there that holds for every container."""
        self.container.close()
        self._open()

    def start_reading(self) -> None:
        """Read on from where the container stands, taking this for the first packet."""
        self._demuxed = self.container.demux(self.stream)
        self._pending = None
        self.place = self._skip_to = 0
        self._from_start = True

    def seek(self, key: int) -> bool:
        """Go to a key frame by its place among the packets; `False` if the container leads elsewhere."""
        packets = self.packets
        if key == 0 and not self.by_tables:
            self.reopen()
            return True
        by_pts = set(self.container.format.name.split(",")) & SEEKS_BY_PTS
        times = [int(t) for t in (packets.pts[key], packets.dts[key]) if t != NO_TIME]
        try:
            self.container.seek(times[0] if by_pts else min(times), stream=self.stream)
        except FFmpegError:
            self.seekable = False
            return False
        self.decoder.flush_buffers()  # PyAV does so for the streams' own
        self.start_reading()
        self._from_start = False
        for packet in self._demuxed:
            if packet.size == 0:
                continue
            place = packets.find(packet)
            if place is None or place > key:
                return False
            self.place, self._skip_to = place, key
            self._pending = packet
            return True
        return False

    def read(self) -> av.Packet[VideoStream] | None:
        """Read a packet and check that it is the one that the table has in its place; `None` at the end, or if not.

        Raises:
            TablesAreWrongError: it is not, and the table was made of the file's head.
            DecodeError: it is not, though every packet from the start was read.
        """
        while True:
            packet, self._pending = self._pending, None
            if packet is None:
                packet = next((packet for packet in self._demuxed if packet.size), None)
            if packet is None or self.place == len(self.packets.pts):
                return None
            if not self.packets.is_at(packet, self.place):
                if self.by_tables:
                    raise TablesAreWrongError
                if self._from_start:
                    raise DecodeError("its packets change from one reading to the next")
                self.seekable = False
                return None
            self.packets.place_in_time(packet, self.place)
            self.place += 1
            if self.place > self._skip_to:
                return packet
