"""What an evaluation finds out of media files before it loads a model."""

from __future__ import annotations

import logging

import pytest

from tests.conftest import write_clip
from video_thinker.config import VideoArguments
from video_thinker.data import headers
from video_thinker.errors import DataError
from video_thinker.evaluation.preflight import check_media
from video_thinker.schema import Media, VideoSample


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with a clip, and one of two frames; each other file is missing."""
    monkeypatch.setenv(headers.CACHE_VARIABLE, str(tmp_path / "cache"))
    write_clip(tmp_path / "good.mp4", [(10 * n, 20, 30) for n in range(4)])
    write_clip(tmp_path / "short.mp4", [(1, 2, 3)], fps=2)
    return tmp_path


def sample(name: str, *paths: str) -> VideoSample:
    media = tuple(Media("video", path) for path in paths)
    return VideoSample(name, "?", "free-form", "x", media=media, location=f"f.jsonl:{name}")


SAMPLES = [
    sample("1", "good.mp4"),
    sample("2", "gone.mp4", "away.mp4"),
    sample("3", "good.mp4"),
    sample("4", "short.mp4"),
]


def check(root, todo, max_failed, **options):
    check_media({"id": SAMPLES}, {"id": todo}, VideoArguments(media_root=str(root)), max_failed, **options)


def test_too_many_files_that_cannot_be_used_refuse_the_run(root):
    with pytest.raises(DataError, match=r"id: 2 of 4 items cannot be shown.*max_failed=0\.3 .*gone\.mp4: no such file"):
        check(root, SAMPLES, 0.3)


def test_few_of_them_are_said_and_counted_as_failed(root, caplog):
    with caplog.at_level(logging.WARNING):
        check(root, SAMPLES, 0.5)  # a sample of two missing files is one sample
    assert "id: 2 of 4 items cannot be shown" in caplog.text and "counted as failed" in caplog.text


def test_samples_that_have_an_answer_are_not_looked_at(root, caplog):
    with caplog.at_level(logging.WARNING):
        check(root, [SAMPLES[0]], 0.0)
    assert not caplog.text


def test_a_server_that_takes_the_frames_itself_may_get_a_short_video(root):
    check(root, [SAMPLES[3]], 0.0, samples_frames=False)
    with pytest.raises(DataError, match="min_frames"):
        check(root, [SAMPLES[3]], 0.0)
