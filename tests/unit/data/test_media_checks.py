"""What is said of media files, from their heads alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from video_thinker.data import media_checks
from video_thinker.data.header_reader import MediaHeader
from video_thinker.data.media_checks import MediaState, check_headers, length_findings, media_findings
from video_thinker.data.video import VideoSampling
from video_thinker.errors import DataError, DecodeError
from video_thinker.schema import Media, VideoSample

FILE = (Path("a.mp4"), "video")
SAMPLE = VideoSample("s", "?", "free-form", "x", media=(Media("video", "a.mp4"),), location="f.jsonl:1")


def state(monkeypatch, header, sampling=None) -> MediaState:
    monkeypatch.setattr(media_checks, "read_headers", lambda files, timeout_s, progress: dict.fromkeys(files, header))
    return check_headers([FILE], sampling, 28)[FILE]


@pytest.mark.parametrize(
    ("header", "sampling", "expected"),
    [
        (DecodeError("a.mp4: no such file"), VideoSampling(), "no such file"),
        (MediaHeader(8000, 20, 100, 10.0), VideoSampling(), "cannot decode"),
        (MediaHeader(64, 64, 3, 10.0), VideoSampling(), "min_frames=4"),
        (MediaHeader(64, 64, 7, 10.0), VideoSampling(num_frames=8), "num_frames=8"),
        (MediaHeader(64, 64, 7, 10.0), None, ""),
        (MediaHeader(64, 64, None, None), VideoSampling(), ""),
    ],
)
def test_what_is_wrong_for_sure(monkeypatch, header, sampling, expected):
    found = state(monkeypatch, header, sampling).error
    assert expected in found and bool(expected) == bool(found)


@pytest.mark.parametrize(
    ("header", "sampling", "frames"),
    [
        (MediaHeader(56, 56, 100, 10.0), VideoSampling(fps=1.0), 8),  # nine seconds are sure, in pairs
        (MediaHeader(56, 56, None, 10.0), VideoSampling(fps=1.0), 4),
        (MediaHeader(56, 56, 100, 10.0), VideoSampling(num_frames=16), 16),
        (MediaHeader(56, 56, None, None), VideoSampling(), 2),
        (MediaHeader(56, 56, 4, 0.5), VideoSampling(), 4),
    ],
)
def test_the_least_tokens_of_a_video(monkeypatch, header, sampling, frames):
    assert state(monkeypatch, header, sampling).num_tokens == frames // 2 * 4


def test_a_warning_is_a_finding_of_its_own_kind():
    users = {FILE: [SAMPLE]}
    (found,) = media_findings(users, {FILE: MediaState(warning="a.mp4: ends early")})
    assert found.severity == "warning"
    (found,) = media_findings(users, {FILE: MediaState(error="a.mp4: cannot decode (x 12; y); fix")})
    assert "cannot decode: x" in found.kind and "12" not in found.kind
    assert list(media_findings(users, {FILE: MediaState(1.0)})) == []


def test_rows_that_are_too_long_are_found_and_those_with_broken_files_left_out():
    def check(sample, num_vision):
        if num_vision > 10:
            raise DataError(f"{sample.location}: too long")

    for found, expected in (
        (MediaState(1.0, 11), 1),
        (MediaState(1.0, 10), 0),
        (MediaState(num_tokens=11, error="e"), 0),
    ):
        findings = list(length_findings([SAMPLE], None, {FILE: found}, check))
        assert len(findings) == expected
        assert all((one.where, one.message) == ("f.jsonl:1", "too long") for one in findings)
