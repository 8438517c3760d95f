"""Pictures as a person sees them, odd containers, and files that must be refused aloud."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from tests.coded_clips import FAST_THEN_SLOW, HEIGHT, WIDTH, Clip, number_of, picture
from tests.unit.data.test_readers import BACKENDS, CLOSED, LONG
from video_thinker.data import pyav_reader
from video_thinker.data.readers import open_reader
from video_thinker.data.video import VideoSampling, load_span, load_video, probe_video
from video_thinker.errors import ConfigError, DecodeError


def read_all(path, backend="auto"):
    reader = open_reader(path, backend=backend)
    return reader, list(reader.frames_at(reader.times_s.tolist()))


def numbers(frames):
    return [number_of(pixels) for _, pixels in frames]


TURNS = [(degrees, hflip, vflip) for degrees in (0, 90, 180, 270) for hflip, vflip in ((0, 0), (1, 0), (0, 1))]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_turned_and_mirrored(tmp_path, turn, backend):
    """The matrix is applied to the picture as the display matrix's definition says, corner by corner."""
    degrees, hflip, vflip = turn
    clip = Clip("turned.mp4", options=CLOSED, adjust=lambda stream: stream.set_display_rotation(degrees, hflip, vflip))
    try:
        reader, frames = read_all(clip.write(tmp_path), backend)
    except DecodeError as error:
        assert backend != "pyav" and "set video_backend: auto" in str(error)
        return
    expected = np.rot90(picture(20), k=degrees // 90)
    expected = expected[:, ::-1] if hflip else expected
    expected = expected[::-1] if vflip else expected
    assert (reader.height, reader.width) == expected.shape[:2] == frames[20][1].shape[:2]
    assert np.abs(frames[20][1].astype(float) - expected).mean() < 12


def test_a_matrix_between_quarters_is_refused(tmp_path):
    clip = Clip("tilted.mp4", adjust=lambda stream: stream.set_display_rotation(30))
    with pytest.raises(DecodeError, match=r"display matrix turns the picture by .*30 degrees"):
        open_reader(clip.write(tmp_path))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (128, 48)), (Fraction(2, 3), (64, 72))])
def test_non_square_pixels(tmp_path, backend, aspect, size):
    def adjust(stream):
        stream.codec_context.sample_aspect_ratio = aspect

    path = Clip("aspect.mp4", options=CLOSED, adjust=adjust).write(tmp_path)
    reader = open_reader(path, backend=backend)
    assert (reader.width, reader.height) == size
    frames = load_video(path, VideoSampling(max_pixels=9 * 28 * 28), backend=backend).frames
    assert (frames.shape[3] > frames.shape[2]) == (size[0] > size[1])
    assert load_span(path, 0, 1, 2, max_pixels=10**6, backend=backend)[0].shape == (2, size[1], size[0], 3)


def write_parts(path, parts, codec="libx264", **options):
    """Write parts (size factor, numbers) into one transport stream, each encoded by itself."""
    with path.open("wb") as joined:
        for place, (factor, shown) in enumerate(parts):
            part = path.with_name(f"part{place}.ts")
            with av.open(str(part), "w") as container:
                stream = container.add_stream(codec, rate=10, options=dict(options))
                stream.width, stream.height, stream.pix_fmt = WIDTH * factor, HEIGHT * factor, "yuv420p"
                for number in shown:
                    pixels = picture(number).repeat(factor, axis=0).repeat(factor, axis=1)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                container.mux(stream.encode())
            joined.write(part.read_bytes())
    return path


def test_transport_streams_put_together_run_on(tmp_path):
    """The clock starts again in each part, and the second part has larger pictures; players go on."""
    path = write_parts(tmp_path / "joined.ts", [(1, range(20)), (2, range(20, 50))], g="8")
    reader, frames = read_all(path)
    assert numbers(frames) == list(range(50))
    assert reader.times_s == pytest.approx(np.arange(50) / 10, abs=0.002)
    assert frames[10][1].shape == (48, 64, 3) and frames[40][1].shape == (96, 128, 3)
    assert load_video(path, VideoSampling(num_frames=50)).frames.shape[:2] == (50, 3)


