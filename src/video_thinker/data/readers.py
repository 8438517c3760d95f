"""Opened video files: the frame that a player shows at a time, by three decoders. Torch-free.

`auto` is the reader of `pyav_reader`, which is right on everything that FFmpeg reads. decord and torchcodec stay
selectable; what they say of a file is compared with that reader's index, and a file on which they are wrong, or may be
wrong unseen, is a `DecodeError` that names the way out.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import av.error
import numpy as np

from video_thinker.data.decoding.failures import cannot_decode, check_file
from video_thinker.data.pyav_reader import PyavReader
from video_thinker.errors import ConfigError, DecodeError
from video_thinker.memory import is_out_of_memory

LENGTH_TOLERANCE_S = 1.0
"""How far the frames' length may be from the length that the container states."""

TIME_TOLERANCE_S = 0.002
"""How far a decoder's time of a frame may be from the container's: Matroska rounds to milliseconds."""

COLOR_TOLERANCE = 8.0
"""How far two decoders' pictures may differ, in levels of 255 on average: they round and scale color differently."""


class VideoReader(Protocol):
    """An opened file. Times are seconds since its first frame.

    Attributes:
        backend: The decoder: "pyav", "decord" or "torchcodec".
        codec: Its name in FFmpeg, as "h264".
        times_s: (T,) when each frame comes on screen: from 0, finite, strictly ascending.
        duration_s: When the last one leaves it.
        stated_duration_s: The length that the container states, where it does.
        cut_off: Where the file ends too early, if its boxes tell that; else empty.
        fps: Frames a second on average.
        width: Pixels across as displayed: upright, with square pixels.
        height: Pixels down as displayed.
    """

    backend: str
    codec: str
    times_s: np.ndarray
    duration_s: float
    fps: float
    width: int
    height: int

    @property
    def stated_duration_s(self) -> float | None:
        """See the class."""
        ...

    @property
    def cut_off(self) -> str:
        """See the class."""
        ...

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """Decode the frames on screen at ascending times, one at a time.

        Yields:
            The frame's own time, and its pixels uint8 (H, W, 3): upright, with the pixel aspect as stored. Resize them
            to `width` x `height` times a factor.
        """
        ...


