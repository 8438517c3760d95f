"""A video as a strip: its frames side by side in one small JPEG, as a data URI.

The frames are those of `data.video.load_video`, evenly spaced from the first to the last. Of n frames the i-th lies at
i / (n - 1) of the duration, which is inside of [i / n, (i + 1) / n]: drawn in n equal cells, each frame stands over its
own time, and the strip is a time axis.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.conversation import media_path
from video_thinker.data.images import load_image
from video_thinker.data.video import VideoSampling, load_video
from video_thinker.errors import DecodeError
from video_thinker.schema import Media

MAX_PIXELS = 112 * 64
"""Most height x width of one frame: about 112x64 of a wide video, some 1.5 kB each."""
JPEG_QUALITY = 72
MAX_FPS = 4.0  # a short video gets fewer frames than it may have
SIZE_FACTOR = 2  # JPEG halves the resolution of color; the 28 of a model would distort a thumbnail


@dataclass(frozen=True, slots=True)
class Strip:
    """`image` is a data URI of `num_frames` cells with width / height `aspect`; "" where `error` says why not.

    `duration_s` is that of the file; `None` for an image.
    """

    path: str
    image: str = ""
    num_frames: int = 0
    aspect: float = 1.0
    duration_s: float | None = None
    error: str = ""


def make_strip(
    media: Media, media_root: Path, num_frames: int, *, timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S
) -> Strip:
    """Read a video or image as a strip. One that cannot be read gives a strip that says so."""
    sampling = VideoSampling(fps=MAX_FPS, min_frames=2, max_frames=num_frames, max_pixels=MAX_PIXELS)
    path = media_path(media, media_root)
    try:
        if media.kind == "image":
            frames, duration_s = load_image(path, sampling, factor=SIZE_FACTOR, timeout_s=timeout_s)[None], None
        else:
            video = load_video(path, sampling, factor=SIZE_FACTOR, timeout_s=timeout_s)
            frames, duration_s = video.frames, video.duration_s
    except DecodeError as error:
        return Strip(media.path, error=str(error))
    height, width = frames.shape[-2:]
    return Strip(media.path, to_data_uri(frames), len(frames), width / height, duration_s)


def to_data_uri(frames: torch.Tensor) -> str:
    """Write frames uint8 (T, 3, H, W) side by side as one JPEG, as a data URI."""
    row_HWC = torch.cat(list(frames), dim=-1).permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(row_HWC.numpy()).save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
