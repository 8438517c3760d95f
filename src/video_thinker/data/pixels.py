"""A decoded frame -> RGB as a person sees it: turned, in the right colors, on white. Torch-free.

Shapes: H x W pixels as they are stored, before the pixel aspect ratio is applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc

from video_thinker.data.dolby_vision import check_dolby_vision_of_frame
from video_thinker.errors import DecodeError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
"""Transfer characteristics of high dynamic range, PQ and HLG (ITU-T H.273, table 3)."""

SDR = (ColorTrc.BT709, ColorTrc.SMPTE170M, ColorTrc.BT2020_10, ColorTrc.BT2020_12)
"""Those of BT.709 and BT.2020, which are the same curve."""

UNCONVERTED = {
    8: "YCgCo",
    10: "BT.2020 of constant luminance",
    11: "SMPTE ST 2085",
    12: "derived from the primaries",
    13: "derived from the primaries",
    14: "ICtCp",
    15: "IPT-PQ-C2",
    16: "YCgCo-R",
    17: "YCgCo-R",
}
"""Matrices (ITU-T H.273, table 4) from which FFmpeg does not convert to RGB."""

REFERENCE_WHITE = 203.0
"""Luminance in cd/m2 of white paper in HDR (ITU-R BT.2408)."""

TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)
"""Colors of BT.2020 -> BT.709, of light (ITU-R BT.2087, annex 2)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How a stored picture becomes an upright one: swap its axes, then mirror left-right, then upside down."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def __bool__(self) -> bool:
        """Say whether anything is to be done."""
        return self.transpose or self.mirror_x or self.mirror_y

    @property
    def mirrored(self) -> bool:
        """Whether it is more than a rotation."""
        return self.transpose ^ self.mirror_x ^ self.mirror_y

    def apply(self, pixels_HWC: np.ndarray) -> np.ndarray:
        """Turn a picture; a view where that is enough."""
        if self.transpose:
            pixels_HWC = pixels_HWC.swapaxes(0, 1)
        if self.mirror_x:
            pixels_HWC = pixels_HWC[:, ::-1]
        return pixels_HWC[::-1] if self.mirror_y else pixels_HWC


def turn_of(frame: VideoFrame) -> Turn:
    """Read a frame's display matrix (libavutil/display.h): rotation and mirroring.

    Raises:
        DecodeError: it turns the picture by something else than quarters.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Turn()
    words = np.frombuffer(memoryview(matrix), dtype=np.int32)  # type: ignore[arg-type]  # av's stubs call it text
    return _turn_by_matrix(words)


def _turn_by_matrix(matrix: np.ndarray) -> Turn:
    """A stored point (p, q) is shown at (a p + c q, b p + d q); matrix = a, b, u, c, d, v, x, y, w."""
    a, b, c, d = (float(matrix[i]) / 65536 for i in (0, 1, 3, 4))
    largest = max(abs(a), abs(b), abs(c), abs(d))
    if largest == 0:  # not a matrix; players show the picture as it is
        return Turn()
    if max(abs(b), abs(c)) < 0.02 * largest:
        return Turn(False, a < 0, d < 0)
    if max(abs(a), abs(d)) < 0.02 * largest:
        return Turn(True, c < 0, b < 0)
    angle = np.degrees(np.arctan2(b, a))
    raise DecodeError(
        f"its display matrix turns the picture by {angle:.0f} degrees, which is no multiple of 90; encode it upright: "
        "ffmpeg -i FILE NEW.mp4"
    )


def check_colors(frame: VideoFrame) -> None:
    """Refuse colors that cannot be brought to RGB.

    Raises:
        DecodeError: they are of such a kind.
    """
    if frame.colorspace in UNCONVERTED:
        raise DecodeError(
            f"its colors are stored as {UNCONVERTED[frame.colorspace]}, which FFmpeg does not convert; encode it anew: "
            "ffmpeg -i FILE -vf libplacebo=colorspace=bt709 NEW.mp4"
        )
    check_dolby_vision_of_frame(frame)


def to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """Convert a frame to uint8 (H, W, 3), as stored (see `turn_of`).

    Transparent parts become white. HDR and the colors of BT.2020 are brought to BT.709, see `_narrow`.
    """
    if any(component.is_alpha for component in frame.format.components):
        rgba = reformatter.reformat(frame, format="rgba", threads=1).to_ndarray()
        opacity = rgba[..., 3:].astype(np.uint16)
        mixed = (rgba[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255
        return mixed.astype(np.uint8)
    if is_wide(frame):
        return _narrow(reformatter.reformat(frame, format="rgb48le", threads=1).to_ndarray(), frame.color_trc)
    return reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()


def special_pixels(frame: VideoFrame) -> str:
    """Say what must be done to a picture beyond turning it by quarters; empty if nothing."""
    if turn_of(frame).mirrored:
        return "its display matrix mirrors the picture"
    if is_wide(frame):
        return "its colors are HDR or those of BT.2020"
    if any(component.is_alpha for component in frame.format.components):
        return "its pictures have transparent parts"
    return ""


def is_wide(frame: VideoFrame) -> bool:
    """Whether a frame's colors go beyond what a picture of 8 bits in BT.709 can hold."""
    return frame.color_trc in HDR or (frame.color_primaries == ColorPrimaries.BT2020 and frame.color_trc in SDR)


def _narrow(codes_HWC: np.ndarray, transfer: int) -> np.ndarray:
    """Bring uint16 (H, W, 3) in BT.2020 colors to uint8 in BT.709.

    Reference white, 203 cd/m2 (ITU-R BT.2408), becomes white; what is brighter, or of a color that BT.709 lacks, is cut
    off. HLG is shown as on a display of 1000 cd/m2 (ITU-R BT.2100, table 5).
    """
    light = _light(transfer)[codes_HWC >> 4]
    if transfer == ColorTrc.ARIB_STD_B67:
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
        light *= (1000 / REFERENCE_WHITE) * luminance[..., None] ** np.float32(0.2)
    light = np.clip(light @ TO_BT709.T, 0, 1)
    pixels_HWC: np.ndarray = _codes()[(np.sqrt(light) * 4095 + 0.5).astype(np.uint16)]
    return pixels_HWC


@cache
def _light(transfer: int) -> np.ndarray:
    """Light of a code of 12 bits, by transfer function: (4096,), 1 is reference white (HLG: of the scene, 1 is all)."""
    code = np.linspace(0, 1, 4096)
    if transfer == ColorTrc.SMPTE2084:  # SMPTE ST 2084, equation 4.1
        root = code ** (1 / 78.84375)
        light = (
            10000
            / REFERENCE_WHITE
            * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        )
    elif transfer == ColorTrc.ARIB_STD_B67:  # ITU-R BT.2100, table 5
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    else:  # ITU-R BT.709, item 1.2
        light = np.where(code < 0.081, code / 4.5, ((code + 0.099) / 1.099) ** (1 / 0.45))
    return light.astype(np.float32)


@cache
def _codes() -> np.ndarray:
    """BT.709's codes of 8 bits by the square root of light: (4096,)."""
    light = np.linspace(0, 1, 4096) ** 2
    code = np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
    return np.round(255 * code).astype(np.uint8)


def displayed_size(width: int, height: int, pixel_aspect: Fraction | None, turn: Turn) -> tuple[int, int]:
    """Width and height that a player shows: non-square pixels are widened to square ones, never narrowed."""
    if pixel_aspect and pixel_aspect > 1:
        width = round(width * pixel_aspect)
    elif pixel_aspect:
        height = round(height / pixel_aspect)
    return (height, width) if turn.transpose else (width, height)
