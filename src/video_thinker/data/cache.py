"""Caches on disk: the one wrapper around `diskcache`, and the cache of sampled frames.

The store is `diskcache` (SQLite and files): several processes share it, a kill leaves it whole, and the least recently
used entries leave when it is full. Frames are kept so that a file is decoded once per way of sampling and not once per
epoch and rank; a video is known by its content, so a file that changed is decoded again. The features of a frozen
vision tower are kept by `models/feature_cache.py`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diskcache
import torch
from safetensors import SafetensorError

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.store import UNREADABLE as STORE_UNREADABLE
from video_thinker.data.video import SampledVideo, VideoSampling, load_video
from video_thinker.disk import STORE_ERRORS
from video_thinker.errors import ConfigError

logger = logging.getLogger(__name__)

FORMAT = 3
"""Part of every key of frames: raise it when decoding or resizing changes what the frames are."""

UNREADABLE = (*STORE_UNREADABLE, TypeError, SafetensorError)
"""An entry that a lost machine has left half written, or a disk has changed, is made again."""


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


class DiskCache:
    """Values on disk with their checksums, up to a size. A store that fails is said once and costs time, never the run.

    Args:
        folder: Where the store lies; made if it is not there.
        size_gib: Its size limit in GiB.
        option: The config key that names the folder, for messages.

    Raises:
        ConfigError: no store can be made in the folder.
    """

    def __init__(self, folder: str | Path, size_gib: float, option: str) -> None:
        """See the class."""
        self.option = option
        try:
            self._store = diskcache.Cache(
                str(folder), size_limit=int(size_gib * 2**30), eviction_policy="least-recently-used", cull_limit=100
            )
        except STORE_ERRORS as error:
            raise ConfigError(
                f"{option}={str(folder)!r}: no cache can be kept there ({type(error).__name__}: {error}); name a "
                f"folder that can be written, or remove {option}."
            ) from error

    def get(self, key: tuple[Any, ...], what: str, decode: Callable[[Any], Any] = lambda value: value) -> Any:
        """Give the value of a key, `None` if there is none that can be read.

        Args:
            key: What the value depends on.
            what: Names the entry in a message: "an entry of a.mp4".
            decode: Makes the value of what is stored.
        """
        try:
            stored: Any = self._store.get(key)  # notes the time of use, and so writes, too
            if stored is None:
                return None
            checksum, content = stored
            if checksum != _checksum(content):
                raise ValueError("its bytes are not those that were stored")
            return decode(pickle.loads(content))  # noqa: S301  # ours, as the checksum says
        except UNREADABLE as error:
            _warn_once(f"{self.option}: {what} cannot be read ({error}); it is made again")
            return None

    def set(self, key: tuple[Any, ...], value: Any, what: str) -> None:
        """Store a value; `what` names it in a message: "features"."""
        content = pickle.dumps(value, protocol=5)
        try:
            self._store.set(key, (_checksum(content), content))
        except STORE_ERRORS as error:
            _warn_once(f"{self.option}: {what} are not kept ({error}); free space there, or lower the cache's size")


class FrameCache(DiskCache):
    """Sampled videos by file content, sampling, decoder and resize factor.

    Args:
        folder: Where the store lies; made if it is not there.
        size_gib: Its size limit in GiB.
    """

    def __init__(self, folder: str | Path, size_gib: float) -> None:
        """See the class."""
        super().__init__(folder, size_gib, "frame_cache_dir")

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
        stored = self.get(key, f"an entry of {path}")
        if stored is not None:
            frames, timestamps_s, duration_s, native_fps = stored
            return SampledVideo(torch.from_numpy(frames), timestamps_s, duration_s, native_fps, backend)
        video = load_video(path, sampling, **options)
        value = video.frames.numpy(), video.timestamps_s, video.duration_s, video.native_fps
        self.set(key, value, f"the frames of {path}")
        return video

    def _digest(self, path: Path) -> str:
        """Hash the content, once per size and time of change."""
        status = path.stat()
        key = ("digest", str(path.resolve()), status.st_size, status.st_mtime_ns)
        digest = self.get(key, f"an entry of {path}")
        if digest is None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "blake2b").hexdigest()
            self.set(key, digest, f"the frames of {path}")
        return str(digest)
