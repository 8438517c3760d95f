"""Readers that misbehave, for the decoding process: what they do stands in the name of the file."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from video_thinker.data.decoding.served import ServedVideo
from video_thinker.errors import ConfigError, DecodeError

HANG_S = 300


class OwnMemoryError(MemoryError):
    """A decoder's own class for want of memory, as PyAV has one."""


class OwnError(Exception):
    """A decoder's own class, which the parent does not know."""


def hang(path: Path) -> None:
    """Stay in C code that holds the interpreter: no thread or signal handler of Python runs.

    The file that says so lies beside `path`, and is not written beside a relative one, in the working folder.
    """
    if path.is_absolute() and path.parent.is_dir():
        path.with_name(f"hangs.{os.getpid()}").touch()
    ctypes.PyDLL(None).sleep(HANG_S)


RAISED = {
    "memory": MemoryError(),
    "own-memory": OwnMemoryError(),
    "bad-alloc": OwnError("std::bad_alloc"),
    "decode": DecodeError("the stream is cut off"),
    "config": ConfigError("no such setting"),
    "value": ValueError("a wrong value"),
    "wordless": EOFError(),
    "own": OwnError("in its words"),
}


def misbehave(path: Path) -> None:
    """Do what a file's name says, "hang_open" or "segfault_frames"; nothing for other names."""
    what = path.name.partition("_")[0]
    if what in RAISED:
        raise RAISED[what]
    match what:
        case "hang":
            hang(path)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)


class FakeReader:
    """Frames that show their time in tenths of seconds. "slow" takes 0.2 s for each."""

    def __init__(self, path: str, size: tuple[int, int] = (4, 6)) -> None:
        self.path, self.size = Path(path), size
        if self.path.stem.endswith("_open"):
            misbehave(self.path)
        self.facts = {"pid": os.getpid(), "there": self.path.exists(), "torch": "torch" in sys.modules}

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        for number, time_s in enumerate(times_s):
            if number == 2 and self.path.stem.endswith("_frames"):
                misbehave(self.path)
            if self.path.stem == "slow":
                time.sleep(0.2)
            yield time_s, np.full((*self.size, 3), round(time_s * 10), np.uint8)


class NoMemory:
    """Cannot open anything."""

    def __init__(self, *_: object) -> None:
        raise MemoryError


class LateVideo(ServedVideo):
    """Gives wrong times."""

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        return ((time_s + 0.1, pixels) for time_s, pixels in super().frames_at(times_s))


class NeighborVideo(ServedVideo):
    """Gives each time the frame before its own."""

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        earlier = super().frames_at([max(0, time_s - 0.125) for time_s in times_s])
        return ((time_s, pixels) for time_s, (_, pixels) in zip(times_s, earlier, strict=True))


class RefusingVideo:
    """Lacks a library."""

    def __init__(self, *_: object) -> None:
        raise OSError("libavcodec.so.58: cannot open shared object file")


class CrashingVideo:
    """Crashes in C code."""

    def __init__(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class HangingVideo(ServedVideo):
    """Hangs at files whose name begins with "hang", and reads all others."""

    def __init__(self, path: str, *arguments: object) -> None:
        if Path(path).name.startswith("hang"):
            hang(Path(path))
        super().__init__(path, *arguments)
