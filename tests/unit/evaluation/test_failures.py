from __future__ import annotations

from types import SimpleNamespace

import pytest

from video_thinker.errors import DecodeError, MediaMemoryError
from video_thinker.evaluation.answers import predict_batch
from video_thinker.schema import VideoSample

SAMPLES = [VideoSample("a", "?", "free-form", "x"), VideoSample("b", "?", "free-form", "x")]


class FailingBackend:
    """Fails at the media of each sample, or when it generates."""

    independent = True
    mean_color = (0, 0, 0)

    def __init__(self, at_media: Exception | None = None, at_generation: Exception | None = None):
        self.at_media, self.at_generation = at_media, at_generation

    def load_prompt(self, sample):
        if self.at_media is not None:
            raise self.at_media
        return SimpleNamespace(sample=sample, duration_s=None)

    def generate(self, prompts, seed):
        raise self.at_generation


def test_a_broken_file_is_a_failed_sample():
    failed = predict_batch(FailingBackend(DecodeError("a.mp4: cannot decode")), SAMPLES, "real", seed=0)
    assert [prediction.error for prediction in failed] == ["a.mp4: cannot decode"] * 2


@pytest.mark.parametrize(
    "error", [MediaMemoryError("a.mp4: not enough memory"), MemoryError(), OSError(12, "no memory")]
)
def test_want_of_memory_is_no_failed_sample(monkeypatch, error):
    monkeypatch.setattr("video_thinker.evaluation.answers.apply_control", lambda prompt, *args, **kwargs: prompt)
    with pytest.raises(type(error)):
        predict_batch(FailingBackend(error), SAMPLES, "real", seed=0)
    with pytest.raises(type(error)):
        predict_batch(FailingBackend(at_generation=error), SAMPLES, "real", seed=0)
