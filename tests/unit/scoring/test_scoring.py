from __future__ import annotations

import pytest

from tests.growth import assert_grows_linearly
from video_thinker.schema import PROBLEM_TYPES, Score, VideoSample
from video_thinker.scoring import (
    UNANSWERED,
    UNSCORABLE,
    extract_choice,
    option_letters,
    options_are_lettered,
    parse_number,
    score_answer,
    score_completion,
)

OPTIONS = ("A. milk", "B. oil", "C. A dog")
CORRECT = Score(1.0, "correct")
WRONG = Score(0.0, "wrong")


def sample(problem_type="multiple choice", answer="B", options=None, **fields):
    if options is None:
        options = OPTIONS if problem_type == "multiple choice" else ()
    return VideoSample(id="v", problem="?", problem_type=problem_type, answer=answer, options=options, **fields)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("[b]", "B"),
        ("B.", "B"),
        ("B)", "B"),
        (" B. oil ", "B"),
        ("B: anything else", "B"),
        ("B oil", "B"),
        ("**B**", "B"),
        ("**B**. oil", "B"),
        ('"B"', "B"),
        ("oil", "B"),
        ("Oil.", "B"),
        ("OIL", "B"),
        ("The answer is B", "B"),
        ("the correct option is (B).", "B"),
        ("Option B", "B"),
        ("Answer: b", "B"),
        ("B\nbecause of the bottle", "B"),
        ("B, because of the bottle", "B"),
        ("C. A dog", "C"),
        ("a dog", "C"),
        ("A. a cat", "A"),
        ("F", "F"),
        ("z.", "Z"),
    ],
)
def test_extract_choice(answer, letter):
    assert extract_choice(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ",
        ".",
        "Banana",
        "A man walks",
        "a man walks",
        "BB",
        "A.M.",
        "A, B",
        "A and B",
        "A/B",
        "(A) or (B)",
        "A,B,C",
        "A B",
        "oil painting",
        "I think so",
        "answer",
        "the answer is",
        "1",
        "Ä",
    ],
)
def test_extract_choice_finds_none(answer):
    assert extract_choice(answer, OPTIONS) is None


def test_an_option_that_reads_like_a_phrase():
    assert extract_choice("Answer the phone", ("A. Answer the phone", "B. Leave")) == "A"


def test_options_with_the_same_text_are_told_apart_by_letter_only():
    options = ("A. oil", "B. oil")
    assert extract_choice("oil", options) is None
    assert extract_choice("B", options) == "B"


@pytest.mark.parametrize(
    ("options", "letters", "lettered"),
    [
        (OPTIONS, {"A": "milk", "B": "oil", "C": "A dog"}, True),
        (("(A) milk", "(B) oil"), {"A": "milk", "B": "oil"}, True),
        (("a) milk", "b) oil"), {"A": "milk", "B": "oil"}, True),
        (("A: milk", "B:oil"), {"A": "milk", "B": "oil"}, True),
        (("milk", "oil"), {"A": "milk", "B": "oil"}, False),
        (("A. milk", "oil"), {"A": "A. milk", "B": "oil"}, False),
        (("U.S.", "D.C."), {"A": "U.S.", "B": "D.C."}, False),
        (("A. milk", "A. oil"), {"A": "A. milk", "B": "A. oil"}, False),
        (("B. oil", "D. wine"), {"B": "oil", "D": "wine"}, True),
        ((), {}, False),
    ],
)
def test_option_letters(options, letters, lettered):
    assert option_letters(options) == letters
    assert options_are_lettered(options) is lettered


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("B", CORRECT),
        ("oil", CORRECT),
        ("A", WRONG),
        ("milk", WRONG),
        ("F", WRONG),  # a letter, though none of the options
        ("Banana", UNANSWERED),
        ("A, B", UNANSWERED),
        ("", UNANSWERED),
        (None, UNANSWERED),
    ],
)
def test_multiple_choice(answer, score):
    assert score_answer(answer, sample()) == score


@pytest.mark.parametrize("gold", ["B", "b", "(B)", "B. oil", "oil"])
def test_multiple_choice_golds_as_files_have_them(gold):
    assert score_answer("B", sample(answer=gold)) == CORRECT
    assert score_answer("A", sample(answer=gold)) == WRONG


def test_multiple_choice_with_words_for_options():
    words = sample(answer="red", options=("red", "blue"))
    assert score_answer("Red", words) == CORRECT
    assert score_answer("blue", words) == WRONG
    assert score_answer("green", words) == UNANSWERED


