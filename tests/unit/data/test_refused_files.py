"""Files that FFmpeg opens and shows otherwise than a player: right, or refused by name."""

from __future__ import annotations

import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.coded_clips import Clip, number_of, picture
from tests.unit.data.test_odd_files import copy_packets
from tests.unit.data.test_readers import BACKENDS, X265_CLOSED
from video_thinker.data.header_reader import read_video_header
from video_thinker.data.readers import open_reader
from video_thinker.errors import DecodeError


def record(profile, compatible):
    """Make a Dolby Vision configuration record: version 1.0, level 6, with data and base layer."""
    return bytes((1, 0)) + struct.pack(">H", profile << 9 | 6 << 3 | 0b101) + bytes((compatible << 4,)) + bytes(19)


def with_record(path, content):
    """Put a box into the sample entry of an mp4 file with the head at its end."""
    data = path.read_bytes()
    box = struct.pack(">I4s", 8 + len(content), b"dvcC") + content
    at = data.index(b"hvcC") - 4
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1"):
        place = data.index(name, data.index(b"moov")) - 4
        (size,) = struct.unpack_from(">I", data, place)
        data = data[:place] + struct.pack(">I", size + len(box)) + data[place + 4 :]
    path.write_bytes(data[:at] + box + data[at:])
    return path


def dolby_data(full_range):
    """Make a frame's data of profile 0 (ETSI GS CCM 001, 5.3): every component is left as it is."""
    header = f"{25:08b}{2:06b}{18:011b}{0:04b}{6:04b}1" + "000" + f"{24:09b}" + "01" + str(int(full_range))
    depths = "011" + "011" + "00101" + "0" + "000" + "0" + "1"  # 10 bits, 10 bits, 12 bits; flags; no residual
    pivots = ("1" + f"{0:010b}" + f"{1023:010b}") * 3
    lines = ("11" + "0" + "1" + "0" * 23 + "010" + "0" * 23) * 3  # polynomials of order 1: 0 + 1 x
    bits = header + depths + "00" + "111" + pivots + "11" + lines
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    data = int(bits, 2).to_bytes(len(bits) // 8, "big") + b"\1\2\3\4\x80"  # a checksum, which is not looked at
    return re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", data)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hevc")
    return Clip("plain.mp4", codec="libx265", options=X265_CLOSED, adjust=_hvc1).write(folder)


def _hvc1(stream):
    stream.codec_context.codec_tag = "hvc1"


@pytest.fixture
def tagged(plain, tmp_path):
    def make(profile, compatible):
        path = tmp_path / f"profile_{profile}.{compatible}.mp4"
        path.write_bytes(plain.read_bytes())
        return with_record(path, record(profile, compatible))

    return make


@pytest.mark.parametrize(("profile", "compatible"), [(5, 0), (10, 0), (8, 1), (8, 4), (7, 6), (10, 1)])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_dolby_vision_by_its_record(tagged, tmp_path, profile, compatible, container):
    path = tagged(profile, compatible)
    if container == "mkv":
        path = copy_packets(path, tmp_path / "copy.mkv", list)
        assert b"dvcC" in path.read_bytes() or b"dvvC" in path.read_bytes()
    if compatible:
        assert len(open_reader(path).times_s) == 40
        return
    with pytest.raises(DecodeError, match=rf"Dolby Vision of profile {profile}, whose colors are wrong.*libplacebo"):
        open_reader(path)
    with pytest.raises(DecodeError, match=rf"Dolby Vision of profile {profile}"):
        read_video_header(str(path))


@pytest.mark.parametrize("tag", [b"dvh1", b"dvhe"])
def test_dolby_vision_by_its_tag(plain, tmp_path, tag):
    path = tmp_path / "tag.mp4"
    path.write_bytes(plain.read_bytes().replace(b"hvc1", tag))
    with pytest.raises(DecodeError, match=rf"Dolby Vision \({tag.decode()}\)"):
        open_reader(path)


@pytest.mark.parametrize("full_range", [True, False])
def test_dolby_vision_by_the_data_of_its_frames(plain, tmp_path, full_range):
    """As in transport streams; the header of the data is that of profile 5, or of an older one."""
    unit = b"\x7c\x01" + dolby_data(full_range)

    def add_data(packets):
        for packet in packets:
            data = av.Packet(bytes(packet) + struct.pack(">I", len(unit)) + unit)
            data.pts, data.dts, data.time_base = packet.pts, packet.dts, packet.time_base
            data.is_keyframe = packet.is_keyframe
            yield data

    path = copy_packets(plain, tmp_path / "data.mkv", add_data)
    if not full_range:
        assert len(open_reader(path).times_s) == 40
        return
    with pytest.raises(DecodeError, match="Dolby Vision of profile 5"):
        open_reader(path)


@pytest.mark.parametrize("matrix", ["YCgCo", "ICtCp", "bt2020c"])
def test_colors_that_ffmpeg_does_not_convert(tmp_path, matrix):
    path = Clip("colors.mp4", options={"x264-params": f"colormatrix={matrix}"}).write(tmp_path)
    with pytest.raises(DecodeError, match=r"colors\.mp4.*its colors are stored as .*libplacebo"):
        open_reader(path)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_transparent_parts_of_vp8_and_vp9_are_white(tmp_path, codec, backend):
    """FFmpeg's own decoders leave the opacity out, and show what was painted below."""
    path = tmp_path / "opacity.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"auto-alt-ref": "0", "cpu-used": "8", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for number in range(40):
            pixels_HWC = np.dstack([picture(number), np.full((48, 64), 255, np.uint8)])
            pixels_HWC[:, :8] = (0, 200, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels_HWC, format="rgba")
            container.mux(stream.encode(frame.reformat(format="yuva420p")))
        container.mux(stream.encode())
    if backend != "pyav":
        with pytest.raises(DecodeError, match="its pictures have transparent parts; set video_backend: auto"):
            open_reader(path, backend=backend)
        return
    reader = open_reader(path)
    assert len(reader.times_s) == 40
    for wanted in ([0, 1, 30, 39], [5], [38, 39]):  # seeks back and forth, and reads to the end
        frames = [pixels for _, pixels in reader.frames_at(reader.times_s[wanted].tolist())]
        assert [number_of(pixels[:, 4:]) & ~1 for pixels in frames] == [number & ~1 for number in wanted]
        assert all(pixels[:, :6].min() >= 240 for pixels in frames)


def test_an_animated_webp_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "moving.webp"
    with av.open(str(path), "w", format="webp") as container:
        stream = container.add_stream("libwebp_anim", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgra"
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format="bgra")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for read in (open_reader, lambda path: read_video_header(str(path))):
        with pytest.raises(DecodeError, match=r"an animated WebP.*turn it into a GIF: python -c .*save_all=True"):
            read(path)


def test_a_still_webp_is_no_animated_one(tmp_path):
    path = tmp_path / "still.webp"
    with av.open(str(path), "w", format="webp") as container:
        stream = container.add_stream("libwebp", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgra"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24").reformat(format="bgra")))
        container.mux(stream.encode())
    with pytest.raises(DecodeError, match="it holds one frame only, which is no video; give it as an image"):
        open_reader(path)
