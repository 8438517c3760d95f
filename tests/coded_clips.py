"""Clips whose frames carry their own number, made with PyAV: container x codec x groups of pictures x trimming x rate.

The picture of frame n shows the eight bits of n as white (1) and black (0) blocks, four over four, lowest bit first; a
strip below them is red on the left and blue on the right, so that a turned or mirrored picture is seen, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 64, 48
BLOCK = 16


def picture(number: int) -> np.ndarray:
    """Paint frame `number` (below 256): uint8 (48, 64, 3)."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            row, column = divmod(bit, 4)
            pixels[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK] = 255
    pixels[2 * BLOCK :, : WIDTH // 2] = (220, 20, 20)
    pixels[2 * BLOCK :, WIDTH // 2 :] = (20, 20, 220)
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """Read the number of a frame (H, W, 3) of any size, or -1 if the picture is not upright."""
    height, width = pixels.shape[:2]
    strip = pixels[int(height * 0.8) : int(height * 0.95)].astype(float)
    left, right = strip[:, : width // 3].mean(axis=(0, 1)), strip[:, -(width // 3) :].mean(axis=(0, 1))
    if left[0] < left[2] + 60 or right[2] < right[0] + 60:
        return -1
    number = 0
    for bit in range(8):
        row, column = divmod(bit, 4)
        y, x = int((row + 0.5) * height / 3), int((column + 0.5) * width / 4)
        half_y, half_x = max(1, height // 24), max(1, width // 32)
        block = pixels[y - half_y : y + half_y, x - half_x : x + half_x]
        number |= int(block.mean() > 127) << bit
    return number


CONSTANT = [Fraction(n, 10) for n in range(40)]
"""When each frame is shown, in seconds: 10 a second."""
NTSC = [Fraction(1001 * n, 30000) for n in range(60)]
CINEMA = [Fraction(1001 * n, 24000) for n in range(60)]
SLOW_THEN_FAST = [Fraction(n) for n in range(8)] + [8 + Fraction(n, 10) for n in range(30)]
FAST_THEN_SLOW = [Fraction(n, 10) for n in range(30)] + [3 + Fraction(n) for n in range(1, 9)]
_JITTER = np.random.default_rng(0).integers(-9, 10, 60)
PHONE = [Fraction(int(33 * n + (_JITTER[n] if n else 0)), 1000) for n in range(60)]


@contextmanager
def same_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does as root: it leaves the calling thread in real time, and so every process started later.

    Two such processes that wait for a child in a loop hold two cores for ever: their children never run.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


@dataclass(frozen=True)
class Clip:
    """How a clip is made. `keep` numbers the frames that a player shows of it, first and last."""

    name: str
    codec: str = "libx264"
    times_s: Sequence[Fraction] = field(default_factory=lambda: CONSTANT)
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    trim_s: float | None = None
    shift_s: Fraction = Fraction(0)
    time_base: Fraction = Fraction(1, 30000)
    sound_s: float = 0.0
    adjust: Callable[[av.VideoStream], None] | None = None

    @property
    def expected(self) -> list[tuple[float, int]]:
        """Time in seconds from the first shown frame, and number, of every frame that a player shows."""
        first = next((n for n, t in enumerate(self.times_s) if self.trim_s is None or t >= self.trim_s - 1e-6))
        return [(float(t - self.times_s[first]), n) for n, t in enumerate(self.times_s) if n >= first]

    def write(self, folder: Path) -> Path:
        """Write the clip; a trimmed one by copying the packets of a whole one."""
        path = folder / self.name
        with same_scheduling():
            if self.trim_s is None:
                self._encode(path)
            else:
                whole = folder / f"whole {self.name}.mp4"
                self._encode(whole)
                trim(whole, path, self.trim_s, self.muxer)
                whole.unlink()
        return path

    def _encode(self, path: Path) -> None:
        with av.open(str(path), "w", options=self.muxer) as container:
            rate = 1 / (self.times_s[1] - self.times_s[0])
            stream = container.add_stream(self.codec, rate=rate, options=dict(self.options))
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, self.pix_fmt
            stream.thread_count = 1
            steady = len({b - a for a, b in zip(self.times_s, self.times_s[1:], strict=False)}) == 1
            unit = 1 / rate if steady else self.time_base
            stream.codec_context.time_base = unit
            if self.adjust:
                self.adjust(stream)
            sound = container.add_stream("aac", rate=8000) if self.sound_s else None
            for number, time_s in enumerate(self.times_s):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format=self.pix_fmt)
                frame.time_base, frame.pts = unit, round((time_s + self.shift_s) / unit)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            if sound is not None:
                _add_silence(container, sound, self.sound_s)


def _add_silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(8000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def trim(source: Path, path: Path, start_s: float, muxer: dict[str, str] | None = None) -> None:
    """Cut without decoding, as `ffmpeg -ss START -i SOURCE -c copy` does: from the key frame before, times shifted."""
    with av.open(str(source)) as read, av.open(str(path), "w", options=muxer or {}) as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        offset = round(start_s / stream.time_base) + (stream.start_time or 0)
        read.seek(offset, stream=stream)
        started = False
        for packet in read.demux(stream):
            started = started or packet.is_keyframe
            if not packet.size or not started:
                continue
            packet.pts -= offset
            packet.dts -= offset
            packet.stream = copy
            written.mux(packet)
