from __future__ import annotations

import logging

import pytest

from video_thinker.data.golds import check_golds
from video_thinker.errors import DataError
from video_thinker.schema import VideoSample

CHOICE = {"problem_type": "multiple choice", "options": ("A. milk", "B. oil")}


def sample(name, answer, problem_type="free-form", options=()):
    return VideoSample(
        id=name, problem="?", problem_type=problem_type, answer=answer, options=options, location=f"f.jsonl:{name}"
    )


def test_golds_that_cannot_be_graded_are_counted(caplog):
    samples = [
        sample("1", "B", **CHOICE),
        sample("2", "zebra", **CHOICE),
        sample("3", "A, B", **CHOICE),
        sample("4", "many", "numerical"),
        sample("5", "9-4", "grounding"),
        sample("6", "a red car"),
    ]
    with caplog.at_level(logging.WARNING):
        assert check_golds(samples, "f.jsonl") == 4
    assert "f.jsonl: 4 of 6 samples have a gold that cannot be graded" in caplog.text
    assert "'zebra' for a multiple choice problem (sample '2', f.jsonl:2)" in caplog.text


def test_nothing_is_said_where_all_can_be_graded(caplog):
    assert check_golds([sample("1", "B", **CHOICE), sample("2", "\u22123", "numerical")], "f.jsonl") == 0
    assert check_golds([], "f.jsonl") == 0
    assert not caplog.text


def test_a_file_without_a_gold_that_can_be_graded_is_refused():
    with pytest.raises(DataError, match=r"f\.jsonl: none of its 2 samples has a gold that can be graded"):
        check_golds([sample("1", "zebra", **CHOICE), sample("2", "", "numerical")], "f.jsonl")