def test_multiple_choice_with_options_inside_the_question():
    assert score_answer("(C)", sample(answer="C", options=())) == CORRECT
    assert score_answer("D", sample(answer="C", options=())) == WRONG


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3.0),
        ("-3.50", -3.5),
        ("+2", 2.0),
        ("1,200", 1200.0),
        ("1,200,000.5", 1200000.5),
        (".5", 0.5),
        ("7.", 7.0),
        ("$4", 4.0),
        ("12%", 12.0),
        ("12 %", 12.0),
        ("2e3", 2000.0),
        (" 8 ", 8.0),
    ],
)
def test_parse_number(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "e5",
        "many",
        "3 or 4 apples",
        "1, 2",
        "1,2,3",
        "1.2.3",
        "nan",
        "inf",
        "1e999",
        "--1",
        "3-4",
        "٣",
        "9" * 400,
        "$",
        "%",
    ],
)
def test_parse_number_refuses(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("3", "3", CORRECT),
        ("3", "4", WRONG),
        ("3", "3.0", WRONG),  # one with, one without decimals
        ("3.0", "3", WRONG),
        ("3.14159", "3.14", CORRECT),
        ("3.14", "3.145", WRONG),
        ("3", "3.", CORRECT),  # a full stop is no decimal point
        ("1200", "1,200", CORRECT),
        ("-2", "2", WRONG),
        ("0", "0", CORRECT),
        ("3", "three", CORRECT),
        ("3", "many", UNANSWERED),
        ("3", "3 or 4", UNANSWERED),
        ("3", "", UNANSWERED),
        ("3", None, UNANSWERED),
        ("three", "three", CORRECT),
        ("many", "many", UNSCORABLE),
        ("", "", UNSCORABLE),
        ("nan", "nan", UNSCORABLE),
    ],
)
def test_numerical(gold, answer, score):
    assert score_answer(answer, sample("numerical", gold)) == score


@pytest.mark.parametrize(
    ("gold", "answer", "value", "status"),
    [
        ("10", "10", 1.0, "correct"),
        ("10", "10.0", 1.0, "correct"),
        ("10", "9", 0.9, "partial"),
        ("10", "11", 0.9, "partial"),
        ("-10", "-5", 0.5, "partial"),
        ("10", "20", 0.0, "wrong"),
        ("10", "999", 0.0, "wrong"),
        ("10", "-10", 0.0, "wrong"),
        ("0", "0", 1.0, "correct"),
        ("0", "0.001", 0.0, "wrong"),
        ("10", "ten", 1.0, "correct"),
        ("10", "many", 0.0, "unanswered"),
        ("10", None, 0.0, "unanswered"),
        ("many", "10", None, "unscorable"),
    ],
)
def test_regression(gold, answer, value, status):
    score = score_answer(answer, sample("regression", gold))
    assert score.value == (None if value is None else pytest.approx(value))
    assert score.status == status


@pytest.mark.parametrize(
    ("gold", "answer", "value", "status"),
    [
        ("no left turn", "no left turn", 1.0, "correct"),
        ("no left turn", "no right turn", 2 / 3, "partial"),
        ("no left turn", "no turn", 2 / 3, "partial"),
        ("STOP", "a b c d e", 0.0, "wrong"),
        ("STOP", "", 0.0, "unanswered"),
        ("STOP", None, 0.0, "unanswered"),
        ("", "", None, "unscorable"),
        (" ", "STOP", None, "unscorable"),
    ],
)
def test_ocr(gold, answer, value, status):
    score = score_answer(answer, sample("OCR", gold))
    assert score.value == (None if value is None else pytest.approx(value))
    assert score.status == status


@pytest.mark.parametrize(
    ("gold", "answer", "value", "status"),
    [
        ("a red car runs", "a red car runs", 1.0, "correct"),
        ("a red car runs", "A red car, running!", 1.0, "correct"),  # stemming, case, punctuation
        # unigrams 2/4 and 2/2: F1 2/3; bigrams 1/3 and 1/1: F1 1/2; longest common subsequence 2: F1 2/3
        ("a red car runs", "red car", (2 / 3 + 1 / 2 + 2 / 3) / 3, "partial"),
        ("a red car", "blue", 0.0, "wrong"),
        ("red", "red", 1.0, "correct"),
        ("красная машина", "Красная машина", 1.0, "correct"),
        ("红色的车", "红色的车", 1.0, "correct"),
        ("red", "", 0.0, "unanswered"),
        ("red", None, 0.0, "unanswered"),
        ("", "", None, "unscorable"),
        ("...", "...", None, "unscorable"),
    ],
)
def test_free_form(gold, answer, value, status):
    score = score_answer(answer, sample("free-form", gold))
    assert score.value == (None if value is None else pytest.approx(value))
    assert score.status == status


