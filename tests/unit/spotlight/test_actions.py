from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.spotlight.cases import ACTIONS, SECONDS, TURNS, act
from video_thinker.errors import DataError
from video_thinker.spotlight.actions import (
    GRAMMARS,
    read_action,
    read_turn_lenient,
    read_turn_strict,
    render_action,
    render_turn,
)
from video_thinker.spotlight.episode import Answer, AskFrame, Look, LookTimes

FRAMES, TIMES = GRAMMARS["frame_thinker"], GRAMMARS["seconds"]
ALL = [
    *((FRAMES, act(body), strict, lenient, lenient) for body, strict, lenient in ACTIONS),
    *((TIMES, act(body), strict, lenient, lenient) for body, strict, lenient in SECONDS),
    *((FRAMES, *case) for case in TURNS),
]


def test_there_are_two_hundred_cases_and_no_two_are_the_same():
    assert len({(case[0], case[1]) for case in ALL}) == len(ALL) >= 200


@pytest.mark.parametrize(("grammar", "text", "strict", "first", "last"), ALL, ids=range(len(ALL)))
def test_each_turn_reads_as_the_table_says(grammar, text, strict, first, last):
    readings = [
        (read_turn_strict(text, grammar), strict),
        (read_turn_lenient(text, grammar, "first"), first),
        (read_turn_lenient(text, grammar, "last"), last),
    ]
    for reading, action in readings:
        assert reading.action == action
        assert (reading.problem == "") == (action is not None)
        assert len(reading.problem) < 400
    if strict is not None:
        assert strict == first == last
        assert not readings[1][0].faults


def test_a_reading_keeps_the_think_text_before_its_action():
    text = "<think>one</think><action>output answer: A</action><think>two</think><action>output answer: B</action>"
    assert read_turn_lenient(text, FRAMES, "first").think == "one"
    assert read_turn_lenient(text, FRAMES, "last").think == "two"
    assert read_turn_lenient(text, FRAMES).faults == ("2 <think> element instead of one", "2 <action> element instead of one")  # fmt: skip  # noqa: E501


def test_a_problem_names_what_was_found_and_the_forms():
    problem = read_turn_strict(act("zoom in"), FRAMES).problem
    assert "'zoom in'" in problem
    assert "choose frames between NUMBER and NUMBER" in problem
    assert "62:30" in read_turn_strict(act("get frame number at time 1:02:30"), FRAMES).problem


@pytest.mark.parametrize(
    ("action", "grammar", "text"),
    [
        (Look(120, 480), FRAMES, "choose frames between 120 and 480"),
        (AskFrame(3750.0), FRAMES, "get frame number at time 62:30"),
        (AskFrame(65.0), FRAMES, "get frame number at time 01:05"),
        (LookTimes(60.0, 3750.0), TIMES, "look between 01:00 and 62:30"),
        (Answer("B. milk"), TIMES, "output answer: B. milk"),
    ],
)
def test_an_action_is_written_as_the_grammar_says(action, grammar, text):
    assert render_action(action, grammar) == text
    assert read_action(text, grammar, strict=True) == (action, "")
    turn = read_turn_strict(render_turn(" why ", action, grammar), grammar)
    assert (turn.think, turn.action) == ("why", action)


@pytest.mark.parametrize(
    ("action", "grammar"),
    [
        (Look(-1, 4), FRAMES),
        (Look(1, 10**9), FRAMES),
        (AskFrame(1.5), FRAMES),
        (AskFrame(float("nan")), FRAMES),
        (AskFrame(-1.0), FRAMES),
        (LookTimes(1.0, 2.0), FRAMES),
        (Look(1, 40), TIMES),
        (Answer(""), FRAMES),
        (Answer("a</action>"), FRAMES),
        (Answer("x" * 5000), FRAMES),
    ],
)
def test_an_action_that_would_not_read_back_is_not_written(action, grammar):
    with pytest.raises(DataError):
        render_action(action, grammar)


@pytest.mark.parametrize("think", ["", " \n", "a <action> b", "a </THINK> b"])
def test_a_think_text_that_would_not_read_back_is_not_written(think):
    with pytest.raises(DataError):
        render_turn(think, Answer("A"), FRAMES)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<action>", "</action>", "output answer: A", "x", " "])))
def test_any_order_of_tags_reads_without_an_error_and_strict_is_the_narrower(parts):
    text = "".join(parts)
    strict, first, last = (
        read_turn_strict(text, FRAMES),
        read_turn_lenient(text, FRAMES, "first"),
        read_turn_lenient(text, FRAMES, "last"),
    )
    if strict.action is not None:
        assert strict == first == last
    if not first.faults and first.action is not None:
        assert strict.action == first.action
