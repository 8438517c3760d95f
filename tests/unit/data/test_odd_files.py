"""Files that are put together, cut or damaged in ways that players take without a word."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from tests.coded_clips import Clip, number_of
from tests.unit.data.test_readers import CLOSED, OPEN, VP8, X265_OPEN
from video_thinker.data import pyav_reader
from video_thinker.data.readers import open_reader
from video_thinker.errors import DecodeError

NEGATIVE = {"avoid_negative_ts": "disabled"}


def read_all(path):
    reader = open_reader(path)
    frames = [number_of(pixels) for _, pixels in reader.frames_at(reader.times_s.tolist())]
    return reader, frames


def copy_packets(source, path, choose, shift_s=Fraction(0), options=None):
    """Copy the packets that `choose` picks of a list, as (packet, seconds to add) pairs."""
    with av.open(str(source)) as read, av.open(str(path), "w", options=options or {}) as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        for packet in choose([packet for packet in read.demux(stream) if packet.size]):
            if shift_s:
                packet.pts += round(shift_s / stream.time_base)
                packet.dts += round(shift_s / stream.time_base)
            packet.stream = copy
            written.mux(packet)
    return path


@pytest.fixture
def no_decoding(monkeypatch):
    """Fail where a whole file would be decoded for its index, which takes minutes for a long one."""
    monkeypatch.setattr(pyav_reader, "index_by_decoding", None)


def test_avi_with_a_gap_of_packets(tmp_path):
    """Frames are reordered and carry no times: the two that the decoder holds back come when the gap is over."""
    source = Clip("whole.avi", options=CLOSED).write(tmp_path)
    path = copy_packets(source, tmp_path / "gap.avi", lambda packets: packets[:12] + packets[24:])
    reader, frames = read_all(path)
    assert frames == [*range(12), *range(24, 40)]
    assert reader.times_s * 10 == pytest.approx([*range(10), 22, 23, *range(24, 40)], abs=0.02)


def test_matroska_with_negative_times(tmp_path):
    """FFmpeg gives no times for what is before 0; players show it."""
    source = Clip("whole.mp4", options=CLOSED).write(tmp_path)
    path = copy_packets(source, tmp_path / "negative.mkv", list, Fraction(-3, 2), NEGATIVE)
    reader, frames = read_all(path)
    assert frames == list(range(40)) and reader.times_s == pytest.approx(np.arange(40) / 10, abs=0.002)
    assert [number_of(pixels) for _, pixels in reader.frames_at([0.5, 3.1])] == [5, 31]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_cut_open_group_in_matroska_is_indexed_without_decoding(tmp_path, no_decoding, codec):
    options = OPEN if codec == "libx264" else X265_OPEN
    source = Clip("whole.mp4", codec=codec, options=options).write(tmp_path)
    start_s = Fraction(12, 10)

    def from_second_key(packets):
        return packets[[packet.is_keyframe for packet in packets].index(True, 1) :]

    path = copy_packets(source, tmp_path / "cut.mkv", from_second_key, -start_s, NEGATIVE)
    reader, frames = read_all(path)
    assert frames == list(range(12, 40)) and reader.times_s == pytest.approx(np.arange(28) / 10, abs=0.002)


def test_a_frame_that_the_decoder_gives_too_late_is_shown_at_its_time(tmp_path, no_decoding):
    """An open group joined to the end: its key frame comes out of the decoder before the last frames of the others."""
    source = Clip("whole.mp4", codec="libx265", options=X265_OPEN).write(tmp_path)
    path = tmp_path / "joined.mkv"
    with av.open(str(source)) as read, av.open(str(source)) as again, av.open(str(path), "w") as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        packets = [packet for packet in read.demux(stream) if packet.size]
        key = [packet for packet in again.demux(again.streams.video[0]) if packet.is_keyframe][1]
        key.pts, key.dts = round(4 / stream.time_base), packets[-1].dts + 1
        for packet in [*packets, key]:
            packet.stream = copy
            written.mux(packet)
    reader, frames = read_all(path)
    assert frames == [*range(40), 12] and reader.times_s == pytest.approx(np.arange(41) / 10, abs=0.002)
    assert [number_of(pixels) for _, pixels in reader.frames_at(reader.times_s[[37, 39, 40]].tolist())] == [37, 39, 12]


def test_frames_of_vp8_that_only_serve_as_references_are_not_counted(tmp_path, no_decoding):
    source = Clip("whole.webm", codec="libvpx", options=VP8).write(tmp_path)

    def hide_the_tenth(packets):
        shown = packets[10]
        data = bytearray(bytes(shown))
        data[0] &= ~0x10  # show_frame (RFC 6386, section 9.1)
        hidden = av.Packet(bytes(data))
        hidden.pts, hidden.dts, hidden.time_base = shown.pts, shown.dts, shown.time_base
        return [*packets[:10], hidden, *packets[11:]]

    _, frames = read_all(copy_packets(source, tmp_path / "hidden.webm", hide_the_tenth))
    assert frames == [*range(10), *range(11, 40)]


def test_a_cut_transport_stream_is_indexed_without_decoding(tmp_path, no_decoding):
    whole = Clip("whole.ts", options=OPEN).write(tmp_path).read_bytes()
    packets = [whole[start : start + 188] for start in range(0, len(whole), 188)]
    (tmp_path / "cut.ts").write_bytes(b"".join(packets[:3] + packets[8:]))
    _, frames = read_all(tmp_path / "cut.ts")
    assert frames[0] in range(9, 13) and frames == list(range(frames[0], 40))


def test_a_sound_file_with_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(cover.encode())
    with pytest.raises(DecodeError, match=r"song\.mp4.*only a cover picture"):
        open_reader(path)
