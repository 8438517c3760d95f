"""Image file -> pixels as a person sees them. Runs in the decoding process, without torch.

    turned          as its EXIF orientation says
    transparent     on white, as qwen-vl-utils does (RGBA, LA, PA, and a transparent color of P, L, RGB, 16-bit gray)
    16-bit gray     value / 257, so that 65535 is white
    32-bit integer  0..255 as it is, 0..65535 like 16 bit; else like float
    float           0..1 times 255; else the lowest value is black and the highest white; NaN is black
    other modes     as Pillow converts them to RGB: 1 bit, palette, CMYK, YCbCr, HSV; color profiles are not applied
    animated        the first frame

An image with more than `MAX_PIXELS` is refused. One with many more pixels than a model is given is made smaller by a
whole factor while it is converted, strip by strip: besides the decoded image (at most 4 bytes a pixel; the decoders of
WebP and JPEG 2000 take up to 16) there is only what remains. A JPEG is decoded smaller to begin with. Measured with
13,000 x 13,000 pixels, in MiB: JPEG 600, 1-bit PNG 370, 16-bit PNG 530, RGB and RGBA PNG 850, WebP 2700.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from video_thinker.errors import DecodeError

MAX_PIXELS = 200_000_000
KEPT_PIXELS = 2**24
"""Up to here, an image reaches the resize as it is."""

REDUCING_GAP = 3
"""Sides after the first step over those after the resize: from 3 on nobody sees the step (`Image.resize` in Pillow)."""

STRIP_PIXELS = 2**20
ORIENTATION_TAG = 0x0112
ORIENTATIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
WHITE = (255, 255, 255)
FROM_16_BIT = (np.arange(2**16) / 257).round().astype(np.uint8)

ToRGB = Callable[[Image.Image], Image.Image]


class ImageReader:
    """Reads one image; `frames_at` gives it once, whatever the times.

    Args:
        path: The file.
        max_pixels: Most pixels the model is given of it.
        count_frames: Whether `facts` tells the number of frames, for which an animation is read to its end.

    Raises:
        DecodeError: the file is no image, or larger than `MAX_PIXELS`.
    """

    def __init__(self, path: str, max_pixels: int, count_frames: bool = False) -> None:
        """See the class."""
        with no_pixel_limit_of_pillow(), open_image(path) as image:
            width, height = image.size
            check_pixels("the image", width, height)
            num_frames = int(getattr(image, "n_frames", 1)) if count_frames else None
            self.facts = {"width": width, "height": height, "mode": image.mode, "num_frames": num_frames}
            self._image_HWC = np.asarray(read_rgb(image, max(KEPT_PIXELS, REDUCING_GAP**2 * max_pixels)))

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """Give the image, uint8 (H, W, 3), at the time 0."""
        yield 0.0, self._image_HWC


def check_pixels(what: str, width: int, height: int) -> None:
    """Refuse a picture that would take gigabytes to decode.

    Raises:
        DecodeError: it has more than `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise DecodeError(
            f"{what} has {width} x {height} = {width * height} pixels, more than the {MAX_PIXELS} that are "
            "decoded at most; make it smaller"
        )


def open_image(path: str) -> Image.Image:
    """Open an image without decoding it. Raises `DecodeError`: it is none."""
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        raise DecodeError("it is no image of a format that Pillow knows") from None


@contextmanager
def no_pixel_limit_of_pillow() -> Iterator[None]:
    """Leave the limit to `MAX_PIXELS`: Pillow's own is a warning at 90 million pixels and an error at 179 million."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_rgb(image: Image.Image, kept_pixels: int) -> Image.Image:
    """Decode an opened image as RGB, upright, its sides divided by the factor that leaves `kept_pixels` or more."""
    orientation = image.getexif().get(ORIENTATION_TAG)
    factor = max(1, math.isqrt(image.width * image.height // kept_pixels))
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))  # only JPEG does something
        factor = max(1, math.isqrt(image.width * image.height // kept_pixels))
    to_rgb = converter(image)
    rgb = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    num_rows = max(1, STRIP_PIXELS // image.width // factor) * factor
    for top in range(0, image.height, num_rows):
        strip = to_rgb(image.crop((0, top, image.width, min(image.height, top + num_rows))))
        rgb.paste(strip.reduce(factor) if factor > 1 else strip, (0, top // factor))
    return rgb.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else rgb


def converter(image: Image.Image) -> ToRGB:
    """Choose how (strips of) an image become RGB; see the module."""
    if image.mode.startswith("I;16"):
        return lambda strip: from_16_bit(np.asarray(strip), image.info.get("transparency"))
    if image.mode in ("I", "F"):
        scale, lowest = gray_range(image)
        return lambda strip: from_wide_gray(as_array(strip), scale, lowest)
    if image.has_transparency_data:
        return on_white
    return lambda strip: strip.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white."""
    rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    rgb = Image.new("RGB", image.size, WHITE)
    rgb.paste(rgba, mask=rgba.getchannel("A"))
    return rgb


def as_array(image: Image.Image) -> np.ndarray:
    """Take the values (H, W) of a gray image of 32 bits, in float64, which holds all of them."""
    return np.asarray(image).astype(np.float64)


def gray_range(image: Image.Image) -> tuple[float, float]:
    """Give the scale and the lowest value of a 32-bit image: a value becomes (value - lowest) / scale."""
    extremes = [(values.min(), values.max()) for values in finite_strips(image)]
    if not extremes:
        return 1.0, 0.0
    lowest, highest = float(min(low for low, _ in extremes)), float(max(high for _, high in extremes))
    if lowest >= 0 and image.mode == "F" and highest <= 1:
        return 1 / 255, 0.0
    if lowest >= 0 and image.mode == "I" and highest <= 65535:
        return (1.0 if highest <= 255 else 257.0), 0.0
    return max((highest - lowest) / 255, np.finfo(np.float64).tiny), lowest


def finite_strips(image: Image.Image) -> Iterator[np.ndarray]:
    """Give the finite values of an image in pieces, those that have any."""
    num_rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, num_rows):
        values = as_array(image.crop((0, top, image.width, min(image.height, top + num_rows))))
        values = values[np.isfinite(values)]
        if values.size:
            yield values


def from_wide_gray(values: np.ndarray, scale: float, lowest: float) -> Image.Image:
    """Scale gray values, float64 (H, W), to 8 bit; see `gray_range`."""
    levels = np.nan_to_num((values - lowest) / scale, nan=0.0, posinf=255.0, neginf=0.0)
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8)).convert("RGB")


def from_16_bit(values: np.ndarray, transparent: int | None) -> Image.Image:
    """Scale gray values of 16 bits (H, W) to 8; that which the file declares transparent becomes white."""
    levels = FROM_16_BIT[values]
    if transparent is not None:
        levels[values == transparent] = 255
    return Image.fromarray(levels).convert("RGB")
