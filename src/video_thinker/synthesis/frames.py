"""Videos on disk for the synthesis: finding and checking them, and frames as images for a request."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import diskcache

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.decoding.threads import map_files
from video_thinker.errors import ConfigError, DecodeError
from video_thinker.generation.images import JPEG_QUALITY, image_part
from video_thinker.prompts import frame_label
from video_thinker.times import format_time

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf"),
    *(".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".ogv", ".mxf", ".gif"),
)

FRAMES_FORMAT = 2
"""Raise it when other frames are taken of a span, or other lengths are read: what is kept of before is not used."""


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video that can be used. `path` is relative to the media root, `digest` names its content."""

    path: str
    file: Path
    digest: str
    num_frames: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class FrameSet:
    """Frames of a video, evenly spaced over a span, that are decoded when a request is really sent."""

    video: VideoFile
    start_s: float
    end_s: float
    num_frames: int
    max_pixels: int
    backend: str = "auto"
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S

    @property
    def identity(self) -> list[Any]:
        """What the images depend on, without decoding them."""
        return [
            FRAMES_FORMAT,
            self.video.digest,
            self.start_s,
            self.end_s,
            self.num_frames,
            self.max_pixels,
            JPEG_QUALITY,
        ]

    def content(self) -> list[dict[str, Any]]:
        """Write the frames as parts of a message: a label with the time, then the image.

        Raises:
            DecodeError: the video cannot be decoded there.
        """
        from video_thinker.data.video import load_span

        frames_THWC, times_s = load_span(
            self.video.file,
            self.start_s,
            self.end_s,
            self.num_frames,
            self.max_pixels,
            backend=self.backend,
            timeout_s=self.timeout_s,
        )
        parts: list[dict[str, Any]] = []
        for pixels, time_s in zip(frames_THWC, times_s, strict=True):
            parts.append({"type": "text", "text": frame_label(format_time(round(time_s, 1)))})
            parts.append(image_part(pixels))
        return parts


class VideoFolder:
    """The videos under the media root, found by path or, within a source's folder, by file name without suffix."""

    def __init__(
        self,
        media_root: str | Path,
        cache: diskcache.Cache,
        *,
        min_frames: int,
        backend: str,
        timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
    ) -> None:
        """`cache` keeps what is known of files that did not change."""
        self.root = Path(media_root)
        if not self.root.is_dir():
            raise ConfigError(
                f"media_root={str(media_root)!r}: there is no such folder; give the folder of the videos."
            )
        self._cache = cache
        self._min_frames = min_frames
        self._backend = backend
        self._timeout_s = timeout_s
        self._by_stem: dict[str, dict[str, list[str]]] = {}

    def open_all(self, places: Sequence[tuple[str, str]], num_workers: int = 4) -> list[VideoFile | DecodeError]:
        """Find and check videos, given as (folder, path within it); an unusable one gives its error."""
        distinct = list(dict.fromkeys(places))
        found = dict(zip(distinct, map_files(self._open, distinct, num_workers), strict=True))
        return [found[place] for place in places]

    def _open(self, place: tuple[str, str]) -> VideoFile | DecodeError:
        try:
            return self._check(self._find(*place))
        except DecodeError as error:
            return error

    def _find(self, folder: str, path: str) -> str:
        relative = PurePosixPath(folder, path.lstrip("/")).as_posix()
        if (self.root / relative).is_file():
            return relative
        if folder not in self._by_stem:
            self._by_stem[folder] = self._list(folder)
        found = self._by_stem[folder].get(PurePosixPath(path).stem, [])
        if len(found) != 1:
            what = f"{len(found)} files have its name: {', '.join(found[:3])}" if found else "no file has its name"
            raise DecodeError(f"{self.root / relative}: no such video, and {what} under {self.root / folder}.")
        return found[0]

    def _list(self, folder: str) -> dict[str, list[str]]:
        by_stem = defaultdict(list)
        for parent, _, names in os.walk(self.root / folder):
            for name in sorted(names):
                if name.lower().endswith(VIDEO_SUFFIXES):
                    by_stem[Path(name).stem].append(Path(parent, name).relative_to(self.root).as_posix())
        return by_stem

    def _check(self, path: str) -> VideoFile:
        """Open a video once per size and time of change. Raises `DecodeError`."""
        file = self.root / path
        status = file.stat()
        key = ("video", FRAMES_FORMAT, str(file.resolve()), status.st_size, status.st_mtime_ns, self._backend)
        known: Any = self._cache.get(key)
        if known is None:
            known = self._probe(file)
            self._cache.set(key, known)
        digest, num_frames, duration_s = known
        if num_frames < self._min_frames:
            raise DecodeError(
                f"{file}: the video is too short (it has {num_frames} frames, min_video_frames={self._min_frames}); "
                "it is left out, as in Video-Thinker."
            )
        return VideoFile(path, file, digest, num_frames, duration_s)

    def _probe(self, file: Path) -> tuple[str, int, float]:
        from video_thinker.data.video import probe_video

        info = probe_video(file, backend=self._backend, timeout_s=self._timeout_s)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "blake2b").hexdigest()[:32]
        return digest, info.num_frames, info.duration_s
