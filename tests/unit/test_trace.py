from __future__ import annotations

import random

import pytest

from tests.growth import assert_grows_linearly
from video_thinker.errors import DataError
from video_thinker.schema import Trace, TraceBlock
from video_thinker.times import find_time_ranges, format_time, parse_time, parse_time_range
from video_thinker.trace import extract_answer, format_violations, has_tags, parse_trace, render_trace, untagged_prose


def block(span="00:01-00:03", caption="a red ball", think="it is red"):
    return f"<time>{span}</time> <caption>{caption}</caption> <think>{think}</think>"


ANSWER = "<answer>B</answer>"
VALID = f"Let me look. {block()} And then {block('00:04-00:06')}\nSo it is B. {ANSWER}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("01:07", 67.0),
        ("1:07", 67.0),
        ("00:00", 0.0),
        ("00:07.5", 7.5),
        ("7.5", 7.5),
        ("7", 7.0),
        ("7.5s", 7.5),
        ("12 seconds", 12.0),
        ("1:00:05", 3605.0),
        ("01:02:03.25", 3723.25),
        ("75:30", 4530.0),
        (" 00:02 ", 2.0),
        ("00:59.999", 59.999),
    ],
)
def test_parse_time(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "-1",
        "-00:01",
        "00:60",
        "00:7",
        "1:60:00",
        "1:5:00",
        "1:2:3:4",
        "nan",
        "inf",
        "1e3",
        "1.2.3",
        "٣",
        "a",
        "00:0x",
        "1,5",
        "00:",
        ":07",
        "9" * 400,
    ],
)
def test_parse_time_refuses(text):
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00"),
        (7.5, "00:07.5"),
        (67, "01:07"),
        (59.999, "01:00"),
        (3599.996, "1:00:00"),
        (3605, "1:00:05"),
        (3723.25, "1:02:03.25"),
        (36000, "10:00:00"),
        (0.05, "00:00.05"),
    ],
)
def test_format_time(seconds, text):
    assert format_time(seconds) == text


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
def test_format_time_refuses(seconds):
    with pytest.raises(DataError, match="finite number of seconds"):
        format_time(seconds)


def test_times_survive_a_round_trip_to_hundredths():
    generator = random.Random(0)
    for _ in range(2000):
        seconds = generator.randrange(0, 800_000) / 100
        assert parse_time(format_time(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("00:10-00:14", (10.0, 14.0)),
        (" 00:10 - 00:14 ", (10.0, 14.0)),
        ("00:10–00:14", (10.0, 14.0)),
        ("01:02:03->01:02:09", (3723.0, 3729.0)),
        ("1.0 to 7.5", (1.0, 7.5)),
        ("7-3", (7.0, 3.0)),
        ("1.5s-2s", (1.5, 2.0)),
    ],
)
def test_parse_time_range(text, span):
    assert parse_time_range(text) == span


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "00:10",
        "00:10-",
        "-00:10",
        "00:10-00:14-00:20",
        "a-b",
        "1tob",
        "0" + " " * 99 + "-1",
        "0-1" + " " * 99 + "x",
    ],
)
def test_parse_time_range_refuses(text):
    assert parse_time_range(text) is None


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("1.0-7.5", [(1.0, 7.5)]),
        ("00:01-00:07.5", [(1.0, 7.5)]),
        ("from 1.0 to 7.5 seconds", [(1.0, 7.5)]),
        ("Between 1.0s and 7.5s.", [(1.0, 7.5)]),
        ("from 00:01 until 00:05.", [(1.0, 5.0)]),
        ("[1.0, 7.5]", [(1.0, 7.5)]),
        ("at 1-2, 3-4 and 01:02:03->01:02:09", [(1.0, 2.0), (3.0, 4.0), (3723.0, 3729.0)]),
        ("7-3", [(7.0, 3.0)]),
        ("7.5", []),
        ("-5-10", []),
        ("at the end", []),
        ("2021-2022x", []),
        ("", []),
    ],
)
def test_find_time_ranges(text, spans):
    assert find_time_ranges(text) == spans


