"""Sampled frames on disk, so that a file is decoded once per way of sampling and not once per epoch and rank.

The store is `diskcache` (SQLite and files): several processes share it, a kill leaves it whole, and the least recently
used videos leave when it is full. A video is known by its content, so a file that changed is decoded again.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import diskcache
import torch

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.store import STORE_ERRORS, UNREADABLE
from video_thinker.data.video import SampledVideo, VideoSampling, load_video

logger = logging.getLogger(__name__)

FORMAT = 2
"""Part of every key: raise it when decoding or resizing changes what the frames are."""


class FrameCache:
    """Sampled videos by file content, sampling, decoder and resize factor.

    Args:
        folder: Where the store lies; made if it is not there.
        size_gib: Its size limit in GiB.
    """

    def __init__(self, folder: str | Path, size_gib: float) -> None:
        """See the class."""
        self._store = diskcache.Cache(
            str(folder), size_limit=int(size_gib * 2**30), eviction_policy="least-recently-used", cull_limit=100
        )

    def load_video(
        self,
        path: Path,
        sampling: VideoSampling,
        *,
        sample_id: str,
        backend: str,
        factor: int,
        timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
    ) -> SampledVideo:
        """Take a video from the store, or decode it and put it there.

        Raises:
            DecodeError: see `video_thinker.data.video.load_video`.
        """
        options: dict[str, Any] = {"sample_id": sample_id, "backend": backend, "factor": factor, "timeout_s": timeout_s}
        if not path.is_file():
            return load_video(path, sampling, **options)
        key = (FORMAT, self._digest(path), repr(sampling), backend, factor)
        stored = self._read(key, path)
        if stored is not None:
            frames, timestamps_s, duration_s, native_fps = stored
            return SampledVideo(torch.from_numpy(frames), timestamps_s, duration_s, native_fps, backend)
        video = load_video(path, sampling, **options)
        self._write(key, (video.frames.numpy(), video.timestamps_s, video.duration_s, video.native_fps), path)
        return video

    def _read(self, key: tuple[Any, ...], path: Path) -> Any:
        try:
            return self._store.get(key)  # notes the time of use, and so writes, too
        except UNREADABLE as error:
            logger.warning("frame_cache_dir: an entry of %s cannot be read (%s); it is made again", path, error)
            return None

    def _write(self, key: tuple[Any, ...], value: Any, path: Path) -> None:
        try:
            self._store.set(key, value)
        except STORE_ERRORS as error:
            logger.warning("frame_cache_dir: the frames of %s are not kept (%s); free space there", path, error)

    def _digest(self, path: Path) -> str:
        """Hash the content, once per size and time of change."""
        status = path.stat()
        key = ("digest", str(path.resolve()), status.st_size, status.st_mtime_ns)
        digest = self._read(key, path)
        if digest is None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "blake2b").hexdigest()
            self._write(key, digest, path)
        return str(digest)
