"""Image file -> pixels ready for a processor."""

from __future__ import annotations

from pathlib import Path

import torch

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.decoding.failures import cannot_decode
from video_thinker.data.decoding.process import MediaRequest, open_reader
from video_thinker.data.video import IMAGE_FACTOR, VideoSampling, frame_size, resize_picture

READER = "video_thinker.data.image_reader:ImageReader"


def load_image(
    path: str | Path,
    sampling: VideoSampling,
    *,
    sample_id: str = "",
    factor: int = IMAGE_FACTOR,
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
) -> torch.Tensor:
    """Read one image as uint8 (3, H, W), resized like a frame; `image_reader` says how each kind of image is read.

    Args:
        path: The image file.
        sampling: Its pixel limits are used.
        sample_id: The sample that wants it, for error messages.
        factor: Patch size x spatial merge size of the model's vision tower.
        timeout_s: Seconds that reading it may take; `None` for no limit.

    Raises:
        DecodeError: the file is missing, no readable image, too large, or not read in time.
        MediaMemoryError: there is not enough memory to decode it.
    """
    request = MediaRequest(
        Path(path),
        READER,
        (sampling.max_pixels,),
        decoder="Pillow",
        sample_id=sample_id,
        timeout_s=timeout_s,
    )
    with open_reader(request) as reader:
        ((_, image_HWC),) = reader.frames_at([0.0])
    try:
        height, width, _ = image_HWC.shape
        return resize_picture(image_HWC, frame_size(height, width, sampling, factor)).contiguous()
    except ValueError as error:  # sides of more than 200 to 1
        raise cannot_decode(Path(path), sample_id, str(error)) from error