@pytest.mark.parametrize("ahead", [Fraction(1, 4), Fraction(1, 5)])
@pytest.mark.parametrize("name", ["overlap.mp4", "overlap.mkv", "by_decoding.mkv"])
def test_frames_behind_one_of_a_later_time_are_not_seen(tmp_path, monkeypatch, name, ahead):
    """Parts put together, the second of which begins before the first one's end; frames' times may be the same."""
    if name == "by_decoding.mkv":
        monkeypatch.setattr(pyav_reader, "index_by_packets", lambda *args: None)
    source = Clip("plain.mp4", options=CLOSED).write(tmp_path)  # key frames: 0, 12, 24, 36
    with av.open(str(tmp_path / name), "w") as container:
        copy = None
        for keep, shift_s in (((0, 24), 0), ((24, 40), -ahead)):
            with av.open(str(source)) as read:
                stream = read.streams.video[0]
                copy = copy or container.add_stream_from_template(stream)
                for packet in list(read.demux(stream))[slice(*keep)]:
                    packet.pts += round(shift_s / stream.time_base)
                    late_s = Fraction(3, 10) if shift_s == 0 else Fraction(0)
                    packet.dts += round((shift_s - late_s) / stream.time_base)
                    packet.stream = copy
                    container.mux(packet)
    reader, frames = read_all(tmp_path / name)
    assert numbers(frames) == [*range(24), *range(26, 40)]  # the first part ends at 2.3 s
    assert reader.times_s[24] == pytest.approx(2.6 - float(ahead), abs=0.002)
    some = open_reader(tmp_path / name).frames_at(reader.times_s[[22, 23, 24, 37]].tolist())
    assert numbers(some) == [22, 23, 26, 39]


def test_a_cut_before_the_first_key_frame_shows_what_can_be_decoded(tmp_path):
    whole = Clip("whole.ts", options=CLOSED).write(tmp_path).read_bytes()
    packets = [whole[start : start + 188] for start in range(0, len(whole), 188)]
    (tmp_path / "cut.ts").write_bytes(b"".join(packets[:3] + packets[8:]))
    reader, frames = read_all(tmp_path / "cut.ts")
    shown = numbers(frames)
    assert shown == list(range(12, 40)) and reader.times_s[0] == 0


def test_transparent_video_is_shown_on_white(tmp_path):
    path = tmp_path / "transparent.mov"
    pixels = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    pixels[:, WIDTH // 2 :] = (200, 0, 0, 255)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgba"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode())
    _, frames = read_all(path)
    assert (frames[0][1][:, : WIDTH // 2] == 255).all() and (frames[0][1][:, WIDTH // 2 :] == (200, 0, 0)).all()


def pq(nits: float) -> float:
    """Code a luminance in cd/m2 as SMPTE ST 2084 does."""
    y = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


@pytest.mark.parametrize("backend", BACKENDS)
def test_hdr_has_its_reference_white_at_white(tmp_path, backend):
    """0, 20, 50, 203 and 1000 cd/m2 of a PQ clip; as if it were SDR, 203 cd/m2 would be a gray of 146."""
    levels = [round(64 + 876 * pq(nits)) for nits in (0, 20, 50, 203, 1000)]
    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 16, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1
        luma = np.array(levels, dtype=np.uint16).repeat(16)[None].repeat(16, axis=0)
        planes = np.concatenate([luma.reshape(-1), np.full(80 * 8, 512, dtype=np.uint16)]).reshape(24, 80)
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p10le")
            frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries = 9, 1, 16, 9
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if backend != "pyav":
        with pytest.raises(DecodeError, match=r"HDR.*set video_backend: auto"):
            open_reader(path, backend=backend)
        return
    gray = read_all(path)[1][0][1][8, 8::16].astype(int)
    assert np.ptp(gray, axis=1).max() <= 2
    assert gray[:, 0].tolist() == pytest.approx([0, 73, 124, 254, 255], abs=3)


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (1, True)])
def test_color_matrix_and_range_are_the_file_s(tmp_path, matrix, full):
    """A red of BT.709 or BT.601, in limited or full range, is the same red."""
    path = tmp_path / "red.mkv"
    red = np.full((16, 16, 3), (200, 40, 40), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(red, format="rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace=matrix, dst_color_range=2 if full else 1)
            frame.colorspace, frame.color_range = matrix, 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert np.abs(read_all(path)[1][0][1].astype(int) - red).max() <= 4


def test_a_cover_picture_is_not_the_video(tmp_path):
    path = tmp_path / "cover.mp4"
    source = Clip("plain.mp4", options=CLOSED).write(tmp_path)
    with av.open(str(source)) as read, av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 200, 200, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        copy = container.add_stream_from_template(read.streams.video[0])
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((200, 200, 3), np.uint8), format="rgb24")))
        for packet in read.demux(read.streams.video[0]):
            if packet.size:
                packet.stream = copy
                container.mux(packet)
    reader, frames = read_all(path)
    assert numbers(frames) == list(range(40)) and reader.width == WIDTH


