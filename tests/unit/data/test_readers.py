"""Every frame of many kinds of files, by every decoder: the number it carries, at the time a player shows it.

decord and torchcodec may refuse a file, with the way out. They may never give another frame.
"""

from __future__ import annotations

import importlib.util
import os
from fractions import Fraction
from pathlib import Path

import pytest

from tests.coded_clips import (
    CINEMA,
    FAST_THEN_SLOW,
    NTSC,
    PHONE,
    SLOW_THEN_FAST,
    Clip,
    number_of,
)
from video_thinker.data.readers import MODULES, open_reader
from video_thinker.errors import DecodeError

X264 = {"preset": "veryfast"}
NO_B = {**X264, "bf": "0"}
LONG = {**X264, "g": "250"}
CLOSED = {**X264, "g": "12", "keyint_min": "12", "sc_threshold": "0"}
OPEN = {**X264, "x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3"}
REFRESH = {**X264, "x264-params": "intra-refresh=1:keyint=12:bframes=0"}
FIELDS = {**X264, "x264-params": "tff=1:keyint=12"}
INTRA = {**X264, "g": "1"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:min-keyint=12:scenecut=0:bframes=3:pools=1"}
X265_OPEN = {**X265, "x265-params": X265["x265-params"] + ":open-gop=1"}
X265_CLOSED = {**X265, "x265-params": X265["x265-params"] + ":open-gop=0"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "12"}
VP8 = {"deadline": "good", "cpu-used": "4", "g": "20", "auto-alt-ref": "1", "lag-in-frames": "10"}
AV1 = {"preset": "12", "g": "12", "svtav1-params": "lp=1"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
MILLI = Fraction(1, 1000)

CLIPS = [
    Clip("closed.mp4", options=CLOSED),
    Clip("long.mp4", options=LONG),
    Clip("open.mp4", options=OPEN),
    Clip("intra.mp4", options=INTRA),
    Clip("no_b.mp4", options=NO_B),
    Clip("refresh.mp4", options=REFRESH),
    Clip("interlaced.mp4", options=FIELDS),
    Clip("closed_trimmed.mp4", options=CLOSED, trim_s=1.5),
    Clip("long_trimmed.mp4", options=LONG, trim_s=2.3),
    Clip("open_trimmed.mp4", options=OPEN, trim_s=1.7),
    Clip("no_b_trimmed.mov", options={**NO_B, "g": "12"}, trim_s=1.5),
    Clip("ntsc.mp4", times_s=NTSC, options=CLOSED),
    Clip("ntsc_trimmed.mp4", times_s=NTSC, options=LONG, trim_s=float(NTSC[31])),
    Clip("fast_then_slow.mp4", times_s=FAST_THEN_SLOW, options=CLOSED),
    Clip("slow_then_fast.mp4", times_s=SLOW_THEN_FAST, options=LONG),
    Clip("phone.mp4", times_s=PHONE, options=LONG),
    Clip("fragmented.mp4", options=CLOSED, muxer=FRAGMENTED),
    Clip("faststart.mp4", options=CLOSED, muxer={"movflags": "faststart"}),
    Clip("late.mp4", options=CLOSED, shift_s=Fraction(2)),
    Clip("long_sound.mp4", options=CLOSED, sound_s=7.0),
    Clip("short_sound.mp4", options=CLOSED, sound_s=1.0),
    Clip("mpeg4.mp4", codec="mpeg4", options={"g": "12"}),
    Clip("mpeg4_b.mp4", codec="mpeg4", options={"g": "12", "bf": "2"}),
    Clip("hevc_open.mp4", codec="libx265", options=X265_OPEN),
    Clip("hevc_open_trimmed.mp4", codec="libx265", options=X265_OPEN, trim_s=1.7),
    Clip("hevc_closed.mkv", codec="libx265", options=X265_CLOSED),
    Clip("hevc_fast_then_slow.mkv", codec="libx265", options=X265_OPEN, times_s=FAST_THEN_SLOW, time_base=MILLI),
    Clip("av1.mp4", codec="libsvtav1", options=AV1),
    Clip("av1.webm", codec="libsvtav1", options=AV1),
    Clip("vp9.webm", codec="libvpx-vp9", options=VP9),
    Clip("vp9.mp4", codec="libvpx-vp9", options=VP9),
    Clip("vp8.webm", codec="libvpx", options=VP8),
    Clip("live.webm", codec="libvpx-vp9", options=VP9, muxer={"live": "1"}),
    Clip("closed.mkv", options=CLOSED),
    Clip("open.mkv", options=OPEN),
    Clip("open_trimmed.mkv", options=OPEN, trim_s=1.2),
    Clip("ntsc.mkv", times_s=NTSC, options=LONG, time_base=MILLI),
    Clip("fast_then_slow.mkv", times_s=FAST_THEN_SLOW, options=CLOSED, time_base=MILLI),
    Clip("phone.mkv", times_s=PHONE, options=OPEN, time_base=MILLI),
    Clip("long_sound.mkv", options=CLOSED, sound_s=7.0),
    Clip("h264_b.avi", options=CLOSED),
    Clip("h264_no_b.avi", options=NO_B),
    Clip("mpeg4.avi", codec="mpeg4", options={"g": "12"}),
    Clip("mpeg4_b.avi", codec="mpeg4", options={"g": "12", "bf": "2"}),
    Clip("mjpeg.avi", codec="mjpeg", pix_fmt="yuvj420p"),
    Clip("closed.ts", options=CLOSED),
    Clip("open.ts", options=OPEN),
    Clip("refresh.ts", options=REFRESH),
    Clip("hevc.ts", codec="libx265", options=X265_OPEN),
    Clip("mpeg2.ts", codec="mpeg2video", options={"g": "12", "bf": "2"}, times_s=NTSC),
    Clip("mpeg2.mpg", codec="mpeg2video", options={"g": "12", "bf": "2"}, times_s=NTSC),
    Clip("mpeg1.mpg", codec="mpeg1video", options={"g": "12", "bf": "2"}, times_s=CINEMA),
    Clip("mpeg2.mkv", codec="mpeg2video", options={"g": "12", "bf": "2"}, times_s=NTSC, time_base=MILLI),
    Clip("wmv2.wmv", codec="wmv2", options={"g": "12"}),
    Clip("h264.flv", options=CLOSED),
    Clip("flv1.flv", codec="flv", options={"g": "12"}),
    Clip("prores.mov", codec="prores_ks", pix_fmt="yuv422p10le"),
    Clip("mjpeg.mov", codec="mjpeg", pix_fmt="yuvj420p"),
    Clip("mpeg2.mxf", codec="mpeg2video", options={"g": "12", "bf": "2"}, times_s=[Fraction(n, 25) for n in range(50)]),
    Clip("bare.h264", options=CLOSED, times_s=[Fraction(n, 25) for n in range(50)]),
    Clip("ffv1.nut", codec="ffv1"),
    Clip("animated.gif", codec="gif", pix_fmt="rgb8"),
]


@pytest.fixture(scope="session")
def clip_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write all clips once."""
    folder = tmp_path_factory.mktemp("clips")
    return {clip.name: clip.write(folder) for clip in CLIPS}


def available(backend: str) -> bool:
    if not importlib.util.find_spec(MODULES[backend]):
        return False
    if backend == "torchcodec":
        try:
            import torchcodec.decoders  # noqa: F401
        except (ImportError, OSError, RuntimeError):  # without FFmpeg's libraries on the system
            return False
    return True


BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(not available(name), reason=f"{name} is not there")) for name in MODULES
]
MUST_READ = {
    "pyav": {clip.name for clip in CLIPS},
    "torchcodec": {"closed.mp4", "closed_trimmed.mp4", "intra.mp4", "fast_then_slow.mp4", "vp9.webm", "closed.mkv"},
    "decord": {"closed.mp4", "long.mp4", "no_b.mp4", "ntsc.mp4", "fast_then_slow.mp4"},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_every_frame_at_its_time(clip_files, clip, backend):
    try:
        reader = open_reader(clip_files[clip.name], backend=backend)
        found = [(time_s, number_of(pixels)) for time_s, pixels in reader.frames_at(reader.times_s.tolist())]
        some = reader.times_s[[len(found) // 3, -4, -1]].tolist()
        again = [(time_s, number_of(pixels)) for time_s, pixels in reader.frames_at(some)]
    except DecodeError as error:
        assert clip.name not in MUST_READ[backend], error
        assert "set video_backend: auto" in str(error)
        return
    assert [number for _, number in found] == [number for _, number in clip.expected]
    assert [time_s for time_s, _ in found] == pytest.approx([time_s for time_s, _ in clip.expected], abs=0.002)
    assert again == [found[len(found) // 3], found[-4], found[-1]]


def test_making_a_clip_leaves_the_process_as_it_was(tmp_path):
    before = os.sched_getscheduler(0)
    Clip("av1.mp4", codec="libsvtav1", options=AV1).write(tmp_path)
    assert os.sched_getscheduler(0) == before
