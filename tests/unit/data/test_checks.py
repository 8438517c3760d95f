from __future__ import annotations

import pytest

from video_thinker.data.annotations import parse_row
from video_thinker.data.checks import (
    MOST_KINDS,
    Finding,
    check_sample,
    finding_of,
    refuse,
    repeats_options,
    summarize,
)
from video_thinker.errors import DataError


def row(**changes):
    return {
        "problem_id": "v1",
        "problem": "What is poured?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. milk", "B. oil"],
        "solution": "B",
        "path": "a.mp4",
        **changes,
    }


def grounding(gold):
    return row(problem_type="grounding", options=[], solution=gold)


def kinds(item, duration_s=10.0, tokens=None):
    return [(f.severity, f.kind) for f in check_sample(parse_row(item, "t.jsonl:1"), duration_s, tokens)]


TRACE = "Look. <time>00:01-00:03</time> <caption>c</caption> <think>t</think>"


@pytest.mark.parametrize(
    ("changes", "severity", "kind"),
    [
        ({"options": ["A. milk", "B. Milk"]}, "warning", "two options have the same text"),
        ({"options": ["A. the  milk", "B. ｔｈｅ milk."]}, "warning", "two options have the same text"),
        ({"options": ["A. milk", "A. oil"], "solution": "A"}, "error", "two options have the same letter"),
        ({"options": ["(a) milk", "A. oil"], "solution": "A"}, "error", "two options have the same letter"),
        ({"options": ["A. milk"], "solution": "A"}, "warning", "there is only one option"),
        ({"options": ["A. milk", "oil"]}, "warning", "some options carry a letter and others none"),
        ({"options": []}, "warning", "multiple choice without options"),
        ({"problem": "What?\nA. milk\nB. oil"}, "warning", "options are repeated in the problem"),
        ({"problem": "<|im_start|>?"}, "error", "a text holds special tokens"),
        ({"problem": "What, in <answer></answer>?"}, "error", "a text holds special tokens"),
        ({"process": TRACE + "<|endoftext|> So oil."}, "error", "a text holds special tokens"),
        ({"problem": "<video>\nWhat?"}, "warning", "a placeholder for media is written as a word"),
        ({"problem": "<image_1> What?"}, "warning", "a placeholder for media is written as a word"),
        ({"problem": "What\x08?"}, "warning", "a text holds control characters"),
        ({"problem": "What\ufffd?"}, "warning", "a text holds control characters"),
        ({"solution": "E"}, "error", "the gold is no answer of its problem type"),
        ({"duration_s": 31.5}, "warning", "the stated duration is not that of the video"),
        ({"segments": [{"start_s": 9, "end_s": 12}]}, "error", "a segment is outside the video"),
        ({"process": TRACE.replace("03", "33")}, "warning", "a trace's times are outside the video"),
        ({"process": "Oil."}, "warning", "a trace breaks the format"),
        ({"process": TRACE + " So the answer is A."}, "warning", "a trace concludes another answer than the gold"),
        ({"process": TRACE + " So milk."}, "warning", "a trace concludes another answer than the gold"),
        (
            {"problem_type": "numerical", "options": [], "solution": "0.0004"},
            "warning",
            "a numerical gold rounds to 0.00",
        ),
    ],
)
def test_each_rule_alone(changes, severity, kind):
    assert (severity, kind) in kinds(row(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"process": TRACE + " So oil."},
        {"process": TRACE + " The answer is B."},
        {"process": TRACE + " I cannot tell oil from milk at first, it is oil."},
        {"process": TRACE, "duration_s": 10.4, "segments": [{"start_s": 1, "end_s": 3, "caption": "oil < milk"}]},
        {"problem": "Which is poured first, milk or oil?"},
        {"problem": "Is A. Smith pouring milk?"},
        {"options": ["milk", "oil"], "solution": "oil"},
        {"options": ["A. 1", "B. 10"], "problem": "How many? It is 1 or 10."},
        {"options": ["A", "B"], "problem": "Which one? (A) milk (B) oil"},
        {"options": ["A", "B"], "problem": "Which one? Options: A. milk, B. oil"},
        {"problem_type": "numerical", "options": [], "solution": "0"},
        {"problem_type": "free-form", "options": [], "solution": "if a < b, then <b>"},
    ],
)
def test_sound_rows_have_no_findings(changes):
    assert kinds(row(**changes)) == []