def test_tables_that_lie_are_seen_and_the_file_is_read_through(tmp_path, monkeypatch):
    path = Clip("tables.mp4", options=CLOSED).write(tmp_path)
    read_tables = pyav_reader.read_tables

    def lie(*args):
        table = read_tables(*args)
        table.pts[20], table.pts[21] = table.pts[21], table.pts[20]
        return table

    monkeypatch.setattr(pyav_reader, "read_tables", lie)
    assert numbers(read_all(path)[1]) == list(range(40))


def test_seeks_that_go_astray_are_seen(tmp_path, monkeypatch):
    """A container that leads to the end, or nowhere, costs time and no frame."""
    path = Clip("astray.mkv", options=CLOSED).write(tmp_path)
    monkeypatch.setattr(pyav_reader.PyavReader, "_seek", lambda self, key: False)
    reader = open_reader(path)
    assert numbers(reader.frames_at([0.5, 3.7])) == [5, 37]


def test_half_a_download(tmp_path):
    for name in ("half.mkv", "half.mp4"):
        path = Clip(name, options=CLOSED, muxer={"movflags": "faststart"} if "mp4" in name else {}).write(tmp_path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
        with pytest.raises(DecodeError, match=r"(can be read of the|states).* 4\.00 s.*cut off"):
            load_video(path, VideoSampling())
        info = probe_video(path)
        assert info.stated_duration_s == pytest.approx(4, abs=0.05) and info.duration_s < 2.95 and info.difference


def test_one_frame_same_times_and_damage_are_refused(tmp_path):
    one = Clip("one.mp4", times_s=[Fraction(0), Fraction(1)])
    whole = one.write(tmp_path)
    with av.open(str(whole)) as read, av.open(str(tmp_path / "single.mp4"), "w") as container:
        copy = container.add_stream_from_template(read.streams.video[0])
        packet = next(read.demux(read.streams.video[0]))
        packet.stream = copy
        container.mux(packet)
    with pytest.raises(DecodeError, match=r"single\.mp4.*'s3'.*one frame only"):
        open_reader(tmp_path / "single.mp4", sample_id="s3")
    with av.open(str(tmp_path / "same.nut"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(10):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")):
                packet.pts = packet.dts = 0
                container.mux(packet)
    with pytest.raises(DecodeError, match=r"same\.nut.*(same time|carry no times)"):
        open_reader(tmp_path / "same.nut")
    path = Clip("damaged.mp4", options=CLOSED).write(tmp_path)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + 1200
    data[middle : middle + 900] = bytes(900)
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"codec h264: .*damaged"):
        read_all(path)


def test_odd_numbers_of_frames_are_refused():
    for option in ({"num_frames": 5}, {"min_frames": 3}):
        with pytest.raises(ConfigError, match=r"pairs.*give \d or \d"):
            VideoSampling(**option)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["varying.mp4", "varying.mkv"])
def test_spans_and_counts_go_by_time(tmp_path, backend, name):
    """10 frames a second for 3 s, then one a second for 8 s."""
    path = Clip(name, times_s=FAST_THEN_SLOW, options=LONG, time_base=Fraction(1, 1000)).write(tmp_path)
    frames, times_s = load_span(path, 5, 9, 8, 10**6, backend=backend)
    assert times_s == pytest.approx([5, 6, 7, 8], abs=0.002)
    assert [number_of(pixels) for pixels in frames] == [31, 32, 33, 34]
    frames, times_s = load_span(path, 5.2, 5.7, 8, 10**6, backend=backend)  # between two frames: the one on screen
    assert times_s == pytest.approx([5], abs=0.002) and number_of(frames[0]) == 31
    frames, times_s = load_span(path, 0, 3, 4, 10**6, backend=backend)
    assert times_s == pytest.approx([0, 1, 1.9, 2.9], abs=0.002)
    video = load_video(path, VideoSampling(fps=1, max_frames=64, max_pixels=64 * 28 * 28), backend=backend)
    assert len(video.timestamps_s) == 10  # 11 s (or 11.1), in pairs
    even_s = np.linspace(0, 11, 10)
    assert np.abs(np.array(video.timestamps_s) - even_s).max() <= 0.51
    everything = load_video(path, VideoSampling(num_frames=38), backend=backend)
    assert everything.timestamps_s == pytest.approx([float(time_s) for time_s in FAST_THEN_SLOW], abs=0.002)
