"""File -> sampled frames with their real timestamps.

Frames are chosen by qwen-vl-utils (`smart_nframes`) and sized by transformers' copy of its `smart_resize` (which never
rounds a side down to 0), so `fps`, `num_frames` and the pixel limits mean what users of Qwen-VL know. Decoding is done
by `readers`, because `fetch_video` falls back from one reader to another without a word and takes nominal frame rates:
a file is decoded by one named backend, every frame carries the timestamp stored in the file, and anything that goes
wrong is a `DecodeError`. Nothing is ever substituted.

Shapes: T sampled frames, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from qwen_vl_utils.vision_process import FRAME_FACTOR, smart_nframes
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.decoding.failures import named
from video_thinker.data.decoding.videos import RemoteVideo, read_video
from video_thinker.data.readers import decode_errors, length_difference
from video_thinker.errors import ConfigError, DecodeError

IMAGE_FACTOR = 28  # patch size 14 x spatial merge 2 of Qwen2.5-VL; of the model at hand: `SampleEncoder.resize_factor`


@dataclass(frozen=True, slots=True)
class VideoSampling:
    """Which frames are taken of a video, and how large they are.

    Give `fps` (frames per second, clamped to [`min_frames`, `max_frames`]), or `num_frames` (a fixed number; it wins).
    `min_pixels` and `max_pixels` bound height x width of one frame; the aspect ratio is kept.
    """

    fps: float = 2.0
    num_frames: int | None = None
    min_frames: int = 4
    max_frames: int = 16
    min_pixels: int = 28 * 28
    max_pixels: int = 128 * 28 * 28

    def __post_init__(self) -> None:
        """Raise `ConfigError` for numbers no video can satisfy."""
        for name in ("num_frames", "min_frames"):
            count = getattr(self, name)
            if count is not None and count % FRAME_FACTOR:
                raise ConfigError(
                    f"{name}={count}: must be even, since the model sees frames in pairs (temporal patches of "
                    f"{FRAME_FACTOR}); give {count - 1} or {count + 1}."
                )
        if self.num_frames is not None and self.num_frames < FRAME_FACTOR:
            raise ConfigError(f"num_frames={self.num_frames}: at least {FRAME_FACTOR} frames are needed.")
        if self.fps <= 0:
            raise ConfigError(f"fps={self.fps}: must be above 0.")
        if not FRAME_FACTOR <= self.min_frames <= self.max_frames:
            raise ConfigError(
                f"min_frames={self.min_frames}, max_frames={self.max_frames}: "
                f"{FRAME_FACTOR} <= min_frames <= max_frames must hold."
            )
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ConfigError(
                f"min_pixels={self.min_pixels}, max_pixels={self.max_pixels}: 0 < min_pixels <= max_pixels must hold."
            )


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a container really holds: counted frames, average fps, seconds, pixels as displayed.

    `stated_duration_s` is the length that the container states, if it does; `difference` says in words how the frames'
    length differs from it by more than a second, and is empty if it does not.
    """

    num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    backend: str
    codec: str = ""
    stated_duration_s: float | None = None
    difference: str = ""


@dataclass(frozen=True, slots=True)
class SampledVideo:
    """Frames ready for a processor: `frames` uint8 (T, 3, H, W); `timestamps_s` of length T, ascending, from 0."""

    frames: torch.Tensor
    timestamps_s: tuple[float, ...]
    duration_s: float
    native_fps: float
    backend: str

    @property
    def sample_fps(self) -> float:
        """Sampled frames per second of video, from the real timestamps.

        The position ids of Qwen2.5-VL are built from it; Qwen3-VL gets the timestamps themselves.
        """
        span_s = self.timestamps_s[-1] - self.timestamps_s[0]
        return (len(self.timestamps_s) - 1) / span_s if span_s > 0 else self.native_fps


def choose_frames(times_s: np.ndarray, count: int) -> list[int]:
    """Choose frames evenly spaced in time, from the first to the last: the nearest ones, each once.

    At a constant rate that is evenly spaced by number, and is computed so. Where the rate varies, a frame that is
    nearest to two of the times is taken once, and a neighbor beside it.

    Args:
        times_s: (T,) ascending times of the frames to choose from.
        count: How many, at most T.
    """
    last = len(times_s) - 1
    by_number = np.linspace(0, last, count).round().astype(int)
    step_s = (times_s[-1] - times_s[0]) / max(last, 1)
    if (np.abs(times_s - times_s[0] - step_s * np.arange(last + 1)) <= step_s / 2).all():
        return list(by_number.tolist())
    even_s = np.linspace(times_s[0], times_s[-1], count)
    after = np.clip(np.searchsorted(times_s, even_s), 1, last)
    chosen = np.where(even_s - times_s[after - 1] <= times_s[after] - even_s, after - 1, after)
    places = np.arange(count)
    chosen = np.maximum.accumulate(chosen - places) + places  # each at least one behind the one before
    chosen = np.minimum(chosen, last - places[::-1])  # and as many left as are needed
    return list(chosen.tolist())


def num_sampled(num_frames: int, duration_s: float, sampling: VideoSampling) -> int:
    """Count the frames to take of a video, by its duration, as qwen-vl-utils does.

    Raises:
        ValueError: the video has fewer frames than the sampling asks for at the least.
    """
    least = sampling.num_frames or sampling.min_frames
    if num_frames < least:
        option = "num_frames" if sampling.num_frames else "min_frames"
        raise ValueError(f"it has {num_frames} frames, {option}={least} asks for more; lower {option} or drop the row")
    if sampling.num_frames:
        return sampling.num_frames
    wanted = {
        "fps": sampling.fps,
        "min_frames": sampling.min_frames,
        "max_frames": min(sampling.max_frames, num_frames),
    }
    return int(smart_nframes(wanted, total_frames=num_frames, video_fps=num_frames / duration_s))