@pytest.mark.parametrize("text", ["1" * 20000, "1-" * 10000, "1:" * 10000, "[1," * 7000, "1 - " * 5000, " " * 20000])
def test_time_ranges_are_found_in_linear_time(text):
    assert_grows_linearly(find_time_ranges, text)


def test_untagged_prose():
    assert untagged_prose("plain text") == "plain text"
    assert untagged_prose(f"So {block()} then <answer>B</answer> done").split() == ["So", "then", "done"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>C</answer>", "C"),
        ("a <answer> C </answer> b", "C"),
        ("<answer>A</answer> no, <answer>B</answer>", "B"),
        ("<answer>A<answer>B</answer></answer>", "B"),
        ("<ANSWER>c</Answer>", "c"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        ("<answer>B", "B"),
        ("<answer>B <time>00:01-00:02</time>", "B"),
        ("<answer>A</answer> or <answer>B", "A or B"),
        ("<answer>A</answer> no, <answer>B</answer>", "B"),
        ("<answer>B<answer>", "B"),
        ("<answer>A or <answer>B", "B"),
        ("<answer> Final answer: B", "Final answer: B"),
        ("**Final Answer**: B", "B"),
        ("my final answer is B", "B"),
        ("Final answer: B", "B"),
        ("final answer: A\nwait.\n**Final Answer:** C.\nDone", "C."),
        ("Final answer: A <answer>B</answer>", "B"),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "the answer is B",
        "</answer>B<answer>",
        "<answer></answer>",
        "<answer> \n </answer>",
        "Final answer:",
        "<answer>A</answer> <answer></answer>",
        "<answers>B</answers>",
        "<answer",
    ],
)
def test_extract_answer_finds_none(text):
    assert extract_answer(text) is None


def test_has_tags():
    assert has_tags("so <Answer>")
    assert has_tags("</think>")
    assert not has_tags("a < b, <b>bold</b>, <timer>")


def test_strict_parse_of_a_valid_trace():
    trace = parse_trace(VALID, strict=True, duration_s=6.0)
    assert trace == Trace(
        blocks=(TraceBlock(1.0, 3.0, "a red ball", "it is red"), TraceBlock(4.0, 6.0, "a red ball", "it is red")),
        answer="B",
        reasoning="Let me look. And then So it is B.",
    )


VALID_TEXTS = {
    "one block": block() + ANSWER,
    "no white space": "<time>00:01-00:03</time><caption>c</caption><think>t</think><answer>B</answer>",
    "line breaks inside a block": block().replace("> <", ">\n\t<") + "\n" + ANSWER,
    "seconds": block("1.5-2.5") + ANSWER,
    "prose around": VALID,
    "text after the answer": block() + ANSWER + " done",
    "end within the tolerance": block("00:00-00:07") + ANSWER,
    "other tags": "<b>" + block(caption="a <b>ball</b>") + ANSWER,
}


@pytest.mark.parametrize("name", VALID_TEXTS)
def test_valid(name):
    assert format_violations(VALID_TEXTS[name], duration_s=6.0) == []
    assert parse_trace(VALID_TEXTS[name], strict=True, duration_s=6.0) is not None


