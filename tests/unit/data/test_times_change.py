"""Files whose packets announce frames that do not exist: whoever chooses frames by their times chooses anew."""

from __future__ import annotations

import av
import numpy as np
import pytest

from tests.coded_clips import Clip, number_of
from tests.unit.data.test_odd_files import copy_packets
from tests.unit.data.test_readers import X265_CLOSED
from video_thinker.data.video import VideoSampling, load_span, load_video, probe_video

NO_PICTURE = b"\x00\x00\x00\x03\x46\x01\x50"
"""An access unit delimiter of HEVC (ITU-T H.265, 7.3.2.5), with its length before it as in Matroska."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Clip("whole.mkv", codec="libx265", options=X265_CLOSED).write(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def announced(whole, tmp_path):
    """Write a clip of 40 frames with a packet behind one of them that holds none; anew for each test."""

    def write(number, behind_ms=50):
        def add_one(packets):
            at = packets[number]  # in decoding order
            none = av.Packet(NO_PICTURE)
            none.pts, none.dts, none.time_base = 100 * number + behind_ms, at.dts, at.time_base
            return [*packets[:number], none, *packets[number:]]

        return copy_packets(whole, tmp_path / "announced.mkv", add_one)

    return write


def test_load_video(announced, whole):
    """One of 8 even times falls on the frame that is announced only; frames chosen by the old times are others."""
    video, plain = (load_video(path, VideoSampling(num_frames=8)) for path in (announced(5, behind_ms=26), whole))
    assert video.timestamps_s == pytest.approx(plain.timestamps_s)
    numbers = [number_of(frame.permute(1, 2, 0).numpy()) for frame in video.frames]
    assert video.timestamps_s == pytest.approx(np.array(numbers) / 10, abs=0.002)


def test_load_span(announced):
    frames, times_s = load_span(announced(19), 1.5, 2.5, 16, max_pixels=10**6)
    assert [number_of(frame) for frame in frames] == list(range(15, 25))
    assert times_s == pytest.approx(np.arange(15, 25) / 10, abs=0.002)


def test_probe_video(announced):
    assert probe_video(announced(19)).num_frames == 40