def frame_size(height: int, width: int, sampling: VideoSampling, factor: int = IMAGE_FACTOR) -> tuple[int, int]:
    """Give the height and width, multiples of `factor` within the pixel limits, that a picture is resized to."""
    size: tuple[int, int] = smart_resize(
        height, width, factor, min_pixels=sampling.min_pixels, max_pixels=sampling.max_pixels
    )
    return size


def resize_picture(pixels_HWC: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Resize a picture uint8 (H, W, 3) to `size` (height, width): uint8 (3, H, W)."""
    picture = torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1)
    if tuple(picture.shape[1:]) == size:
        return picture
    resized: torch.Tensor = resize(picture, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized


def load_video(
    path: str | Path,
    sampling: VideoSampling,
    *,
    sample_id: str = "",
    backend: str = "auto",
    factor: int = IMAGE_FACTOR,
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
) -> SampledVideo:
    """Decode, sample and resize one video.

    Which frames are taken is said at `choose_frames`, how many at `num_sampled`. Where pictures change their size on
    the way, all get the size that the first one would have.

    Args:
        path: The video file.
        sampling: Frames and pixels to take.
        sample_id: The sample that wants it, for error messages.
        backend: "auto", "pyav", "torchcodec" or "decord".
        factor: Patch size x spatial merge size of the model's vision tower.
        timeout_s: Seconds that opening and decoding may take in all; `None` for no limit.

    Raises:
        DecodeError: the file is missing, empty, unreadable, cut off, has too few frames, or is not decoded in time.
        MediaMemoryError: there is not enough memory to decode it.
        ConfigError: the backend is unknown or not installed.
    """
    path = Path(path)

    def read(reader: RemoteVideo) -> SampledVideo:
        try:
            count = num_sampled(len(reader.times_s), reader.duration_s, sampling)
        except ValueError as error:
            raise DecodeError(f"{path}: the video is too short ({named(sample_id)}{error}).") from error
        chosen_s = reader.times_s[choose_frames(reader.times_s, count)]
        with decode_errors(path, sample_id):
            size = frame_size(reader.height, reader.width, sampling, factor)
            frames = torch.empty((count, 3, *size), dtype=torch.uint8)
            timestamps_s = []
            for number, (time_s, pixels_HWC) in enumerate(reader.frames_at(chosen_s.tolist())):
                frames[number] = resize_picture(pixels_HWC, size)
                timestamps_s.append(time_s)
            if len(set(timestamps_s)) < count:
                raise DecodeError(f"only {len(set(timestamps_s))} of {count} sampled frames can be decoded")
        return SampledVideo(frames, tuple(timestamps_s), reader.duration_s, reader.fps, reader.backend)

    return read_video(path, read, backend=backend, sample_id=sample_id, timeout_s=timeout_s)


def load_span(
    path: str | Path,
    start_s: float,
    end_s: float,
    num_frames: int,
    max_pixels: int,
    *,
    sample_id: str = "",
    backend: str = "auto",
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
) -> tuple[np.ndarray, list[float]]:
    """Decode frames of a part of a video: those that come on screen in [start_s, end_s), evenly spaced in time.

    Where no frame comes on screen in it, the one that is on screen at its start is given.

    Returns:
        Frames uint8 (T, H, W, 3), T at most `num_frames` and fewer where the part has fewer, with square pixels and
        scaled down to at most `max_pixels`, and their times in seconds.

    Raises:
        DecodeError: the file is missing, empty, unreadable or cut off.
    """
    path = Path(path)

    def read(reader: RemoteVideo) -> tuple[np.ndarray, list[float]]:
        first, stop = np.searchsorted(reader.times_s, [start_s - 1e-6, end_s - 1e-6])  # the frame at end_s is outside
        within_s = reader.times_s[first:stop]
        if not len(within_s):
            within_s = reader.times_s[max(0, first - 1) : max(1, first)]
        chosen_s = within_s[choose_frames(within_s, min(num_frames, len(within_s)))]
        with decode_errors(path, sample_id):
            size = (reader.height, reader.width)
            if reader.height * reader.width > max_pixels:
                size = frame_size(*size, VideoSampling(min_pixels=1, max_pixels=max_pixels))
            frames, times_s = [], []
            for time_s, pixels_HWC in reader.frames_at(chosen_s.tolist()):
                frames.append(resize_picture(pixels_HWC, size).permute(1, 2, 0).numpy())
                times_s.append(time_s)
        return np.stack(frames), times_s

    return read_video(path, read, backend=backend, sample_id=sample_id, timeout_s=timeout_s)


def probe_video(
    path: str | Path,
    *,
    sample_id: str = "",
    backend: str = "auto",
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
) -> VideoInfo:
    """Open a video and decode its first, middle and last frame. Half a download is told by `VideoInfo.difference`.

    Raises:
        DecodeError: the file is missing, empty or unreadable.
        ConfigError: the backend is unknown or not installed.
    """
    path = Path(path)

    def read(reader: RemoteVideo) -> VideoInfo:
        last = len(reader.times_s) - 1
        with decode_errors(path, sample_id):
            for _ in reader.frames_at(reader.times_s[sorted({0, last // 2, last})].tolist()):
                pass
        return VideoInfo(
            num_frames=len(reader.times_s),
            fps=reader.fps,
            duration_s=reader.duration_s,
            width=reader.width,
            height=reader.height,
            backend=reader.backend,
            codec=reader.codec,
            stated_duration_s=reader.stated_duration_s,
            difference=length_difference(reader),
        )

    return read_video(path, read, backend=backend, sample_id=sample_id, whole=False, timeout_s=timeout_s)
