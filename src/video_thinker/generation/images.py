"""Images and files as parts of a message to a server: data URLs. Runs without torch."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

JPEG_QUALITY = 90


def image_part(pixels_HWC: np.ndarray[Any, Any], image_format: str = "jpeg") -> dict[str, Any]:
    """Write an image, uint8 (H, W, 3), as a part of a message: a JPEG or PNG in a data URL."""
    from PIL import Image

    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY} if image_format == "jpeg" else {}
    Image.fromarray(pixels_HWC).save(buffer, format=image_format.upper(), **options)
    return {"type": "image_url", "image_url": {"url": data_url(buffer.getvalue(), f"image/{image_format}")}}


def data_url(content: bytes, media_type: str) -> str:
    """Write bytes as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