@pytest.mark.parametrize(
    ("gold", "answer", "value", "status"),
    [
        ("4.0-8.0", "4.0-8.0", 1.0, "correct"),
        ("4.0-8.0", "00:04-00:08", 1.0, "correct"),
        ("4.0-8.0", "It happens from 4 to 8 seconds.", 1.0, "correct"),
        ("4.0-8.0", "[4.0, 8.0]", 1.0, "correct"),
        ("4.0-8.0", "6-10", 2 / 6, "partial"),
        ("4.0-8.0", "8-10", 0.0, "wrong"),
        ("4.0-8.0", "8-4", 0.0, "wrong"),
        ("4.0-8.0", "0-100", 0.04, "partial"),
        ("4.0-8.0", "4-8, 4-8", 1.0, "correct"),
        ("4.0-8.0", "4-8, 20-24", 0.5, "partial"),  # more spans cost where they miss
        ("4.0-8.0, 10.0-14.0", "10-14, 4-8", 1.0, "correct"),
        ("4.0-8.0, 10.0-14.0", "4-8", 0.5, "partial"),
        ("00:04-00:08", "4-8", 1.0, "correct"),
        ("4.0-8.0", "at the end", 0.0, "unanswered"),
        ("4.0-8.0", "00:04", 0.0, "unanswered"),
        ("4.0-8.0", "", 0.0, "unanswered"),
        ("4.0-8.0", None, 0.0, "unanswered"),
        ("8.0-4.0", "4-8", None, "unscorable"),
        ("4.0-4.0", "4-4", None, "unscorable"),
        ("4.0-8.0, later", "4-8", None, "unscorable"),
        ("sitting", "sitting", None, "unscorable"),
        ("", "", None, "unscorable"),
    ],
)
def test_grounding(gold, answer, value, status):
    score = score_answer(answer, sample("grounding", gold))
    assert score.value == (None if value is None else pytest.approx(value))
    assert score.status == status


def test_grounding_of_a_completion():
    asked = sample("grounding", "1.0-2.0")
    assert score_completion(TRACE + "<answer>00:01-00:02</answer>", asked) == CORRECT
    assert score_completion("From 1 to 2 seconds.", asked) == CORRECT
    assert score_completion(TRACE, asked) == UNANSWERED  # looking at a moment is not naming it as the answer


def test_free_form_equals_the_rouge_library_on_plain_english():
    from rouge_score.rouge_scorer import RougeScorer

    gold, answer = (
        "Two people are cooking noodles on gas in the kitchen_2.",
        "People cook a noodle dish; ga in the kitchens 2",
    )
    rouges = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(gold, answer)
    expected = sum(rouge.fmeasure for rouge in rouges.values()) / 3
    assert 0 < expected < 1
    assert score_answer(answer, sample("free-form", gold)).value == pytest.approx(expected)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@pytest.mark.parametrize("empty", [None, "", " \n"])
def test_two_empty_answers_are_never_equal(problem_type, empty):
    assert score_answer(empty, sample(problem_type, "", options=())) == UNSCORABLE
    assert score_answer(empty, sample(problem_type, " ", options=())) == UNSCORABLE


@pytest.mark.parametrize("gold", ["D", "E. wine", "wine", "", "A, B"])
def test_a_gold_that_is_no_option_is_unscorable(gold):
    assert score_answer("A", sample(answer=gold)) == UNSCORABLE
    assert score_answer(gold, sample(answer=gold)) == UNSCORABLE


TRACE = "<time>00:01-00:02</time> <caption>c</caption> <think>t</think> "


@pytest.mark.parametrize(
    ("text", "lenient", "strict"),
    [
        (TRACE + "<answer>B</answer>", CORRECT, CORRECT),
        (TRACE + "<answer>A</answer>", WRONG, WRONG),
        ("<answer>B</answer>", CORRECT, UNANSWERED),
        (TRACE + "<answer>A</answer><answer>B</answer>", UNANSWERED, UNANSWERED),
        (TRACE + "Final answer: B", CORRECT, UNANSWERED),
        ("B", CORRECT, UNANSWERED),
        ("B. oil", CORRECT, UNANSWERED),
        ("oil", CORRECT, UNANSWERED),
        ("A man pours oil.", CORRECT, UNANSWERED),
        ("B. " + TRACE, CORRECT, UNANSWERED),
        (TRACE + "It shines, so", UNANSWERED, UNANSWERED),  # a trace that was cut off has no answer
        ("<answer></answer>", UNANSWERED, UNANSWERED),
        ("", UNANSWERED, UNANSWERED),
    ],
)
def test_score_completion(text, lenient, strict):
    assert score_completion(text, sample()) == lenient
    assert score_completion(text, sample(), strict=True) == strict


def test_strict_uses_the_duration_of_the_sample():
    text = TRACE + "<answer>B</answer>"
    assert score_completion(text, sample(duration_s=5.0), strict=True) == CORRECT
    assert score_completion(text, sample(duration_s=0.5), strict=True) == UNANSWERED


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_long_answers_are_graded_in_linear_time(problem_type):
    golds = {"multiple choice": "B", "OCR": "no turn", "free-form": "a red car", "grounding": "1-9"}
    graded = sample(problem_type, golds.get(problem_type, "3"))
    for text in (
        "A " * 10000,
        "1" * 20000,
        "1," * 10000,
        "the answer is " * 1400,
        " " * 20000,
        "(" * 20000,
        "**" * 10000,
    ):
        score = score_completion(f"<answer>{text}</answer>", graded)
        assert score.value is not None and score.value < 0.5
        assert_grows_linearly(lambda text: score_completion(f"<answer>{text}</answer>", graded), text)
