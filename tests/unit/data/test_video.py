"""File -> frames: sampling, real timestamps, orientation, and errors that name file, sample and cause."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tests.conftest import write_clip
from video_thinker.data.readers import resolve_backend
from video_thinker.data.video import VideoSampling, choose_frames, load_video, num_sampled, probe_video
from video_thinker.errors import ConfigError, DecodeError

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(module), reason=f"{module} not installed"))
    for name, module in (("decord", "decord"), ("torchcodec", "torchcodec"), ("pyav", "av"))
]
REAL = {  # file: frames, seconds, width, height
    "OHOFG.mp4": (335, 35.14, 640, 360),
    "collisions.mp4": (491, 22.03, 640, 360),
    "flipping_a_pancake.mkv": (310, 10.33, 426, 240),
    "unordered.mov": (4, 0.125, 50, 50),
    "video_0.mov": (3, 0.1, 568, 320),
    "video_90.mov": (3, 0.1, 320, 568),
    "video_180.mov": (3, 0.1, 568, 320),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_and_timestamps_of_a_known_clip(tmp_path, backend):
    path = write_clip(tmp_path / "clip.mp4", [(250, 0, 0), (0, 250, 0), (0, 0, 250)], fps=10, size=(56, 56))
    video = load_video(path, VideoSampling(fps=2.0), backend=backend)
    assert video.frames.shape == (6, 3, 56, 56) and video.frames.dtype.is_floating_point is False
    assert video.timestamps_s == pytest.approx([0.0, 0.6, 1.2, 1.7, 2.3, 2.9])
    assert video.duration_s == pytest.approx(3.0)
    assert video.sample_fps == pytest.approx(5 / 2.9)
    brightest = video.frames[:, :, 40:, 40:].float().mean(dim=(2, 3)).argmax(dim=1)
    assert brightest.tolist() == [0, 0, 1, 1, 2, 2]  # red, green, blue, in order


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REAL)
def test_real_clips_behave_as_described(shared_dir, name, backend):
    num_frames, duration_s, width, height = REAL[name]
    path = shared_dir / "videos" / name
    info = probe_video(path, backend=backend)
    assert (info.num_frames, info.width, info.height) == (num_frames, width, height)
    assert info.duration_s == pytest.approx(duration_s, abs=0.05)
    video = load_video(path, VideoSampling(min_frames=2), backend=backend)
    assert list(video.timestamps_s) == sorted(set(video.timestamps_s))
    assert video.timestamps_s[0] == 0 and video.timestamps_s[-1] < video.duration_s
    reference = load_video(path, VideoSampling(min_frames=2), backend="pyav")
    assert video.timestamps_s == pytest.approx(reference.timestamps_s, abs=1e-3)
    assert (video.frames.float() - reference.frames.float()).abs().mean() < 2.0  # also holds the rotation


@pytest.mark.parametrize("backend", BACKENDS)
def test_corrupted_clip_is_a_decode_error_with_file_and_sample(shared_dir, backend):
    with pytest.raises(DecodeError, match=r"corrupted\.mp4: cannot decode \(sample 'v7'"):
        load_video(shared_dir / "videos" / "corrupted.mp4", VideoSampling(), sample_id="v7", backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_empty_truncated_and_non_video_files(tmp_path, backend):
    clip = write_clip(tmp_path / "clip.mp4", [(9, 9, 9)] * 4)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:900])
    causes = {"nowhere.mp4": "no such file", "empty.mp4": "is empty", "text.mp4": "decode", "cut.mp4": "decode"}
    for name, cause in causes.items():
        with pytest.raises(DecodeError, match=rf"{name}.*{cause}.*'s1'"):
            load_video(tmp_path / name, VideoSampling(), sample_id="s1", backend=backend)


def test_too_short_is_a_decode_error_that_says_which_option_asks_for_more(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", [(9, 9, 9)], fps=3)
    with pytest.raises(DecodeError, match=r"too short.*'s1'.*3 frames, min_frames=4"):
        load_video(path, VideoSampling(), sample_id="s1")
    with pytest.raises(DecodeError, match="num_frames=16 asks for more"):
        load_video(path, VideoSampling(num_frames=16))
    assert len(load_video(path, VideoSampling(min_frames=2)).timestamps_s) == 2


@pytest.mark.parametrize(
    ("sampling", "count"),
    [
        (VideoSampling(fps=2.0, max_frames=16), 16),  # 60 s at 2 fps would be 120
        (VideoSampling(fps=0.01, min_frames=6), 6),
        (VideoSampling(fps=0.2, max_frames=64), 12),
        (VideoSampling(num_frames=32, max_frames=8), 32),
    ],
)
def test_number_of_frames(sampling, count):
    assert num_sampled(1800, 60.0, sampling) == count
    indices = choose_frames(np.arange(1800) / 30, count)
    assert len(indices) == count
    assert indices[0] == 0 and indices[-1] == 1799 and indices == sorted(set(indices))


def test_frames_are_chosen_by_time_each_once():
    """A screen that stands still for 50 s, then moves: the frames nearest to even times, and neighbors beside them."""
    times_s = np.concatenate([[0.0], 50 + np.arange(20) / 10])
    assert choose_frames(times_s, 4) == [0, 1, 2, 20]  # even times: 0, 17.3, 34.6, 51.9 s
    assert choose_frames(times_s, 21) == list(range(21))
    late = np.concatenate([np.arange(20) / 10, [52.0]])
    assert choose_frames(late, 4) == [0, 18, 19, 20]
    assert choose_frames(np.array([0.0, 1.0, 2.0, 10.0]), 2) == [0, 3]
    jitter = np.arange(100) / 30 + np.random.default_rng(0).uniform(-0.01, 0.01, 100)
    assert choose_frames(np.sort(jitter), 16) == np.linspace(0, 99, 16).round().tolist()


def test_pixel_limits_and_factor(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", [(9, 9, 9)] * 4, size=(320, 180))
    for limit in (28 * 28, 40 * 28 * 28, 128 * 28 * 28):
        height, width = load_video(path, VideoSampling(max_pixels=limit)).frames.shape[2:]
        assert height * width <= limit and height % 28 == 0 and width % 28 == 0
    assert load_video(path, VideoSampling(), factor=32).frames.shape[2] % 32 == 0


def test_variable_frame_rate_keeps_the_real_times(tmp_path):
    """Ten frames in the first second, one per second after that: nominal frame rates would be far off."""
    import av

    path = tmp_path / "vfr.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i * 12, np.uint8), format="rgb24")
            frame.pts = i if i < 10 else 10 + (i - 10) * 10
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for backend in ("decord", "pyav"):
        video = load_video(path, VideoSampling(num_frames=20), backend=backend)
        assert video.timestamps_s[9:12] == pytest.approx([0.9, 1.0, 2.0], abs=0.01)
        assert video.sample_fps == pytest.approx(19 / 10.0, abs=0.01)


@pytest.mark.parametrize(
    "options",
    [{"num_frames": 1}, {"fps": 0}, {"min_frames": 8, "max_frames": 4}, {"min_pixels": 9, "max_pixels": 5}],
    ids=str,
)
def test_impossible_sampling_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        VideoSampling(**options)


def test_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match="choose one of auto, pyav"):
        resolve_backend("vlc")
