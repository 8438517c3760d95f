"""Which frames a view shows, and frame numbers at times: pure functions on numbers, without any video. No torch.

The rules are FrameThinker's (arXiv 2509.24304 and its public code); divisions are exact, in whole numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from video_thinker.errors import DataError

LONG_VIDEO_S = 300.0
TOKEN_PIXELS = 28
"""Side of one vision token, in pixels."""
_SAME_TIME_S = 1e-6
"""Times of frames are rounded fractions: so far after its time a frame still counts as not after it."""


@dataclass(frozen=True, slots=True)
class View:
    """How many frames a view shows, and the box they are scaled down into, in pixels."""

    num_frames: int
    max_width: int
    max_height: int


SHORT_VIEW = View(8, 640, 360)
LONG_VIEW = View(12, 448, 252)


def view_for(duration_s: float) -> View:
    """Return the view of a video: more and smaller frames where it is longer than 300 s."""
    return LONG_VIEW if duration_s > LONG_VIDEO_S else SHORT_VIEW


def view_size(width: int, height: int, view: View) -> tuple[int, int]:
    """Return width and height of a view's frames: scaled down only, aspect kept, then to multiples of 28 pixels.

    640 x 360 becomes 644 x 364 (23 x 13 = 299 tokens), for a long video 448 x 252 (16 x 9 = 144 tokens).
    """
    if width < 1 or height < 1:
        raise DataError(f"a frame of {width} x {height} pixels; both are at least 1; fix the file.")
    scale = min(1.0, view.max_width / width, view.max_height / height)
    across, down = (max(1, round(side * scale / TOKEN_PIXELS)) for side in (width, height))
    return across * TOKEN_PIXELS, down * TOKEN_PIXELS


def spread(first: int, last: int, num: int) -> tuple[int, ...]:
    """Return `num` whole numbers from `first` to `last`, evenly spread and cut (linspace, then int).

    A number is repeated where there are fewer numbers than `num`, as the published rule does.
    """
    if num < 1 or not 0 <= first <= last:
        raise DataError(f"{num} frames from {first} to {last}: at least one frame, and 0 <= first <= last.")
    return (first,) if num == 1 else tuple(first + i * (last - first) // (num - 1) for i in range(num))


def first_view(num_frames: int, num: int) -> tuple[int, ...]:
    """Return the numbers of the `num` frames that are shown before the first turn: linspace(0, N - 1, n)."""
    if num_frames < 1:
        raise DataError(f"a video of {num_frames} frames; a first view needs at least one; drop the video.")
    return spread(0, num_frames - 1, num)


@dataclass(frozen=True, slots=True)
class LookRule:
    """When a look is carried out. `clamps`: an end beyond the video becomes N, instead of being refused from N on."""

    clamps: bool


LOOK_RULES = {"frame_thinker": LookRule(clamps=True), "frame_thinker_infer": LookRule(clamps=False)}


def resolve_look(start: int, end: int, num_frames: int, num: int, rule: LookRule) -> tuple[int, int] | str:
    """Return the interval that a look shows, or why it is refused.

    An interval must be wider than `num`. It is clamped before its width is measured, so that what is shown is wide.

    Args:
        start: First frame number asked for.
        end: Last frame number asked for.
        num_frames: Frames of the video, N.
        num: Frames that a look shows, n.
        rule: See `LOOK_RULES`.
    """
    if start < 0:
        return f"the interval starts at {start}; frame numbers begin at 0"
    if start > num_frames:
        return f"the interval starts at {start}; the video has {num_frames} frames"
    if end >= num_frames and not rule.clamps:
        return f"the interval ends at {end}; the last frame is {num_frames - 1}"
    end = min(end, num_frames)
    if end - start <= num:
        return f"the interval {start}-{end} is {end - start} wide; it must be wider than {num}"
    return start, end


def look_frames(start: int, end: int, num: int) -> tuple[int, ...]:
    """Return the numbers of the `num` frames that a look shows: linspace(START + 1, END - 1, n)."""
    return spread(start + 1, end - 1, num)


def frame_at(time_s: float, times_s: Sequence[float]) -> int:
    """Return the number of the last frame that is not after a time; 0 before the first frame.

    At a constant rate this is int(time · fps), up to the last frame.

    Args:
        time_s: Seconds from the first frame.
        times_s: (N,) real times of the frames, ascending, in seconds.

    Raises:
        DataError: there are no frames, or the time is negative or not finite.
    """
    if not len(times_s):
        raise DataError("a video without frames has no frame at a time; drop the video.")
    if not 0 <= time_s < float("inf"):
        raise DataError(f"a time of {time_s} s; it is a finite number from 0; fix it.")
    return max(0, bisect_right(times_s, time_s + _SAME_TIME_S) - 1)


def time_of(frame: int, times_s: Sequence[float]) -> float:
    """Return the real time of a frame, in seconds. Raises `DataError` if there is no such frame."""
    if not 0 <= frame < len(times_s):
        raise DataError(f"frame {frame} of a video with {len(times_s)} frames; numbers go from 0 to N - 1.")
    return float(times_s[frame])
