"""File -> sampled frames with their real timestamps.

Frames are chosen by qwen-vl-utils (`smart_nframes`) and sized by transformers' copy of its `smart_resize` (which never
rounds a side down to 0), so `fps`, `num_frames` and the pixel limits mean what users of Qwen-VL know. Decoding is done
here, because `fetch_video` falls back from one reader to another without a word and takes nominal frame rates: a file
is decoded by one named backend, every frame carries the timestamp stored in the file, and anything that goes wrong is a
`DecodeError`. Nothing is ever substituted.

Shapes: T sampled frames, H x W pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from qwen_vl_utils.vision_process import FRAME_FACTOR, smart_nframes
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

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
    """What a container really holds: counted frames, average fps, seconds, pixels after rotation."""

    num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    backend: str


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


class VideoReader(Protocol):
    """An opened file. `read` gives frames (T, H, W, 3) uint8 and their timestamps in seconds from the first frame."""

    num_frames: int
    fps: float
    duration_s: float

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, list[float]]:
        """Decode the frames at `indices` (presentation order)."""
        ...


class DecordReader:
    """decord: seeks to the wanted frames, so a few frames of a long file are cheap. Applies rotation itself."""

    def __init__(self, path: Path) -> None:
        """Open `path`; decord scans it for key frames, so `num_frames` is counted, not believed."""
        import decord

        self._reader = decord.VideoReader(str(path), num_threads=1)
        self.num_frames = len(self._reader)
        self.fps = float(self._reader.get_avg_fps())
        self._times = np.asarray(self._reader.get_frame_timestamp(range(self.num_frames)), dtype=np.float64)
        self.duration_s = float(self._times[-1, 1] - self._times[0, 0]) if self.num_frames else 0.0

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, list[float]]:
        """Decode the frames at `indices`; see `VideoReader`."""
        frames = self._reader.get_batch(list(indices)).asnumpy()
        return frames, [float(self._times[i, 0] - self._times[0, 0]) for i in indices]


class TorchcodecReader:
    """torchcodec: the maintained successor of decord; needs the FFmpeg libraries on the system."""

    def __init__(self, path: Path) -> None:
        """Open `path` in exact seek mode, which scans the file and counts its frames."""
        from torchcodec.decoders import VideoDecoder

        self._decoder = VideoDecoder(str(path), seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1)
        metadata = self._decoder.metadata
        self.num_frames = metadata.num_frames or 0
        self.fps = float(metadata.average_fps or 0.0)
        self._start_s = float(metadata.begin_stream_seconds or 0.0)
        self.duration_s = float(metadata.end_stream_seconds or 0.0) - self._start_s

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, list[float]]:
        """Decode the frames at `indices`; see `VideoReader`."""
        batch = self._decoder.get_frames_at(indices=list(indices))
        return batch.data.numpy(), [float(s) - self._start_s for s in batch.pts_seconds]


class PyavReader:
    """PyAV: bundles FFmpeg, reads from the start up to the last wanted frame; the slowest and the most robust."""

    def __init__(self, path: Path) -> None:
        """Demux `path` once for the presentation times of all frames."""
        import av

        self._path = path
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packets = [(p.pts, p.duration or 0) for p in container.demux(stream) if p.pts is not None]
            time_base = float(stream.time_base or 0)
        packets.sort()
        self.num_frames = len(packets)
        self._times = [(pts - packets[0][0]) * time_base for pts, _ in packets]
        step_s = self._times[-1] / (self.num_frames - 1) if self.num_frames > 1 else 0.0
        self.duration_s = self._times[-1] + (packets[-1][1] * time_base or step_s) if packets else 0.0
        self.fps = self.num_frames / self.duration_s if self.duration_s > 0 else 0.0

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, list[float]]:
        """Decode the frames at `indices`; see `VideoReader`."""
        import av

        wanted, found = set(indices), {}
        with av.open(str(self._path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    image = frame.to_ndarray(format="rgb24")
                    found[index] = np.rot90(image, k=round(frame.rotation / 90)) if frame.rotation else image
                if index >= max(wanted):
                    break
        if len(found) < len(wanted):
            raise EOFError(f"only {len(found)} of {len(wanted)} sampled frames could be decoded")
        return np.stack([found[i] for i in indices]), [self._times[i] for i in indices]


BACKENDS: dict[str, Callable[[Path], VideoReader]] = {
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
    "pyav": PyavReader,
}
_MODULES = {"decord": "decord", "torchcodec": "torchcodec", "pyav": "av"}


def resolve_backend(backend: str = "auto") -> str:
    """Name the decoder to use: "auto" is the first installed one of decord, torchcodec, PyAV.

    Raises:
        ConfigError: the name is unknown or its package is not installed.
    """
    if backend == "auto":
        backend = next((name for name, module in _MODULES.items() if importlib.util.find_spec(module)), "pyav")
    if backend not in BACKENDS:
        raise ConfigError(f"video_backend={backend!r} is unknown; choose one of auto, {', '.join(BACKENDS)}.")
    if not importlib.util.find_spec(_MODULES[backend]):
        raise ConfigError(f"video_backend={backend!r} needs the package {_MODULES[backend]!r}, which is not installed.")
    return backend


@contextmanager
def _decode_errors(path: Path, sample_id: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a `DecodeError` that names file, sample and cause."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:  # decoders raise their own classes, all without a common base
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DecodeError(
            f"{path}: cannot decode ({_named(sample_id)}{cause[:300]}); "
            "fix the file or drop its rows (on_decode_error: skip drops and lists them)."
        ) from error


def _named(sample_id: str) -> str:
    return f"sample {sample_id!r}: " if sample_id else ""


def _open(path: Path, backend: str, sample_id: str) -> VideoReader:
    if not path.is_file():
        raise DecodeError(f"{path}: no such file ({_named(sample_id)}check media_root and the row's path).")
    if path.stat().st_size == 0:
        raise DecodeError(f"{path}: the file is empty ({_named(sample_id)}0 bytes).")
    with _decode_errors(path, sample_id):
        reader = BACKENDS[backend](path)
    if reader.num_frames == 0 or reader.fps <= 0:
        raise DecodeError(f"{path}: the file holds no video frames ({_named(sample_id)}backend {backend}).")
    return reader


def sample_indices(num_frames: int, fps: float, sampling: VideoSampling) -> list[int]:
    """Choose frame numbers, as qwen-vl-utils does: evenly spaced from the first to the last frame.

    Raises:
        ValueError: the video has fewer frames than the sampling asks for at the least.
    """
    least = sampling.num_frames or sampling.min_frames
    if num_frames < least:
        option = "num_frames" if sampling.num_frames else "min_frames"
        raise ValueError(f"it has {num_frames} frames, {option}={least} asks for more; lower {option} or drop the row")
    if sampling.num_frames:
        wanted: dict[str, float] = {"nframes": sampling.num_frames}
    else:
        wanted = {"fps": sampling.fps, "min_frames": sampling.min_frames}
        wanted["max_frames"] = min(sampling.max_frames, num_frames)
    count = smart_nframes(wanted, total_frames=num_frames, video_fps=fps)
    return np.linspace(0, num_frames - 1, count).round().astype(int).tolist()


def resize_frames(frames: torch.Tensor, sampling: VideoSampling, factor: int = IMAGE_FACTOR) -> torch.Tensor:
    """Resize uint8 frames (T, 3, H, W) so that both sides are multiples of `factor` within the pixel limits."""
    height, width = smart_resize(
        frames.shape[-2], frames.shape[-1], factor, min_pixels=sampling.min_pixels, max_pixels=sampling.max_pixels
    )
    if (height, width) == tuple(frames.shape[-2:]):
        return frames
    return resize(frames, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)


def load_video(
    path: str | Path,
    sampling: VideoSampling,
    *,
    sample_id: str = "",
    backend: str = "auto",
    factor: int = IMAGE_FACTOR,
) -> SampledVideo:
    """Decode, sample and resize one video.

    Args:
        path: The video file.
        sampling: Frames and pixels to take.
        sample_id: The sample that wants it, for error messages.
        backend: "auto", "decord", "torchcodec" or "pyav".
        factor: Patch size x spatial merge size of the model's vision tower.

    Raises:
        DecodeError: the file is missing, empty, unreadable, or has too few frames.
        ConfigError: the backend is unknown or not installed.
    """
    path, backend = Path(path), resolve_backend(backend)
    reader = _open(path, backend, sample_id)
    try:
        indices = sample_indices(reader.num_frames, reader.fps, sampling)
    except ValueError as error:
        raise DecodeError(f"{path}: the video is too short ({_named(sample_id)}{error}).") from error
    with _decode_errors(path, sample_id):
        frames_THWC, timestamps_s = reader.read(indices)
    frames = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
    with _decode_errors(path, sample_id):
        frames = resize_frames(frames, sampling, factor)
    return SampledVideo(frames.contiguous(), tuple(timestamps_s), reader.duration_s, reader.fps, backend)


def load_span(
    path: str | Path,
    start_s: float,
    end_s: float,
    num_frames: int,
    max_pixels: int,
    *,
    sample_id: str = "",
    backend: str = "auto",
) -> tuple[np.ndarray, list[float]]:
    """Decode frames of a part of a video, evenly spaced over it; fewer where it has fewer.

    Returns:
        Frames uint8 (T, H, W, 3), scaled down to at most `max_pixels`, and their times in seconds.

    Raises:
        DecodeError: the file is missing, empty or unreadable.
    """
    path, backend = Path(path), resolve_backend(backend)
    reader = _open(path, backend, sample_id)
    last = reader.num_frames - 1
    first = min(last, int(np.ceil(start_s * reader.fps - 1e-6)))
    stop = max(first, min(last, int(np.ceil(end_s * reader.fps - 1e-6)) - 1))  # the frame at end_s is outside
    indices = np.linspace(first, stop, min(num_frames, stop - first + 1)).round().astype(int).tolist()
    with _decode_errors(path, sample_id):
        frames_THWC, timestamps_s = reader.read(indices)
        frames = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
        sampling = VideoSampling(min_pixels=1, max_pixels=max_pixels)
        frames = resize_frames(frames, sampling) if frames[0, 0].numel() > max_pixels else frames
    return frames.permute(0, 2, 3, 1).contiguous().numpy(), timestamps_s


def probe_video(path: str | Path, *, sample_id: str = "", backend: str = "auto") -> VideoInfo:
    """Open a video and decode its first, middle and last frame.

    Raises:
        DecodeError: the file is missing, empty or unreadable.
        ConfigError: the backend is unknown or not installed.
    """
    path, backend = Path(path), resolve_backend(backend)
    reader = _open(path, backend, sample_id)
    last = reader.num_frames - 1
    with _decode_errors(path, sample_id):
        frames_THWC, _ = reader.read(sorted({0, last // 2, last}))
    height, width = frames_THWC.shape[1:3]
    return VideoInfo(reader.num_frames, reader.fps, reader.duration_s, width, height, backend)
