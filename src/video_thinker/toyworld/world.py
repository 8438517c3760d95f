"""What a toy clip is: five colored blobs, one after the other, as a small mp4 file.

A clip has five segments. Each segment shows one blob of one color at one of four places for a whole number of seconds;
the five colors are distinct. The blob jitters and drifts, and every pixel carries noise. There is no clock in the
picture: time can only be read from the order of the frames.

    >>> clip = sample_clip(random.Random(0), "train_sft")
    >>> [f"{s.start_s}-{s.end_s} {s.color} {s.place}" for s in clip.spans]
    ['0-1 purple bottom', '1-2 orange bottom', '2-5 red bottom', '5-6 green bottom', '6-7 blue bottom']

No split shares a timeline (the ordered five colors) with another one: a checksum of the timeline decides which split
may use it. Every color has one place where it is only ever seen out of distribution (`HELD_OUT_PLACE`).
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from video_thinker.runs.files import drafting

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 35),
    "green": (30, 170, 50),
    "blue": (40, 60, 235),
    "yellow": (235, 225, 40),
    "purple": (165, 40, 205),
    "cyan": (40, 215, 225),
    "orange": (245, 130, 20),
    "white": (240, 240, 240),
}
PLACES: dict[str, tuple[float, float]] = {
    "left": (0.22, 0.5),
    "right": (0.78, 0.5),
    "top": (0.5, 0.22),
    "bottom": (0.5, 0.78),
}
CORNERS: dict[str, tuple[float, float]] = {
    f"{row} {column}": (x, y)
    for row, y in (("top", 0.25), ("bottom", 0.75))
    for column, x in (("left", 0.25), ("right", 0.75))
}
"""Where no clip of any split shows a blob; the base's vision tower alone sees them, to learn color wherever it is."""

PLACE_PHRASES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
HELD_OUT_PLACE = {color: list(PLACES)[i % len(PLACES)] for i, color in enumerate(COLORS)}

NUM_SEGMENTS = 5
SEGMENT_SECONDS = (1, 2, 3)
CLIP_SECONDS = (6, 7, 8)
OOD_CLIP_SECONDS = (5, 9)
QUESTION_COLORS = ("red", "green", "blue", "purple", "cyan", "orange")
"""The colors of every split but the base's, which has yellow and white too and mistakes them in unseen places."""

FRAME_RATE = 4
FRAME_SIZE = 112

# Which checksums (mod 20) of a timeline belong to which split.
TIMELINE_BUCKETS: dict[str, range] = {
    "base": range(0, 10),
    "train_sft": range(10, 12),
    "train_grpo": range(12, 15),
    "dev_id": range(15, 16),
    "dev_ood": range(16, 17),
    "test_id": range(17, 19),
    "test_ood": range(19, 20),
}


@dataclass(frozen=True, slots=True)
class Span:
    """One blob: its color, its place, and the whole seconds it is seen."""

    start_s: int
    end_s: int
    color: str
    place: str

    @property
    def caption(self) -> str:
        """What a captioner would say, e.g. "red on the left"."""
        return f"{self.color} {PLACE_PHRASES[self.place]}"


@dataclass(frozen=True, slots=True)
class Clip:
    """Five spans that follow each other without a gap, and the seed of the picture's jitter and noise."""

    spans: tuple[Span, ...]
    picture_seed: int

    @property
    def duration_s(self) -> int:
        """Length in seconds."""
        return self.spans[-1].end_s

    @property
    def timeline(self) -> tuple[str, ...]:
        """The colors in order."""
        return tuple(span.color for span in self.spans)


def timeline_bucket(timeline: tuple[str, ...]) -> int:
    """The checksum that assigns a timeline to a split; the same on every machine and for every seed."""
    return zlib.crc32(" ".join(timeline).encode()) % 20


def sample_clip(rng: random.Random, split: str) -> Clip:
    """Draw one clip of `split` (a key of `TIMELINE_BUCKETS`).

    Splits named `*_ood` put every color at its held-out place and last an unseen number of seconds.
    """
    colors = tuple(COLORS) if split == "base" else QUESTION_COLORS
    timeline = tuple(rng.sample(colors, NUM_SEGMENTS))
    while timeline_bucket(timeline) not in TIMELINE_BUCKETS[split]:
        timeline = tuple(rng.sample(colors, NUM_SEGMENTS))
    ood = split.endswith("_ood")
    lengths = _sample_lengths(rng, rng.choice(OOD_CLIP_SECONDS if ood else CLIP_SECONDS))
    spans, start_s = [], 0
    for color, length_s in zip(timeline, lengths, strict=True):
        held_out = HELD_OUT_PLACE[color]
        place = held_out if ood else rng.choice([p for p in PLACES if p != held_out])
        spans.append(Span(start_s, start_s + length_s, color, place))
        start_s += length_s
    return Clip(tuple(spans), picture_seed=rng.randrange(2**32))


def _sample_lengths(rng: random.Random, total_s: int) -> list[int]:
    """Draw `NUM_SEGMENTS` lengths from `SEGMENT_SECONDS` that sum to `total_s`."""
    while True:
        lengths = [rng.choice(SEGMENT_SECONDS) for _ in range(NUM_SEGMENTS)]
        if sum(lengths) == total_s:
            return lengths


def render_frames(clip: Clip) -> np.ndarray:
    """Paint a clip: uint8 (T, H, W, 3) at `FRAME_RATE` frames per second."""
    rng = np.random.default_rng(clip.picture_seed)
    rows, columns = np.mgrid[0:FRAME_SIZE, 0:FRAME_SIZE].astype(np.float32) / FRAME_SIZE
    frames = []
    for span in clip.spans:
        center = np.array({**PLACES, **CORNERS}[span.place]) + rng.uniform(-0.05, 0.05, 2)
        drift = rng.uniform(-0.02, 0.02, 2)  # of the picture's width, per second
        radius = rng.uniform(0.14, 0.19)
        color = np.clip(np.array(COLORS[span.color]) + rng.uniform(-12, 12, 3), 0, 255)
        for i in range((span.end_s - span.start_s) * FRAME_RATE):
            x, y = center + drift * i / FRAME_RATE + rng.uniform(-0.015, 0.015, 2)
            distance = np.hypot(columns - x, rows - y)
            cover = np.clip((radius - distance) * FRAME_SIZE / 3 + 0.5, 0, 1)[..., None]
            frames.append(18 + cover * (color - 18))
    painted = np.stack(frames)
    coarse = rng.normal(0, 7, (*painted.shape[:1], FRAME_SIZE // 4, FRAME_SIZE // 4, 3))
    painted += coarse.repeat(4, axis=1).repeat(4, axis=2)
    shown: np.ndarray[Any, Any] = np.clip(painted, 0, 255).astype(np.uint8)
    return shown


def write_mp4(clip: Clip, path: Path) -> None:
    """Paint a clip and write it to a file."""
    write_frames(render_frames(clip), path)


def write_frames(frames: np.ndarray, path: Path) -> None:
    """Write frames (T, H, W, 3) as h264 in an mp4 container that any player shows."""
    import av

    with drafting(path) as draft, av.open(str(draft), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(FRAME_RATE), options={"preset": "ultrafast", "crf": "30"}
        )
        stream.width = stream.height = FRAME_SIZE
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
