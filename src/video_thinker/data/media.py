"""The media of samples: decoded, sampled and resized, by way of a cache. Of the model, only its patch size matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cachetools import LRUCache

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S, VideoArguments
from video_thinker.data.cache import FrameCache
from video_thinker.data.conversation import media_path
from video_thinker.data.images import load_image
from video_thinker.data.readers import resolve_backend
from video_thinker.data.video import SampledVideo, VideoSampling, load_video
from video_thinker.errors import ConfigError
from video_thinker.schema import VideoSample


class MediaLoader:
    """Takes frames of videos, and images, as the settings say.

    Frames come from a byte-bounded in-memory cache of sampled videos (uint8), so that the G rollouts of a prompt and
    the next epoch do not decode a file again.

    Args:
        sampling: Frames and pixels to take of each video.
        resize_factor: Both sides of a frame are multiples of it: patch size x spatial merge size of the model.
        media_root: Folder that the samples' paths are relative to.
        backend: Video decoder; "auto" is the reader around PyAV (`data/pyav_reader.py`).
        cache_mib: Size of the in-memory frame cache in MiB; 0 turns it off.
        frame_cache: Frames on disk, behind the one in memory.
        timeout_s: Seconds that decoding one file may take; `None` for no limit.

    Raises:
        ConfigError: the video backend is not there, or `max_pixels` does not hold one vision token of the model.
    """

    def __init__(
        self,
        sampling: VideoSampling,
        *,
        resize_factor: int,
        media_root: str | Path | None = None,
        backend: str = "auto",
        cache_mib: int = 256,
        frame_cache: FrameCache | None = None,
        timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
    ) -> None:
        """See the class."""
        self.frame_cache = frame_cache
        self.timeout_s = timeout_s
        self.sampling = sampling
        self.media_root = media_root
        self.backend = resolve_backend(backend)
        self.resize_factor = resize_factor
        self._frames: LRUCache[Path, SampledVideo] = LRUCache(
            maxsize=max(1, cache_mib * 2**20), getsizeof=lambda video: video.frames.nbytes
        )
        if sampling.max_pixels < resize_factor**2:
            raise ConfigError(
                f"max_pixels={sampling.max_pixels}: one vision token of this model is {resize_factor} x "
                f"{resize_factor} pixels; give at least {resize_factor**2}."
            )

    def load_video(self, path: Path, sample_id: str) -> SampledVideo:
        """Decode a video, or take it from the cache.

        Raises:
            DecodeError: see `video_thinker.data.video.load_video`.
        """
        video = self._frames.get(path)
        if video is None:
            load = load_video if self.frame_cache is None else self.frame_cache.load_video
            video = load(
                path,
                self.sampling,
                sample_id=sample_id,
                backend=self.backend,
                factor=self.resize_factor,
                timeout_s=self.timeout_s,
            )
            if video.frames.nbytes <= self._frames.maxsize:
                self._frames[path] = video
        return video

    def load_image(self, path: Path, sample_id: str) -> torch.Tensor:
        """Read an image.

        Raises:
            DecodeError: see `video_thinker.data.images.load_image`.
        """
        return load_image(path, self.sampling, sample_id=sample_id, factor=self.resize_factor, timeout_s=self.timeout_s)

    def load_media(self, sample: VideoSample) -> tuple[list[SampledVideo], list[torch.Tensor]]:
        """Decode the videos and the images of a sample, each in the sample's order.

        Raises:
            DecodeError: a media file cannot be used.
        """
        videos, images = [], []
        for media in sample.media:
            path = media_path(media, self.media_root)
            if media.kind == "video":
                videos.append(self.load_video(path, sample.id))
            else:
                images.append(self.load_image(path, sample.id))
        return videos, images


def video_sampling(args: VideoArguments) -> VideoSampling:
    """Take the sampling out of a config.

    Raises:
        ConfigError: no video can meet it.
    """
    return VideoSampling(args.fps, args.num_frames, args.min_frames, args.max_frames, args.min_pixels, args.max_pixels)


def media_options(args: VideoArguments) -> dict[str, Any]:
    """Take out of a config where media lie, and how they are decoded and cached: arguments of `MediaLoader`."""
    return {
        "media_root": args.media_root,
        "backend": args.video_backend,
        "cache_mib": args.media_cache_mib,
        "frame_cache": open_frame_cache(args),
        "timeout_s": args.media_timeout_s,
    }


def open_frame_cache(args: VideoArguments) -> FrameCache | None:
    """Open the cache of frames on disk that a config asks for, if it does."""
    return FrameCache(args.frame_cache_dir, args.frame_cache_gib) if args.frame_cache_dir else None
