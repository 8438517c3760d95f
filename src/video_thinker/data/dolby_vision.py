"""Dolby Vision without a picture for other players: its colors are wrong unless its own data are applied. Torch-free.

FFmpeg decodes such a video (profile 5, and 10 without a compatible base layer) and says nothing: its green and purple
pictures are colors of another space, IPT, taken for YUV. The other profiles hold an HDR10, HLG or SDR picture, which
is shown as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from video_thinker.data.mp4_index import read_head
from video_thinker.errors import DecodeError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

OWN_TAGS = {"dvh1", "dvhe", "dvav", "dva1", "dav1"}
"""Types of sample entries in mp4 that players without Dolby Vision are to leave alone."""

CODECS = {"hevc", "av1", "libdav1d"}
MATROSKA_HEAD = 2**20

_IN_MP4 = re.compile(rb"\x00\x00\x00\x20dv[cvw]C(.{24})", re.DOTALL)
_IN_MATROSKA = re.compile(rb"\x41\xe7\x84dv[cvw]C.{0,32}?\x41\xed\x98(.{24})", re.DOTALL)
"""A BlockAddIDType with its BlockAddIDExtraData (RFC 9559, 5.1.4.1.17)."""

_REFUSED = (
    "it is Dolby Vision{profile}, whose colors are wrong without its own data, which this reader does not apply; "
    "encode it anew: ffmpeg -i FILE -vf libplacebo=colorspace=bt709:color_primaries=bt709:color_trc=bt709 NEW.mp4"
)


def check_dolby_vision(path: Path, container: InputContainer, stream: VideoStream) -> None:
    """Refuse a video that the container calls Dolby Vision without a compatible picture.

    The record (Dolby Vision Streams Within the ISO Base Media File Format, 3.2) begins with two bytes of its version,
    profile (7 bits), level (6), three flags, and which other players can show the picture (4 bits, 0 is none).

    Raises:
        DecodeError: it is one.
    """
    tag, codec = stream.codec_context.codec_tag, stream.codec_context.name
    if codec not in CODECS and tag not in OWN_TAGS:
        return
    records = _records(path, set(container.format.name.split(",")))
    for record in records:
        profile, compatible = record[2] >> 1, record[4] >> 4
        if profile == 5 or (profile >= 10 and compatible == 0):
            raise DecodeError(_REFUSED.format(profile=f" of profile {profile}"))
    if tag in OWN_TAGS and not records:
        raise DecodeError(_REFUSED.format(profile=f" ({tag})"))


def check_dolby_vision_of_frame(frame: VideoFrame) -> None:
    """Refuse a picture of HEVC whose own data say that it is of profile 5, whatever the container says.

    Raises:
        DecodeError: it is.
    """
    data = frame.side_data.get("DOVI_RPU_BUFFER")
    if data is not None and _is_profile_5(bytes(memoryview(data))):  # type: ignore[arg-type]  # av's stubs call it text
        raise DecodeError(_REFUSED.format(profile=" of profile 5"))


def _records(path: Path, formats: set[str]) -> list[bytes]:
    if "mp4" in formats:
        return _IN_MP4.findall(bytes(read_head(path) or b""))
    if "matroska" in formats:
        with path.open("rb") as file:
            return _IN_MATROSKA.findall(file.read(MATROSKA_HEAD))
    return []


def _is_profile_5(rpu: bytes) -> bool:
    """Read the start of the header (ETSI GS CCM 001, 5.3.3): base layer of full range, and profile 0 of the data."""
    bits = _Bits(rpu)
    if bits.take(8) != 25 or bits.take(6) != 2:
        return False
    bits.take(11)  # rpu_format
    data_profile, _, has_sequence = bits.take(4), bits.take(4), bits.take(1)
    if data_profile != 0 or not has_sequence:
        return False
    bits.take(1)  # chroma_resampling_explicit_filter_flag
    if bits.take(2) == 0:  # coefficient_data_type
        bits.exponential()
    bits.take(2)  # vdr_rpu_normalized_idc
    return bool(bits.take(1))


class _Bits:
    """Bits of some bytes, from the first on; 0 behind the end."""

    def __init__(self, data: bytes) -> None:
        """See the class."""
        self._left = "".join(f"{byte:08b}" for byte in data[:64])

    def take(self, count: int) -> int:
        """Read a number of `count` bits."""
        bits, self._left = self._left[:count], self._left[count:]
        return int(bits.ljust(count, "0"), 2)

    def exponential(self) -> int:
        """Read a number as H.265 writes it, ue(v)."""
        zeros = len(self._left) - len(self._left.lstrip("0"))
        return self.take(2 * zeros + 1) - 1
