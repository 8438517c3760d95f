"""Files that are put together, cut or damaged in ways that players take without a word."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.coded_clips import FAST_THEN_SLOW, PHONE, Clip, number_of, trim
from tests.unit.data.test_readers import CLOSED, MILLI, OPEN, VP8, X265_OPEN
from video_thinker.data import pyav_reader
from video_thinker.data.readers import open_reader
from video_thinker.data.video import VideoSampling, load_span, load_video
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


def boxes(data):
    place = 0
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        yield data[place + 4 : place + 8], data[place : place + length]
        place += length


def box(name, *parts):
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), name) + content


def set_edits(path, edits):
    """Give the one track of an mp4 file other edits: (seconds shown, first second of the media or `None`)."""
    with av.open(str(path)) as container:
        unit = container.streams.video[0].time_base
        delay = -next(packet.dts for packet in container.demux(video=0))  # of B-frames, which the usual edit leaves out
    rows = [
        struct.pack(">Iihh", int(shown * 1000), -1 if start is None else delay + round(start / unit), 1, 0)
        for shown, start in edits
    ]
    listed = box(b"edts", box(b"elst", struct.pack(">II", 0, len(rows)), *rows))
    tops = dict(boxes(path.read_bytes()))
    (*_, last), moov = tops, dict(boxes(tops[b"moov"][8:]))
    assert last == b"moov"  # so that no place in the file changes
    track = {name: part for name, part in boxes(moov[b"trak"][8:]) if name != b"edts"}
    moov[b"trak"] = box(b"trak", track.pop(b"tkhd"), listed, *track.values())
    tops[b"moov"] = box(b"moov", *moov.values())
    path.write_bytes(b"".join(tops.values()))


EDITS = {
    "empty, whole": ([(Fraction(1, 2), None), (4, 0)], [*range(40)]),
    "empty, trimmed": ([(Fraction(1, 2), None), (2, Fraction(3, 2))], [*range(15, 35)]),
    "end left out": ([(2, 0)], [*range(20)]),
    "middle left out": ([(1, 0), (Fraction(3, 2), Fraction(5, 2))], [*range(10), *range(25, 40)]),
    "end shown first": ([(1, Fraction(12, 5)), (1, 0)], [*range(24, 34), *range(10)]),
    "shown twice": ([(1, 0), (1, 0)], [*range(10), *range(10)]),
}


@pytest.mark.parametrize(
    ("edits", "options"),
    [(edits, CLOSED) for edits in EDITS] + [("empty, trimmed", OPEN), ("end left out", OPEN)],
)
def test_edit_lists_of_several_entries(tmp_path, edits, options):
    """What FFmpeg's `showinfo` tells of such files; times begin with the first frame, as everywhere."""
    path = Clip("edited.mp4", options=options).write(tmp_path)
    entries, expected = EDITS[edits]
    set_edits(path, entries)
    frames, times_s = load_span(path, 0, 60, 99, max_pixels=10**6)
    assert [number_of(frame) for frame in frames] == expected
    assert times_s == pytest.approx(np.arange(len(expected)) / 10, abs=0.002)
    video = load_video(path, VideoSampling(num_frames=4))
    chosen = [expected[number] for number in np.linspace(0, len(expected) - 1, 4).round().astype(int)]
    assert [number_of(frame.permute(1, 2, 0).numpy()) for frame in video.frames] == chosen


@pytest.mark.parametrize(
    ("edits", "options", "says"),
    [
        ([(1, 0), (Fraction(1, 2), None), (1, 2)], CLOSED, "a pause behind its start"),
        ([(1, 0), (Fraction(1, 20), None), (3, 1)], CLOSED, "a pause behind its start"),  # shorter than a frame
        ([(2, 0), (1, None)], OPEN, "a pause behind its start"),
        ([(2, 2), (2, 0)], CLOSED, r"puts 2 parts together to 4\.00 s, of which 3\.70 s come out"),
        ([(1, Fraction(12, 5)), (1, 0)], OPEN, r"puts 2 parts together to 2\.00 s"),
        ([(1, 3), (1, 1), (1, 2)], CLOSED, r"puts 3 parts together to 3\.00 s"),
    ],
)
def test_edit_lists_that_ffmpeg_shows_in_another_way_are_refused(tmp_path, edits, options, says):
    path = Clip("edited.mp4", options=options).write(tmp_path)
    set_edits(path, edits)
    with pytest.raises(DecodeError, match=f"its edit list (has )?{says}.*does not show as a player does"):
        load_span(path, 0, 60, 99, max_pixels=10**6)


