from __future__ import annotations

import dataclasses

import pytest

from video_thinker import errors
from video_thinker.schema import PROBLEM_TYPES, Media, Score, Segment, Trace, TraceBlock, VideoSample

SAMPLE = VideoSample(id="v", problem="What?", problem_type="free-form", answer="a dog")


@pytest.mark.parametrize(
    "value",
    [
        SAMPLE,
        Segment(0.0, 1.0),
        Media("video", "v.mp4"),
        TraceBlock(0.0, 1.0, "", ""),
        Trace((), None),
        Score(1.0, "correct"),
    ],
)
def test_the_shared_words_cannot_be_changed_and_can_be_hashed(value):
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, "other")
    assert hash(value) == hash(dataclasses.replace(value))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [((), False), (("video",), False), (("image",), True), (("image", "image"), True), (("image", "video"), False)],
)
def test_only_stills(kinds, expected):
    media = tuple(Media(kind, "x") for kind in kinds)
    assert dataclasses.replace(SAMPLE, media=media).only_stills is expected


def test_problem_types_are_those_of_video_r1_and_grounding():
    assert PROBLEM_TYPES == ("multiple choice", "numerical", "OCR", "free-form", "regression", "grounding")


@pytest.mark.parametrize("name", ["DataError", "DecodeError", "ConfigError", "BlindModelError"])
def test_errors_are_value_errors_of_one_family(name):
    error = getattr(errors, name)
    assert issubclass(error, errors.VideoThinkerError)
    assert issubclass(error, ValueError)
