"""Whatever a model writes: all options are no choice, a gold scores 1 in every form, nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.growth import assert_grows_linearly
from video_thinker.schema import PROBLEM_TYPES, VideoSample
from video_thinker.scoring import score_answer, score_completion
from video_thinker.trace import extract_answer, format_violations, parse_trace

# None of them is the letter of another option: "B., A." could then be the option "B. A".
TEXTS = (
    "milk", "oil", "olive oil", "A man", "the man opens a door", "He leaves, then returns.", "no", "yes", "3",
    "4.5", "12", "10:30", "00:10-00:20", "red", "dark red", "C++", "I", "both hands", "$5", "50%", "St. Paul's",
    "it's raining", "10 A.M.", "none of the above", "U.S.", "T-shirt", "because of rain", "not shown",
    "(unclear)", "牛奶", "橄榄油",
)  # fmt: skip
SEPARATORS = (
    ", ", ",", "; ", " / ", "/", "|", " | ", "、", "，", " and ", " or ", " and/or ", "\n", "\n\n", " ", ". ",
    " & ", " + ", "\n- ", ", or ", " or maybe ", ", also ", "和", "或", "\t", " vs ", " > ", "), (", " -> ",
)  # fmt: skip
WRAPPERS = (
    "{}", "<answer>{}</answer>", "<answer>The answer is {}</answer>", "Final answer: {}", "<think>hm</think>{}",
    "**{}**", "<answer>\\boxed{{{}}}</answer>", "<answer>Either {}</answer>", "<answer>({})</answer>",
    "Answer: {}", "选{}", "I choose {}.", "<answer>It's {}.</answer>", "<answer>[{}]</answer>", "答案是{}",
    "So the correct option is {}", "\n{}\n", "<answer>{}",
)  # fmt: skip
FORMS = (
    "{letter}", "{letter}.", "{letter})", "({letter})", "{letter}. {text}", "({letter}) {text}", "**{letter}**",
    "{text}",
)  # fmt: skip
ONE_CHOICE = (
    "{letter}", "{lower}", "({letter})", "({lower})", "[{letter}]", "{letter}.", "{letter})", "{letter}:",
    "**{letter}**", "【{letter}】", "`{letter}`", "“{letter}”", "\\boxed{{{letter}}}",
    "$\\boxed{{\\text{{{letter}}}}}$", "\\boxed{{\\text{{{letter}}}}}", "Option {letter}", "option {lower}",
    "It's option {letter}.", "The answer is {letter}", "The answer is ({letter}).", "Answer: {letter}",
    "The correct answer is **{letter}**.", "答案是{letter}", "答案：{letter}。", "选{letter}", "So, {letter}.",
    "I'd go with {letter}", "I choose {letter}.", "{letter} is correct.", "{letter} because it fits",
    "\n\n{letter}\n", "{letter}. {text}", "({letter}) {text}", "{letter}) {text}", "{letter}: {text}",
    "**{letter}. {text}**", "{letter}.  {text}.", "The answer is {letter}. {text}",
    "The correct option is ({letter}) {text}.", "Answer: {letter}. {text}", "{text}", " {text}\n", "**{text}**",
    "The answer is {text}", "{upper}",
)  # fmt: skip
PLACES = (
    "<answer>{}</answer>", "{}", "Final answer: {}", "I look at it.</think>\n\n{}",
    "<think>Hm, maybe.</think>\n{}",
    "<time>00:01-00:02</time> <caption>c</caption> <think>t</think> So. <answer>{}</answer>", "<answer>{}",
    "<answer>zz</answer> no. <answer>{}</answer>",
)  # fmt: skip
NUMBER_FORMS = (
    "{}", "**{}**", "${}$", "\\boxed{{{}}}", "$\\boxed{{{}}}$", "`{}`", "= {}", "x = {}", "{} cubes",
    "The answer is {}", "The answer is {}.", "Answer: {}", "about {}", "≈{}", "{}.", "There are {} cubes.",
    "答案是{}", "{}个", "So the result is {}",
)  # fmt: skip
SPAN_FORMS = (
    "{}-{}", "{} - {}", "{}, {}", "[{}, {}]", "({}, {})", "{} to {}", "from {} to {} seconds",
    "between {} and {} s", "{}s-{}s", "{} s ～ {} s", "{}至{}秒", "{}秒到{}秒", "{}–{}",
    "starts at {} s and ends at {} s", "start: {}, end: {}", "**{}-{}**", "The answer is {}-{}", "{} → {}",
    '{{"start": {}, "end": {}}}',
)  # fmt: skip
PIECES = st.sampled_from((
    "<answer>", "</answer>", "<think>", "</think>", "<time>", "A", "B.", "(C)", "milk", "oil", "or", "and",
    "not", ",", "\n", " ", "\\boxed{", "}", "{", "$", "**", "answer is", "Final answer:", "4", "-3", "3.5",
    "1/2", "\\frac{1}{2}", "^", "00:04", "-", "–", "~", "to", "=", "%", "½", "10^3", "\u200b", "答案", "选",
    "是", "第", "四", "百", "because", "wrong", "I", "'", "\x00", "\ud800", "é", "～",
))  # fmt: skip


def sample(kind, answer, options=()):
    return VideoSample(id="v", problem="?", problem_type=kind, answer=answer, options=options)


def lettered(texts):
    return tuple(f"{letter}. {text}" for letter, text in zip("ABCDEFG", texts, strict=False))


option_texts = st.lists(st.sampled_from(TEXTS), min_size=2, max_size=6, unique=True)


@settings(max_examples=100)
@given(st.data(), option_texts, st.sampled_from(SEPARATORS), st.sampled_from(WRAPPERS), st.sampled_from(FORMS))
def test_a_completion_of_all_options_never_scores(data, texts, separator, wrapper, form):
    order = data.draw(st.permutations(list(zip("ABCDEFG", texts, strict=False))))
    listed = separator.join(form.format(letter=letter, text=text) for letter, text in order)
    options = lettered(texts)
    for gold in "ABCDEFG"[: len(options)]:
        assert score_completion(wrapper.format(listed), sample("multiple choice", gold, options)).value == 0.0


@settings(max_examples=80)
@given(st.data(), option_texts, st.sampled_from(SEPARATORS), st.sampled_from(WRAPPERS))
def test_a_completion_of_all_words_as_options_never_scores(data, texts, separator, wrapper):
    listed = separator.join(data.draw(st.permutations(texts)))
    for gold in texts:
        assert score_completion(wrapper.format(listed), sample("multiple choice", gold, tuple(texts))).value == 0.0


@settings(max_examples=100)
@given(st.data(), option_texts, st.sampled_from(ONE_CHOICE), st.sampled_from(PLACES))
def test_a_gold_choice_scores_1_in_every_form(data, texts, form, place):
    letter, text = data.draw(st.sampled_from(list(zip("ABCDEFG", texts, strict=False))))
    answer = form.format(letter=letter, lower=letter.lower(), text=text, upper=text.upper())
    options = lettered(texts)
    if (
        len(text) == 1
        and text.isalpha()
        and "{text}" in form + form.replace("upper", "text")
        and "{letter}" not in form
    ):
        return  # an option whose text is a letter has no other name than its letter
    for gold in (letter, f"{letter}. {text}", f"({letter})"):
        assert score_completion(place.format(answer), sample("multiple choice", gold, options)).value == 1.0


@settings(max_examples=100)
@given(option_texts, st.booleans())
def test_a_gold_scores_1_against_itself(texts, has_letters):
    options = lettered(texts) if has_letters else tuple(texts)
    for option, letter in zip(options, "ABCDEFG", strict=False):
        golds = (letter, option) if has_letters else (option,)
        for gold in golds:
            assert score_answer(gold, sample("multiple choice", gold, options)).value == 1.0


numbers = st.one_of(
    st.integers(-9999, 9999).map(str),
    st.decimals(-99, 999, places=2).map(str),
    st.integers(1000, 10**9).map("{:,}".format),
)


@settings(max_examples=80)
@given(numbers, st.sampled_from(NUMBER_FORMS), st.sampled_from(PLACES[:3]))
def test_a_gold_number_scores_1_in_every_form(number, form, place):
    for kind in ("numerical", "regression"):
        assert score_completion(place.format(form.format(number)), sample(kind, number)).value == 1.0


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 99), min_size=2, max_size=6, unique=True),
    st.sampled_from([", ", " or ", "; ", "\n", "、", " and ", "/"]),
)
def test_several_numbers_never_score(values, separator):
    if len(values) == 2 and separator == "/":
        return  # a fraction
    listed = separator.join(map(str, values))
    for gold in values:
        assert score_completion(f"<answer>{listed}</answer>", sample("numerical", str(gold))).value == 0.0


@settings(max_examples=80)
@given(st.integers(0, 4000), st.integers(1, 900), st.sampled_from(SPAN_FORMS), st.sampled_from(PLACES[:5]))
def test_a_gold_span_scores_1_in_every_form(start, length, form, place):
    start_s, end_s = start / 2, (start + length) / 2
    graded = sample("grounding", f"{start_s}-{end_s}")
    assert score_completion(place.format(form.format(start_s, end_s)), graded).value == pytest.approx(1.0)


@settings(max_examples=100)
@given(
    st.one_of(
        st.text(max_size=80), st.lists(PIECES, max_size=25).map("".join), st.lists(PIECES, max_size=25).map(" ".join)
    )
)
def test_nothing_raises_and_values_are_in_the_unit_interval(text):
    golds = {"multiple choice": "B", "OCR": "STOP here", "free-form": "a red car", "grounding": "1-9"}
    for kind in PROBLEM_TYPES:
        options = ("A. milk", "B. oil") if kind == "multiple choice" else ()
        for strict in (False, True):
            score = score_completion(text, sample(kind, golds.get(kind, "3"), options), strict=strict)
            assert score.value is not None and 0.0 <= score.value <= 1.0
        own = score_completion(text, sample(kind, text, options))
        assert own.value is None or 0.0 <= own.value <= 1.0
    extract_answer(text)
    parse_trace(text)
    format_violations(text, 3.0)


PATHOLOGICAL = (
    "A ", "A, ", "A. milk ", "(", "[[", "\\boxed{", "\\text{", "{}", "$", "**", "~~", "<answer>", "</think>",
    "<think>", "<", "the answer is ", "answer: A ", "Final answer: ", "not ", "not A or ", "A and ", "so ",
    "but ", "1", "1,", "1 ", "1/", "1-", "-", "1.", "9^", "\\frac", "= 4 ", "total ", "four ",
    "one hundred and ", "百", "四", "00:", "00:04-", "4 to ", "4 s and ends ", "start 4 end ", " ", "\n",
    "\u200b", "½", "答案", "选", "第4秒到", "I'd go with ", "a.b.", "because ", "is wrong ", "\\", "'", "word ",
    "oil ", "milk or ", "¹", "e", ".5", "% ", "all but B are ", "[ ] A\n", "whether it is ", "A is possible too, ",
    "4 (2+2) ", "frame 3 ", "at 0:12 ", "4 s and lasts 5 s ", "<answer>A</answer>",
)  # fmt: skip


@pytest.mark.parametrize("kind", PROBLEM_TYPES)
def test_grading_time_grows_with_the_length_of_anything(kind):
    golds = {"multiple choice": "B", "OCR": "STOP here", "free-form": "a red car", "grounding": "1-9"}
    graded = sample(kind, golds.get(kind, "3"), ("A. milk", "B. oil") if kind == "multiple choice" else ())

    def grade(completion: str) -> None:
        assert score_completion(completion, graded).value is not None

    for piece in PATHOLOGICAL:
        text = piece * (8_000 // len(piece))
        assert_grows_linearly(grade, text if "<" in piece or "nswer" in piece else f"<answer>{text}</answer>")