@pytest.mark.parametrize("name", ["phone.mp4", "phone_trimmed.mp4", "fast_then_slow.mkv"])
def test_turned_with_wide_pixels_at_a_variable_rate(tmp_path, name):
    def adjust(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(90, 0, 0)

    times_s, unit = (FAST_THEN_SLOW, MILLI) if name.endswith("mkv") else (PHONE, Fraction(1, 30000))
    path = Clip(name, options=OPEN, times_s=times_s, time_base=unit, adjust=adjust).write(tmp_path)
    first = 0
    if "trimmed" in name:
        first = 16
        trim(path, path := tmp_path / "cut.mp4", float(times_s[first]) - 0.001)
    frames, found_s = load_span(path, 0, 60, 99, max_pixels=10**6)
    assert frames.shape[1:] == (85, 48, 3)
    assert [number_of(np.rot90(frame, -1)) for frame in frames] == list(range(first, len(times_s)))
    assert found_s == pytest.approx([float(time_s - times_s[first]) for time_s in times_s[first:]], abs=0.002)


@pytest.mark.parametrize(
    ("name", "muxer", "says"),
    [
        ("end.mp4", {}, "the file is damaged, half a download, or no video at all"),
        ("start.mp4", {"movflags": "faststart"}, r"of the 20\.00 s that its container states: the file is cut off"),
        ("half.mkv", {}, r"of the 20\.00 s that its container states: the file is cut off"),
    ],
)
def test_half_a_download_is_refused(tmp_path, name, muxer, says):
    times_s = [Fraction(number, 10) for number in range(200)]
    path = Clip(name, options=CLOSED, times_s=times_s, time_base=MILLI, muxer=muxer).write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DecodeError, match=says):
        load_video(path, VideoSampling())


def test_a_track_of_time_codes_is_no_video(tmp_path):
    path = tmp_path / "camera.mov"
    source = Clip("whole.mp4", options=CLOSED).write(tmp_path)
    with av.open(str(source)) as read, av.open(str(path), "w") as written:
        written.metadata["timecode"] = "01:00:00:00"
        copy = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = copy
                written.mux(packet)
    assert b"tmcd" in path.read_bytes()
    reader, frames = read_all(path)
    assert frames == list(range(40)) and reader.times_s == pytest.approx(np.arange(40) / 10, abs=0.002)


def test_of_two_videos_the_default_one_is_shown(tmp_path):
    """A player shows the one that the container marks, not the first one."""
    path = tmp_path / "two.mkv"
    sources = [Clip("first.mp4", options=CLOSED).write(tmp_path), Clip("second.mp4", options=CLOSED).write(tmp_path)]
    with av.open(str(sources[0])) as first, av.open(str(sources[1])) as second, av.open(str(path), "w") as written:
        videos = [first.streams.video[0], second.streams.video[0]]
        copies = [written.add_stream_from_template(video) for video in videos]
        copies[0].disposition, copies[1].disposition = av.stream.Disposition(0), av.stream.Disposition.default
        packets = [[packet for packet in video.container.demux(video) if packet.size] for video in videos]
        for number, pair in enumerate(zip(*packets, strict=True)):
            for packet, copy in list(zip(pair, copies, strict=True))[number >= 20 :]:  # the first one is shorter
                packet.stream = copy
                written.mux(packet)
    _, frames = read_all(path)
    assert frames == list(range(40))
