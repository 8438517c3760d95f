"""The child's side of a video: opens it with the readers of `readers`, whose errors are put into words here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from video_thinker.data.readers import decode_errors, open_reader
from video_thinker.errors import TimesChangedError


@dataclass
class VideoFacts:
    """What a `readers.VideoReader` knows of an opened file."""

    backend: str
    codec: str
    times_s: np.ndarray
    duration_s: float
    stated_duration_s: float | None
    cut_off: str
    fps: float
    width: int
    height: int


class ServedVideo:
    """A reader whose exceptions are all `DecodeError`s that name file, sample and cause; see `readers.open_reader`."""

    def __init__(self, path: str, backend: str, sample_id: str, whole: bool) -> None:
        """Open the file."""
        self._path, self._sample_id = Path(path), sample_id
        self._reader = open_reader(path, backend=backend, sample_id=sample_id, whole=whole)
        self.facts = VideoFacts(*(getattr(self._reader, field.name) for field in fields(VideoFacts)))

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """Decode the frames at ascending times out of `facts.times_s`, one at a time.

        Raises:
            TimesChangedError: one of these times is none of a frame, as decoding has shown.
        """
        with decode_errors(self._path, self._sample_id, self.facts.codec):
            for found in self._reader.frames_at(times_s):
                times_are_new = self._reader.times_s is not self.facts.times_s
                if times_are_new and not np.isin(times_s, self._reader.times_s).all():
                    raise TimesChangedError(f"{self._path}: its frames are at other times than its packets say.")
                yield found
