"""The tables of grades, and what must hold for whatever a model writes."""

from __future__ import annotations

import pytest

from tests.unit.scoring import grades_table, grades_written
from video_thinker.schema import VideoSample
from video_thinker.scoring import score_completion

TABLES = (grades_table, grades_written)
CHOICE_ROWS = [(text, options, letter) for table in TABLES for options, rows in table.CHOICES for text, letter in rows]
VALUE_ROWS = [(kind, *row) for table in TABLES for kind, rows in table.VALUES.items() for row in rows]


def sample(kind, answer, options=()):
    return VideoSample(id="v", problem="?", problem_type=kind, answer=answer, options=options)


def test_the_table_is_long_and_has_no_row_twice():
    keys = [(text, options) for text, options, _ in CHOICE_ROWS] + [row[:3] for row in VALUE_ROWS]
    assert len(keys) == len(set(keys)) >= 500


@pytest.mark.parametrize(("text", "options", "letter"), CHOICE_ROWS, ids=[repr(row[0][:60]) for row in CHOICE_ROWS])
def test_choices(text, options, letter):
    for gold in "ABCD"[: len(options) or 4]:
        score = score_completion(text, sample("multiple choice", gold, options))
        status = "unanswered" if letter is None else "correct" if letter == gold else "wrong"
        assert (score.status, score.value) == (status, float(status == "correct")), gold


@pytest.mark.parametrize(
    ("kind", "text", "gold", "value"), VALUE_ROWS, ids=[f"{k}-{t[:50]!r}-{g!r}" for k, t, g, _ in VALUE_ROWS]
)
def test_values(kind, text, gold, value):
    score = score_completion(text, sample(kind, gold))
    assert score.value == (None if value is None else pytest.approx(value))
    assert (score.status == "unscorable") == (value is None)
