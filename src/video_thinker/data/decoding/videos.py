"""The parent's side of a video: a `readers.VideoReader` that works in the decoding process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.decoding.process import MediaRequest, RemoteReader, open_reader
from video_thinker.data.decoding.served import VideoFacts
from video_thinker.data.readers import MODULES, resolve_backend
from video_thinker.errors import TimesChangedError

R = TypeVar("R")

MOST_OPENINGS = 3

READER = "video_thinker.data.decoding.served:ServedVideo"
PACKAGES = {**MODULES, "torchcodec": "torchcodec.decoders"}


@dataclass
class RemoteVideo(VideoFacts):
    """An opened video; its frames are decoded in the child."""

    remote: RemoteReader

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """Decode the frames at ascending times, one at a time; see `readers.VideoReader` and `RemoteReader`."""
        return self.remote.frames_at(times_s)


@contextmanager
def open_video(
    path: Path,
    *,
    backend: str = "auto",
    sample_id: str = "",
    whole: bool = True,
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
) -> Iterator[RemoteVideo]:
    """Open a video in a child process that is killed when the file takes too long.

    Args:
        path: The file.
        backend: "auto", "pyav", "torchcodec" or "decord".
        sample_id: The sample that wants it, for messages.
        whole: Refuse a file whose frames end elsewhere than its container states, as half a download does.
        timeout_s: Seconds that opening and decoding may take in all; `None` for no limit.

    Raises:
        DecodeError: the file is missing, empty, unreadable, not whole, not decoded in time, or crashes the decoder.
        MediaMemoryError: there is not enough memory to decode it.
        ConfigError: the backend is unknown, not installed, or cannot be loaded.
    """
    backend = resolve_backend(backend)
    request = MediaRequest(
        path,
        READER,
        (backend, sample_id, whole),
        modules=(PACKAGES[backend],),
        decoder=backend,
        remedy="choose another video_backend",
        sample_id=sample_id,
        timeout_s=timeout_s,
    )
    with open_reader(request) as remote:
        remote.codec = remote.facts.codec
        yield RemoteVideo(**vars(remote.facts), remote=remote)


def read_video(
    path: Path,
    read: Callable[[RemoteVideo], R],
    *,
    backend: str = "auto",
    sample_id: str = "",
    whole: bool = True,
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
) -> R:
    """Open a video, read of it, and close it; again where its frames turn out to be at other times than it said.

    Args:
        path: The file.
        read: Chooses frames by the video's times, and decodes them.
        backend: See `open_video`, also for the rest and for what is raised.
        sample_id: See there.
        whole: See there.
        timeout_s: See there.
    """
    opening = 1
    while True:
        try:
            with open_video(path, backend=backend, sample_id=sample_id, whole=whole, timeout_s=timeout_s) as reader:
                return read(reader)
        except TimesChangedError:  # the process that decodes remembers the right ones
            if opening == MOST_OPENINGS:
                raise
            opening += 1
