"""What a container says of its video: which stream it is, how long it goes, what its key frames are. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av import CodecContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from video_thinker.data.dolby_vision import check_dolby_vision
from video_thinker.data.image_reader import check_pixels
from video_thinker.data.mp4_index import stated_fragments_s
from video_thinker.data.video_index import NO_TIME, FrameIndex
from video_thinker.errors import DecodeError

NOT_A_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
IO_TIMEOUT_S = 60.0
"""A read that takes longer is given up: a network folder that went away."""

CLEAN_KEY = {"h264": {5}, "hevc": {19, 20}}
"""Types of NAL units that hold an IDR picture (ITU-T H.264, table 7-1; H.265, table 7-1)."""


WITHOUT_PRESENTATION_TIMES = {"avi", "h264", "hevc", "m4v", "mpegvideo", "vc1", "cavsvideo", "dirac", "obu"}
"""Formats of FFmpeg, by name, that only number their packets."""

REORDERING = {"h264", "hevc", "vc1", "wmv3"}
"""Codecs whose header does not always tell that frames are shown in another order than they are decoded."""


READS_OPACITY = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that give transparent parts, in place of FFmpeg's own, which leave them out."""


def check_kind(path: Path, container: InputContainer, stream: VideoStream) -> None:
    """Refuse, by name, what FFmpeg opens and does not give as a player shows it.

    Raises:
        DecodeError: it is an animated WebP, or Dolby Vision without a picture for other players.
    """
    if stream.codec_context.name == "webp" and _is_animated_webp(path):
        raise DecodeError(
            "it is an animated WebP, which the bundled FFmpeg does not decode; turn it into a GIF: python -c "
            "\"from PIL import Image; Image.open('FILE').save('NEW.gif', save_all=True)\""
        )
    check_dolby_vision(path, container, stream)


def _is_animated_webp(path: Path) -> bool:
    """Read the animation flag of an extended file (RFC 9649, 2.7)."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[8:16] == b"WEBPVP8X" and bool(head[20] & 0x02)


def decoder_for(stream: VideoStream) -> VideoCodecContext:
    """Give the decoder of a stream, with one thread: one that reads opacity where Matroska says that there is some."""
    decoder = stream.codec_context
    if stream.metadata.get("ALPHA_MODE", stream.metadata.get("alpha_mode")) == "1" and decoder.name in READS_OPACITY:
        other = CodecContext.create(READS_OPACITY[decoder.name], "r")
        assert isinstance(other, VideoCodecContext)
        decoder = other
    decoder.thread_count = 1
    return decoder


def has_no_presentation_times(container: InputContainer, stream: VideoStream) -> bool:
    """Avi and bare streams number packets in decoding order, which tells nothing where frames are reordered."""
    names = set(container.format.name.split(","))
    context = stream.codec_context
    may_reorder = bool(context.has_b_frames) or context.name in REORDERING
    return bool(names & WITHOUT_PRESENTATION_TIMES) and may_reorder


def counting_goes_wrong(path: Path, container: InputContainer, stream: VideoStream, index: FrameIndex) -> str:
    """Say why a frame of a file cannot be found by counting from a key frame on; empty if it can."""
    packets = index.packets
    if index.decoded:
        return "its packets do not tell the times of its frames"
    if not packets.shown.all():
        return "some of its packets are not shown (an edit list, or a cut)"
    if not set(container.format.name.split(",")) & {"mp4", "matroska"}:
        return f"frames of {container.format.long_name} cannot be found by counting"
    key_pts = np.maximum.accumulate(np.where(packets.key, packets.pts, NO_TIME))
    if (packets.pts < key_pts).any():
        return "it has open groups of pictures: frames shown before the key frame that they follow in the file"
    if not keys_are_clean(path, stream.index, stream.codec_context.name):
        return "decoding cannot start anew at each of its key frames (recovery points, not IDR pictures)"
    return ""


def keys_are_clean(path: Path, stream_index: int, codec: str) -> bool:
    """Whether each packet marked as key holds an IDR picture, in the codecs that have others."""
    if codec not in CLEAN_KEY:
        return True
    with av.open(str(path), timeout=IO_TIMEOUT_S) as container:
        stream = container.streams[stream_index]
        keys = (bytes(packet) for packet in container.demux(stream) if packet.is_keyframe)
        return all(CLEAN_KEY[codec] & set(_nal_units(key, codec)) for key in keys)


def _nal_units(data: bytes, codec: str) -> Iterator[int]:
    """List the types of the NAL units in a packet of mp4 or Matroska, where each has its length before it."""
    place = 0
    while place + 5 <= len(data):
        yield data[place + 4] & 0x1F if codec == "h264" else data[place + 4] >> 1 & 0x3F
        place += 4 + int.from_bytes(data[place : place + 4], "big")


def best_stream(container: InputContainer) -> VideoStream:
    """Choose the stream that a player shows: the container's default one, never a cover picture.

    Raises:
        DecodeError: there is none, its codec is unknown, or its pictures are too large to be decoded.
    """
    videos = [stream for stream in container.streams.video if not stream.disposition & NOT_A_VIDEO]
    if not videos:
        pictures = " (only a cover picture)" if container.streams.video else ""
        raise DecodeError(f"it holds no video stream{pictures}")
    readable = [stream for stream in videos if stream.codec_context is not None]
    if not readable:
        raise DecodeError(
            "its video codec is unknown to the bundled FFmpeg; encode it as H.264: ffmpeg -i FILE NEW.mp4"
        )
    best = container.streams.best("video")
    chosen = next((stream for stream in readable if best is not None and stream.index == best.index), readable[0])
    check_pixels("a frame", chosen.width, chosen.height)
    return chosen


def time_unit(stream: VideoStream) -> Fraction:
    """Give the seconds per unit of time of a stream. Raises `DecodeError`: it has none."""
    if not stream.time_base:
        raise DecodeError("its video stream has no time base")
    return stream.time_base


def stated_duration_s(
    path: Path, container: InputContainer, stream: VideoStream, first_s: float, shown_s: float
) -> float | None:
    """Until when the container states that the video goes, from its first frame on; `None` if it does not.

    Args:
        path: The file.
        container: It, opened.
        stream: The video in it.
        first_s: The container's time of the first frame.
        shown_s: How long the frames that were found go on.
    """
    end_s = _stated_end_s(stream)
    if end_s is None and container.duration:
        end_s = ((container.start_time or 0) + container.duration) / av.time_base
    states_each_stream = "mp4" in container.format.name.split(",")
    if states_each_stream and (fragments_s := stated_fragments_s(path)):
        end_s = max(end_s or 0.0, fragments_s)
    if end_s is None:
        return None
    if not states_each_stream and end_s - first_s - shown_s > 1 and _others_end_s(path, stream.index) > end_s - 1:
        return None  # the length may be a sound track's
    return end_s - first_s


def _others_end_s(path: Path, stream_index: int) -> float:
    """When the last packet of the other streams ends: reads the whole file."""
    ends_s = [0.0]
    with av.open(str(path), timeout=IO_TIMEOUT_S) as container:
        others = [stream for stream in container.streams if stream.index != stream_index]
        for packet in container.demux(others) if others else ():
            if packet.pts is not None and packet.time_base:
                ends_s.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return max(ends_s)


def _stated_end_s(stream: VideoStream) -> float | None:
    """When the video ends as the container states it: of its stream, or by the tag that Matroska has."""
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * time_unit(stream))
    tag = stream.metadata.get("DURATION", "")
    if tag.count(":") == 2:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return None
