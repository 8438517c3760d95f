"""What is wrong with the media files of samples, said of each row that uses them: one way for `validate` and for runs.

`validate` decodes every file as a run would (`diagnostics/validate.py`); a run only opens their heads before it starts
(`check_headers`). Both say what they found as a `MediaState`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.checks import Finding, masked
from video_thinker.data.conversation import media_path
from video_thinker.data.decoding.failures import cannot_decode
from video_thinker.data.header_reader import MediaHeader
from video_thinker.data.headers import MediaFile, read_headers
from video_thinker.data.readers import LENGTH_TOLERANCE_S
from video_thinker.errors import DataError, DecodeError
from video_thinker.schema import Media, VideoSample

if TYPE_CHECKING:
    from video_thinker.data.video import VideoSampling


@dataclass(frozen=True, slots=True)
class MediaState:
    """What became of a media file: length in seconds of a video, (least) vision tokens; or what is wrong."""

    duration_s: float | None = None
    num_tokens: int = 0
    error: str = ""
    warning: str = ""


def media_file(media: Media, media_root: str | Path | None) -> MediaFile:
    """Find the file of a sample's video or image."""
    return media_path(media, media_root), media.kind


def media_users(samples: Iterable[VideoSample], media_root: str | Path | None) -> dict[MediaFile, list[VideoSample]]:
    """List the samples that use each file."""
    users: dict[MediaFile, list[VideoSample]] = {}
    for sample in samples:
        for media in sample.media:
            users.setdefault(media_file(media, media_root), []).append(sample)
    return users


def check_headers(
    files: Iterable[MediaFile],
    sampling: VideoSampling | None,
    factor: int,
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
    *,
    progress: bool = True,
) -> dict[MediaFile, MediaState]:
    """Open the heads of files, and say what is wrong for sure.

    Args:
        files: The files.
        sampling: What a run takes of a video; `None` if it takes the file as a whole.
        factor: Patch size x spatial merge size of the model's vision tower.
        timeout_s: Seconds that one file may take; `None` for no limit.
        progress: Show a progress bar where it takes long.

    Raises:
        MediaMemoryError: there is not enough memory.
    """
    headers = read_headers(list(files), timeout_s, progress=progress)
    return {file: _state(file[0], header, sampling, factor) for file, header in headers.items()}


def _state(path: Path, header: MediaHeader | DecodeError, sampling: VideoSampling | None, factor: int) -> MediaState:
    if isinstance(header, DecodeError):
        return MediaState(error=str(header))
    if sampling is None:
        return MediaState(header.duration_s)
    from video_thinker.data.video import frame_size

    try:
        height, width = frame_size(header.height, header.width, sampling, factor)
        num_frames = _least_sampled(header, sampling)
    except ValueError as error:  # sides of more than 200 to 1, or fewer frames than the sampling asks for
        return MediaState(error=str(cannot_decode(path, "", str(error))))
    grids = 1 if header.num_frames is None and header.duration_s is None else num_frames // 2
    return MediaState(header.duration_s, grids * (height // factor) * (width // factor))


def _least_sampled(header: MediaHeader, sampling: VideoSampling) -> int:
    """Count the frames that are taken at the least: the frames may end a second before the container's length.

    Raises:
        ValueError: the container lists fewer frames than the sampling asks for.
    """
    from video_thinker.data.video import num_sampled

    least = sampling.num_frames or sampling.min_frames
    if header.num_frames is not None and header.num_frames < least:
        num_sampled(header.num_frames, 1.0, sampling)  # says so
    if header.num_frames is None or not header.duration_s or sampling.num_frames:
        return least
    sure_s = header.duration_s - LENGTH_TOLERANCE_S
    sure_frames = int(header.num_frames * sure_s / header.duration_s)
    return num_sampled(sure_frames, sure_s, sampling) if sure_frames >= least else least


def media_findings(
    users: Mapping[MediaFile, list[VideoSample]], states: Mapping[MediaFile, MediaState]
) -> Iterator[Finding]:
    """Give what is wrong with a file to each row that uses it."""
    for file, samples in users.items():
        state = states[file]
        message = state.error or state.warning
        if not message:
            continue
        kind = (
            f"a media file cannot be used: {_cause(message.removeprefix(f'{file[0]}: '))}"
            if state.error
            else "a video ends before its header says"
        )
        for sample in samples:
            said = f"{message} (sample {sample.id!r})"
            yield Finding(sample.location, "error" if state.error else "warning", said, kind)


def _cause(message: str) -> str:
    """Shorten "cannot decode (cause; more); fix" to "cannot decode: cause", without values."""
    head, _, rest = message.partition(" (")
    return masked(f"{head}: {re.split('; |[)]; ', rest)[0]}" if head == "cannot decode" else head)


def length_findings(
    samples: Iterable[VideoSample],
    media_root: str | Path | None,
    states: Mapping[MediaFile, MediaState],
    check_length: Callable[[VideoSample, int], None],
) -> Iterator[Finding]:
    """Find the rows that are longer than a run allows, by the vision tokens of their files."""
    for sample in samples:
        found = [states[media_file(media, media_root)] for media in sample.media]
        if any(state.error for state in found):
            continue
        try:
            check_length(sample, sum(state.num_tokens for state in found))
        except DataError as error:
            message = str(error).removeprefix(f"{sample.location}: ")
            yield Finding(sample.location, "error", message, "a row is longer than the run allows")