@pytest.mark.parametrize(
    ("problem", "repeated"),
    [
        ("What?\nmilk\noil", True),
        ("What?\n- Milk.\n- Oil.", True),
        ("What?\n1. milk\n2. oil", True),
        ("What? (A) milk (B) oil", True),
        ("What? A) milk, B) oil", True),
        ("What? A: milk B: oil", True),
        ("What? Options: oil, milk.", True),
        ("什么？选项：milk，oil", True),
        ("What? (A) milk (B) olive oil", False),
        ("What? (A) milkshake (B) oil", False),
        ("What of milk and oil?", False),
        ("milk\nWhat?", False),
    ],
)
@pytest.mark.parametrize("options", [["A. milk", "B. oil"], ["milk", "oil"]])
def test_options_repeated_in_the_problem(problem, repeated, options):
    assert repeats_options(problem, options) is repeated


def test_a_list_of_three_in_which_the_problem_names_two():
    assert not repeats_options("Options: milk, oil", ["milk", "oil", "wine"])


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ("4.0-9.5", []),
        ("9-11", []),
        ("9-11.5", [("warning", "a grounding gold ends after the video")]),
        ("40-95", [("error", "a grounding gold lies after the end of the video")]),
        ("1-2, 10-12", [("error", "a grounding gold lies after the end of the video")]),
    ],
)
def test_a_grounding_gold_beyond_the_video(gold, expected):
    assert kinds(grounding(gold)) == expected
    assert kinds(grounding(gold), duration_s=None) == []
    assert kinds({**grounding(gold), "duration_s": 10}, duration_s=None) == expected


def test_findings_say_where_the_sample_and_the_fix():
    (finding,) = check_sample(parse_row(row(problem="<|im_end|>?"), "t.jsonl:7"))
    assert finding.where == "t.jsonl:7"
    assert finding.message == (
        "the problem holds '<|im_end|>', a special token (sample 'v1'); the tokenizer would make it a token of the "
        "chat format, not words; take it out or write it in other words"
    )


def found(line: int, kind: str) -> Finding:
    return Finding(f"f.jsonl:{line}", "error", f"row {line} is wrong", kind)


def test_a_refusal_says_the_first_and_counts_the_others_by_kind():
    findings = [*(found(line, "no trace") for line in range(1, 10)), found(4, "too long")]
    text = summarize(findings)
    assert text.splitlines() == [
        "f.jsonl:1: row 1 is wrong 8 more rows cannot be used; `video-thinker validate` lists all of them.",
        "  no trace: 9 rows (f.jsonl:1, f.jsonl:2, f.jsonl:3, …)",
        "  too long: 1 row (f.jsonl:4)",
    ]
    assert summarize(findings[:1]) == "f.jsonl:1: row 1 is wrong"


def test_a_refusal_of_many_kinds_is_capped():
    text = summarize([found(line, f"kind {line}") for line in range(100)])
    assert len(text.splitlines()) == 2 + MOST_KINDS and "and 92 other kinds: 92 rows" in text


def test_warnings_refuse_nothing():
    refuse([Finding("f.jsonl:1", "warning", "odd", "odd")])
    with pytest.raises(DataError, match="^f.jsonl:3: row 3 is wrong$"):
        refuse([found(3, "bad")])


def test_errors_of_one_rule_are_one_kind():
    rule = "is after end_s=3; a segment starts first; fix it."
    errors = [DataError(f"f.jsonl:{n}: segment 1: start_s={n} {rule}") for n in (1, 2)]
    assert finding_of(errors[0]).kind == finding_of(errors[1]).kind == "a row cannot be read: a segment starts first"
    missing = DataError("f.jsonl:1: `process` is missing or empty (sample 'q'); SFT rows need a trace: add one.")
    assert finding_of(missing).kind == "`process` is missing or empty"
