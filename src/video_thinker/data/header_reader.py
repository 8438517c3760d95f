"""What the head of a media file says: size, length, number of frames. Runs in the decoding process, without torch.

No frame is decoded and no file is read through, so that thousands of files can be looked at before a run. What is found
here is wrong for sure; a file that looks sound here may still be damaged behind its head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from video_thinker.data.containers import IO_TIMEOUT_S, best_stream, check_kind, time_unit
from video_thinker.data.image_reader import check_pixels, no_pixel_limit_of_pillow, open_image
from video_thinker.data.mp4_index import cut_fragment
from video_thinker.data.pixels import Turn, displayed_size
from video_thinker.data.readers import CUT_OFF, LENGTH_TOLERANCE_S, decode_errors
from video_thinker.errors import DecodeError
from video_thinker.schema import MediaKind

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


@dataclass(frozen=True, slots=True)
class MediaHeader:
    """What the head of a file says.

    Attributes:
        width: Pixels across, with square pixels; a turn that the frames ask for is not taken into account.
        height: Pixels down.
        num_frames: Frames that the container lists; `None` where it does not, and for an image.
        duration_s: Length of a video in seconds; `None` where the container does not state one, and for an image.
    """

    width: int
    height: int
    num_frames: int | None = None
    duration_s: float | None = None


class HeaderReader:
    """Reads the head of one file; it gives no frames.

    Args:
        path: The file.
        kind: "video" or "image".

    Raises:
        DecodeError: it is no such file, it holds no frame, it is too large to be decoded, or its end is missing.
    """

    def __init__(self, path: str, kind: MediaKind) -> None:
        """See the class."""
        with decode_errors(Path(path), ""):
            self.facts = read_video_header(path) if kind == "video" else read_image_header(path)

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """Give nothing."""
        yield from ()


def read_image_header(path: str) -> MediaHeader:
    """Read the size of an image. Raises as `HeaderReader`."""
    with no_pixel_limit_of_pillow(), open_image(path) as image:
        width, height = image.size
    check_pixels("the image", width, height)
    return MediaHeader(width, height)


def read_video_header(path: str) -> MediaHeader:
    """Read what a container says of its video, and look for its first packet. Raises as `HeaderReader`."""
    with av.open(path, timeout=IO_TIMEOUT_S) as container:
        stream = best_stream(container)
        check_kind(Path(path), container, stream)
        width, height = displayed_size(stream.width, stream.height, stream.sample_aspect_ratio, Turn())
        if next((packet for packet in container.demux(stream) if packet.size), None) is None:
            raise DecodeError("it holds no video frames")
        _refuse_missing_end(Path(path), container, stream)
        return MediaHeader(width, height, stream.frames or None, _duration_s(container, stream))


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration:
        return float(stream.duration * time_unit(stream))
    return container.duration / av.time_base if container.duration else None


def _refuse_missing_end(path: Path, container: InputContainer, stream: VideoStream) -> None:
    """Refuse an mp4 file whose boxes, or frames that its head lists, go beyond its end, as in half a download."""
    if "mp4" not in container.format.name.split(","):
        return
    if found := cut_fragment(path):
        raise DecodeError(f"{found}: {CUT_OFF}")
    entries = stream.index_entries
    num_bytes = path.stat().st_size
    last = there = len(entries) - 1
    while there >= 0 and entries[there].pos + entries[there].size > num_bytes:
        there -= 1
    if there == last:
        return
    missing_s = float((entries[last].timestamp - entries[max(there, 0)].timestamp) * time_unit(stream))
    if there < 0 or missing_s > LENGTH_TOLERANCE_S:
        raise DecodeError(f"the last {missing_s:.2f} s of its video are missing: {CUT_OFF}")