class _CheckedReader:
    """What decord and torchcodec share: times, length and size are those of the index."""

    backend: str

    def __init__(self, path: Path) -> None:
        """Index `path`; see `VideoReader`."""
        self._reference = PyavReader(path)
        self.codec = self._reference.codec
        self.times_s = self._reference.times_s
        self.duration_s = self._reference.duration_s
        self.stated_duration_s, self.cut_off = self._reference.stated_duration_s, self._reference.cut_off
        self.fps = self._reference.fps
        self.width, self.height = self._reference.width, self._reference.height
        reason = self._reference.special_pixels()
        if reason:
            raise self._cannot(reason)
        with self._own_errors():
            self._open(path)

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """See `VideoReader`."""
        numbers = np.searchsorted(self.times_s, np.asarray(times_s, dtype=np.float64) + 1e-6, side="right") - 1
        for number in np.maximum(numbers, 0).tolist():
            with self._own_errors():
                pixels_HWC = self._read(number)
            yield float(self.times_s[number]), pixels_HWC

    def _open(self, path: Path) -> None:
        """Open the decoder and compare what it says of the file with the index. Raises `DecodeError`."""
        raise NotImplementedError

    def _read(self, number: int) -> np.ndarray:
        raise NotImplementedError

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        """Tell the decoder's own errors, of which each has a class of its own, as what they are: its limits."""
        try:
            yield
        except (DecodeError, ImportError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - re-raised as a `DecodeError`
            if is_out_of_memory(error):
                raise
            raise self._cannot(f"it fails ({_first_words(error)})") from error

    def _compare_first_picture(self) -> None:
        """Compare the first frame with the reference's: orientation, size and colors. Raises `DecodeError`."""
        (_, expected), found = next(self._reference.frames_at([0.0])), self._read(0)
        if expected.shape != found.shape:
            raise self._cannot(
                f"its pictures are {found.shape[1]}x{found.shape[0]}, not {expected.shape[1]}x{expected.shape[0]}"
            )
        difference = float(np.abs(expected.astype(np.float32) - found).mean())
        if difference > COLOR_TOLERANCE:
            raise self._cannot(f"its first picture differs by {difference:.0f} of 255 levels, in color or orientation")

    def _compare_count(self, count: int) -> None:
        if count != len(self.times_s):
            raise self._cannot(f"it counts {count} frames where a player shows {len(self.times_s)}")

    def _compare_time(self, number: int, time_s: float) -> None:
        if not abs(time_s - self.times_s[number]) <= TIME_TOLERANCE_S:  # also where it is no number
            raise self._cannot(f"it shows frame {number} at {time_s:.3f} s, a player at {self.times_s[number]:.3f} s")

    def _cannot(self, reason: str) -> DecodeError:
        return DecodeError(
            f"{self.backend} does not give this file's frames as a player does (codec {self.codec}): {reason}; "
            "set video_backend: auto"
        )


class DecordReader(_CheckedReader):
    """decord: unmaintained. It finds frames by counting, so only files in which that is safe are let through."""

    backend = "decord"

    def _open(self, path: Path) -> None:
        import decord

        reason = self._reference.counting_goes_wrong()
        if reason:
            raise self._cannot(reason)
        self._decoder = decord.VideoReader(str(path), num_threads=1)
        self._compare_count(len(self._decoder))
        times_s = np.asarray(self._decoder.get_frame_timestamp(range(len(self._decoder))), dtype=np.float64)[:, 0]
        for number, time_s in enumerate((times_s - times_s[0]).tolist()):
            self._compare_time(number, time_s)
        self._compare_first_picture()

    def _read(self, number: int) -> np.ndarray:
        return np.asarray(self._decoder[number].asnumpy())


class TorchcodecReader(_CheckedReader):
    """torchcodec in exact mode: the maintained successor of decord; needs the FFmpeg libraries on the system."""

    backend = "torchcodec"

    def _open(self, path: Path) -> None:
        decoders = importlib.import_module("torchcodec.decoders")  # optional, and without types
        self._decoder = decoders.VideoDecoder(
            str(path),
            stream_index=self._reference.stream_index,
            seek_mode="exact",
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
        )
        metadata = self._decoder.metadata
        self._start_s = float(metadata.begin_stream_seconds or 0.0)
        self._compare_count(metadata.num_frames or 0)
        self._compare_first_picture()

    def _read(self, number: int) -> np.ndarray:
        frame = self._decoder.get_frame_at(number)
        self._compare_time(number, float(frame.pts_seconds) - self._start_s)
        return np.asarray(frame.data.numpy())


BACKENDS: dict[str, Callable[[Path], VideoReader]] = {
    "pyav": PyavReader,
    "torchcodec": TorchcodecReader,
    "decord": DecordReader,
}
MODULES = {"pyav": "av", "torchcodec": "torchcodec", "decord": "decord"}


def resolve_backend(backend: str = "auto") -> str:
    """Name the decoder to use; "auto" is "pyav".

    Raises:
        ConfigError: the name is unknown or its package is not installed.
    """
    if backend == "auto":
        return "pyav"
    if backend not in BACKENDS:
        raise ConfigError(f"video_backend={backend!r} is unknown; choose one of auto, {', '.join(BACKENDS)}.")
    if not importlib.util.find_spec(MODULES[backend]):
        raise ConfigError(f"video_backend={backend!r} needs the package {MODULES[backend]!r}, which is not installed.")
    return backend


def open_reader(path: str | Path, *, backend: str = "auto", sample_id: str = "", whole: bool = True) -> VideoReader:
    """Open a video.

    Args:
        path: The file.
        backend: "auto", "pyav", "torchcodec" or "decord".
        sample_id: The sample that wants it, for messages.
        whole: Refuse a file whose frames end elsewhere than its container states, as half a download does.

    Raises:
        DecodeError: the file is missing, empty, unreadable, or not whole.
        ConfigError: the backend is unknown or not installed.
    """
    path, backend = Path(path), resolve_backend(backend)
    check_file(path, sample_id)
    with decode_errors(path, sample_id):
        reader = BACKENDS[backend](path)
        if len(reader.times_s) < 2 or reader.duration_s <= 0:
            raise DecodeError("it holds one frame only, which is no video; give it as an image")
        if whole and (difference := length_difference(reader)):
            raise DecodeError(difference)
    return reader


CUT_OFF = "the file is cut off; fetch it again, or keep what there is: ffmpeg -i FILE -c copy NEW.mkv"


def length_difference(reader: VideoReader) -> str:
    """Say by how much the frames end before the length that the container states, or where the file is cut off.

    Empty if neither is so. Frames beyond the stated length are there and are shown: sound mp4 files with a variable
    rate state too little.
    """
    stated_s = reader.stated_duration_s
    if stated_s is not None and stated_s - reader.duration_s > LENGTH_TOLERANCE_S:
        found = f"only {reader.duration_s:.2f} s of video can be read of the {stated_s:.2f} s that its container states"
    elif reader.cut_off:
        found = f"{reader.duration_s:.2f} s of video can be read, and then {reader.cut_off}"
    else:
        return ""
    return f"{found}: {CUT_OFF}"


@contextmanager
def decode_errors(path: Path, sample_id: str, codec: str = "") -> Iterator[None]:
    """Turn whatever a decoder raises into a `DecodeError` that names file, sample and cause.

    Want of memory is left as it is, and so are errors of the config: they are not the file's fault.
    """
    in_codec = f" (codec {codec})" if codec else ""
    try:
        yield
    except DecodeError as error:
        if str(error).startswith(str(path)):
            raise
        named_codec = "" if f"codec {codec}" in str(error) else in_codec
        raise cannot_decode(path, sample_id, f"{error}{named_codec}") from error
    except ConfigError:
        raise
    except Exception as error:  # decoders raise their own classes, all without a common base
        if is_out_of_memory(error):
            raise
        raise cannot_decode(path, sample_id, f"{_in_our_words(error)}{in_codec}") from error


def _in_our_words(error: Exception) -> str:
    """Say what a decoder says, without the places in its C++ code."""
    if isinstance(error, av.error.InvalidDataError) or "Invalid data found when processing input" in str(error):
        return "the file is damaged, half a download, or no video at all"
    if isinstance(error, av.error.ArgumentError):
        return "the decoder refuses its data, as where the headers were left behind in a cut; encode the original anew"
    if isinstance(error, PermissionError):
        return "this user may not read the file"
    if isinstance(error, EOFError):
        return CUT_OFF
    return _first_words(error)


def _first_words(error: Exception, most: int = 200) -> str:
    """Shorten the message of a library to one line, without the place in its source that it begins with."""
    words = " ".join(str(error).split()) or type(error).__name__
    words = re.sub(r"^(\[[\d:]+\] )?\S*\.(cc|cpp):\d+: |^\S+, \S+\.cpp:\d+, ", "", words)
    return words if len(words) <= most else words[:most] + "…"