INVALID_TEXTS = {
    "empty": ("", "no complete"),
    "white space": (" \n", "no complete"),
    "untagged": ("It is B.", "no complete"),
    "answer only": (ANSWER, "no complete"),
    "no answer": (block(), "0 <answer>"),
    "two answers": (block() + ANSWER + ANSWER, "2 <answer>"),
    "nested answers": (block() + "<answer><answer>B</answer></answer>", "2 <answer>"),
    "answer not closed": (block() + "<answer>B", "0 </answer>"),
    "answer before the block": (ANSWER + block(), "out of order"),
    "answer between blocks": (block() + ANSWER + block(), "out of order"),
    "answer inside the think": (block(think=ANSWER), "out of order"),
    "caption missing": ("<time>0-1</time> <think>t</think>" + ANSWER, "no complete"),
    "one caption too few": (block() + "<time>0-1</time> <think>t</think>" + ANSWER, "unequal"),
    "one think too many": (block() + "<think>more</think>" + ANSWER, "unequal"),
    "think left open": (block().replace("</think>", "") + ANSWER, "no complete"),
    "caption first": ("<caption>c</caption> <time>0-1</time> <think>t</think>" + ANSWER, "out of order"),
    "grouped by tag": (
        "<time>0-1</time> <time>1-2</time> " + "<caption>c</caption> " * 2 + "<think>t</think> " * 2 + ANSWER,
        "out of order",
    ),
    "nested block": ("<time>0-1</time> <caption>c <think>t</think></caption>" + ANSWER, "out of order"),
    "block inside think": (block(think=block()) + ANSWER, "out of order"),
    "prose inside a block": (block().replace("<caption>", "I see <caption>") + ANSWER, "text between its tags"),
    "prose inside a later block": (block() + block().replace("<think>", "so <think>") + ANSWER, "block 2"),
    "mixed case": (VALID.replace("<time>", "<Time>"), "lower case"),
    "mixed case at the end": (VALID.replace("</answer>", "</ANSWER>"), "lower case"),
    "empty caption": (block(caption=" ") + ANSWER, "empty caption"),
    "empty think": (block(think="") + ANSWER, "empty think"),
    "empty answer": (block() + "<answer> </answer>", "empty answer"),
    "no time": (block("") + ANSWER, "not a time range"),
    "one time": (block("00:03") + ANSWER, "not a time range"),
    "words for a time": (block("start-end") + ANSWER, "not a time range"),
    "start after end": (block("00:03-00:01") + ANSWER, "not before"),
    "start is end": (block("00:03-00:03") + ANSWER, "not before"),
    "beyond the video": (block("00:05-00:09") + ANSWER, "outside the video"),
    "just beyond the tolerance": (block("00:05-00:07.01") + ANSWER, "outside the video"),
    "after the video": (block("00:06-00:07") + ANSWER, "outside the video"),
    "second block bad": (block() + block("00:05-00:02") + ANSWER, "block 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID_TEXTS)
def test_invalid(name):
    text, reason = INVALID_TEXTS[name]
    violations = format_violations(text, duration_s=6.0)
    assert any(reason in violation for violation in violations), violations
    assert parse_trace(text, strict=True, duration_s=6.0) is None


def test_without_a_duration_any_time_will_do():
    text = block("10:00-11:00") + ANSWER
    assert format_violations(text) == []
    assert format_violations(text, duration_s=60.0) != []


def test_violations_name_each_bad_block():
    text = block("3-1", caption="") + block() + block("x") + ANSWER
    violations = format_violations(text)
    assert [violation.split(" (")[0] for violation in violations] == ["block 1", "block 1", "block 3"]


LENIENT = {
    "captions missing": ("<time>0-1</time> <time>2-3</time>", [(0, 1, "", ""), (2, 3, "", "")]),
    "left open": ("<time>0-1 <caption>c <think>t <answer>B", [(0, 1, "c", "t")]),
    "stray closings": ("</think><time>0-1</time></caption> <caption>c</time> <think>t</caption>", [(0, 1, "c", "t")]),
    "mixed case": ("<TIME>0-1</Time><Caption>c</caption><THINK>t</THINK>", [(0, 1, "c", "t")]),
    "nested": ("<think>a <time>0-1</time> <caption>c</caption> <think>t</think></think>", [(0, 1, "c", "t")]),
    "doubled": ("<time><time>0-1</time></time><caption>c</caption>", [(0, 1, "c", "")]),
    "first caption counts": ("<time>0-1</time><caption>c</caption><caption>d</caption>", [(0, 1, "c", "")]),
    "prose inside": ("<time>0-1</time> I see <caption>c</caption> so <think>t</think>", [(0, 1, "c", "t")]),
    "bad times": ("<time>3-1</time><time>soon</time><time>1-1</time><time>1-2</time>", [(1, 2, "", "")]),
    "a bad time takes its caption along": ("<time>0-1</time><time>x</time><caption>c</caption>", [(0, 1, "", "")]),
}  # fmt: skip


@pytest.mark.parametrize("name", LENIENT)
def test_lenient_finds_what_can_be_found(name):
    text, expected = LENIENT[name]
    trace = parse_trace(text)
    assert trace is not None
    assert [(b.start_s, b.end_s, b.caption, b.think) for b in trace.blocks] == expected


def test_lenient_keeps_the_answer_and_the_prose():
    trace = parse_trace(
        "First, <time>0-1</time> hm, <caption>c</caption> then </think> the end. <answer>B</answer> bye"
    )
    assert trace is not None
    assert trace.answer == "B"
    assert trace.reasoning == "First, hm, then the end. bye"


@pytest.mark.parametrize(
    "text", ["", "  ", "just words", "<think>hm</think>", "<time>soon</time>", "<answer></answer>"]
)
def test_lenient_gives_none_where_there_is_nothing(text):
    assert parse_trace(text) is None


def test_an_answer_alone_is_a_lenient_trace():
    assert parse_trace("Final answer: B") == Trace((), "B", "Final answer: B")


def test_render_and_parse_round_trip():
    trace = Trace(
        (TraceBlock(0.0, 2.5, "a dog", "it barks"), TraceBlock(61.25, 3700.0, "a cat", "it sleeps")), "C", "So it is C."
    )
    text = render_trace(trace)
    assert text == (
        "<time>00:00-00:02.5</time> <caption>a dog</caption> <think>it barks</think>\n"
        "<time>01:01.25-1:01:40</time> <caption>a cat</caption> <think>it sleeps</think>\n"
        "So it is C.\n"
        "<answer>C</answer>"
    )
    assert parse_trace(text, strict=True) == trace


def test_render_without_answer():
    assert render_trace(Trace((TraceBlock(0, 1, "c", "t"),), None)) == block("00:00-00:01", "c", "t")


@pytest.mark.parametrize(
    "trace",
    [
        Trace((TraceBlock(0, 1, "a </caption>", ""),), "A"),
        Trace((TraceBlock(0, 1, "", "<Answer>B"),), "A"),
        Trace((), "<answer>A</answer>"),
        Trace((), "A", "<think>hm"),
    ],
)
def test_render_refuses_texts_with_tags(trace):
    with pytest.raises(DataError, match="holds the tag"):
        render_trace(trace)


ADVERSARIAL = [
    "<time>" * 3500,
    "<answer>" * 2500,
    "</answer>" * 2500,
    "<answer></answer>" * 1200,
    "<" * 20000,
    "<time" * 4000,
    " " * 20000,
    "\n" * 20000,
    "<time>" + "1" * 20000 + "</time>",
    "<time>" + " - " * 6600 + "</time>",
    "<time>" + "0:" * 10000,
    "final answer :" * 1500,
    "final answer" + " " * 20000,
    block() * 280,
    "<think><caption><time>" * 900,
    "A" * 20000,
]


@pytest.mark.parametrize("text", ADVERSARIAL, ids=lambda text: repr(text[:20]))
def test_long_adversarial_texts_take_linear_time(text):
    def work(text: str) -> None:
        for variant in (text, f"<answer>{text}</answer>"):
            parse_trace(variant)
            parse_trace(variant, strict=True)
            format_violations(variant, 5.0)
            extract_answer(variant)

    assert len(text) >= 15000
    assert_grows_linearly(work, text)
