"""Half downloads of mp4 files in fragments, whose head lists no frames."""

from __future__ import annotations

import struct
from fractions import Fraction

import pytest

from tests.coded_clips import Clip
from tests.unit.data.test_readers import CLOSED, FRAGMENTED, MILLI
from video_thinker.data.header_reader import read_video_header
from video_thinker.data.readers import open_reader
from video_thinker.data.video import VideoSampling, load_video, probe_video
from video_thinker.errors import DecodeError

TIMES_S = [Fraction(number, 10) for number in range(60)]  # a fragment a second
SEGMENTS = {"movflags": "frag_keyframe+default_base_moof+dash"}
EARLY_HEAD = {"movflags": "frag_keyframe"}


def boxes_of(content):
    """List the boxes: name, where it begins, where it ends."""
    place, found = 0, []
    while place < len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        found.append((name, place, place + length))
        place += length
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The file's bytes by the way it is written."""
    folder = tmp_path_factory.mktemp("fragments")
    made = {}
    for name, muxer in (("plain", FRAGMENTED), ("segments", SEGMENTS), ("early", EARLY_HEAD)):
        path = Clip(f"{name}.mp4", options=CLOSED, times_s=TIMES_S, time_base=MILLI, muxer=muxer).write(folder)
        made[name] = path.read_bytes()
    return made


def cuts(content):
    """Where the third fragment is cut: in its pixels, in its table, and 3 bytes behind the one before."""
    found = boxes_of(content)
    third = [number for number, box in enumerate(found) if box[0] == b"moof"][3]
    (_, moof, end_of_moof), (_, mdat, end) = found[third], found[third + 1]
    return {"pixels": (mdat + end) // 2, "table": (moof + end_of_moof) // 2, "length": moof + 3}


@pytest.mark.parametrize("cut", ["pixels", "table", "length"])
@pytest.mark.parametrize("name", ["plain", "segments", "early"])
def test_a_file_that_ends_in_a_fragment_is_refused(whole, tmp_path, name, cut):
    path = tmp_path / "half.mp4"
    path.write_bytes(whole[name][: cuts(whole[name])[cut]])
    with pytest.raises(DecodeError, match="the file is cut off; fetch it again, or keep what there is"):
        load_video(path, VideoSampling())
    with pytest.raises((DecodeError, EOFError)):
        read_video_header(str(path))


def test_what_can_be_read_of_a_half_is_read_where_that_is_asked_for(whole, tmp_path):
    path = tmp_path / "half.mp4"
    path.write_bytes(whole["plain"][: cuts(whole["plain"])["pixels"]])
    info = probe_video(path)
    assert 3 < info.duration_s < 5
    assert info.difference.startswith(
        f"{info.duration_s:.2f} s of video can be read, and then it ends in the middle of a"
    )


@pytest.mark.parametrize("name", ["plain", "segments", "early"])
def test_a_whole_one_is_read_and_so_is_one_without_its_last_index(whole, tmp_path, name):
    path = tmp_path / "whole.mp4"
    for content in (whole[name], whole[name][: boxes_of(whole[name])[-1][1] + 20]):
        path.write_bytes(content)
        assert boxes_of(whole[name])[-1][0] == b"mfra"
        assert open_reader(path).duration_s == pytest.approx(6, abs=0.05)
        assert read_video_header(str(path)).width == 64


def test_a_stated_length_tells_a_cut_between_two_fragments(whole, tmp_path):
    content = whole["segments"]
    head = boxes_of(content)[1]
    assert head[0] == b"moov"
    moov = content[head[1] : head[2]]
    mvex = moov.index(b"mvex") - 4
    (scale,) = struct.unpack_from(">I", moov, moov.index(b"mvhd") + 4 + 12)
    mehd = struct.pack(">I4sII", 16, b"mehd", 0, 6 * scale)
    (size_moov,), (size_mvex,) = struct.unpack_from(">I", moov, 0), struct.unpack_from(">I", moov, mvex)
    moov = (
        struct.pack(">I", size_moov + 16)
        + moov[4:mvex]
        + struct.pack(">I4s", size_mvex + 16, b"mvex")
        + mehd
        + moov[mvex + 8 :]
    )
    fragments = [box for box in boxes_of(content) if box[0] == b"mdat"]
    path = tmp_path / "half.mp4"
    path.write_bytes(content[: head[1]] + moov + content[head[2] : fragments[2][2]])
    with pytest.raises(DecodeError, match=r"of the 5\.80 s that its container states: the file is cut off"):
        load_video(path, VideoSampling())
    path.write_bytes(content[: head[1]] + moov + content[head[2] :])
    assert load_video(path, VideoSampling(num_frames=4)).frames.shape[0] == 4
