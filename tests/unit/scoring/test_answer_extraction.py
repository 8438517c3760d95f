"""Whole completions, as models write them, and the choice that a reader would take from each."""

from __future__ import annotations

import re

import pytest

from tests.growth import assert_grows_linearly
from video_thinker.schema import VideoSample
from video_thinker.scoring import score_completion

OPTIONS = ("A. milk", "B. oil", "C. A dog", "D. wine", "E. The answer is tea")
BLOCK = "<time>00:01-00:02</time> <caption>c</caption> <think>t</think>"

COMPLETIONS: list[tuple[str, str | None]] = [
    # the answer tag
    ("<answer>B</answer>", "B"),
    ("<answer> b </answer>", "B"),
    ("<answer>(C)</answer>", "C"),
    ("<answer>[c]</answer>", "C"),
    ("<answer>C. A dog</answer>", "C"),
    ("<answer>C. some other text</answer>", "C"),
    ("<answer>C)</answer>", "C"),
    ("<answer>Option C</answer>", "C"),
    ("<answer>The correct answer is (C).</answer>", "C"),
    ("<answer>oil</answer>", "B"),
    ("<answer>OIL.</answer>", "B"),
    ("<answer>a dog</answer>", "C"),
    ("<answer>The answer is tea</answer>", "E"),
    ("<answer>**B**</answer>", "B"),
    ("<answer>`B`</answer>", "B"),
    ("<answer>$\\boxed{B}$</answer>", "B"),
    ("<answer>B\nbecause of the bottle</answer>", "B"),
    ("<answer>It shines, so the answer is B.</answer>", "B"),
    ("<ANSWER>B</ANSWER>", "B"),
    (f"{BLOCK} So. <answer>B</answer>", "B"),
    ("<answer>B</answer> I am sure it is not A.", "B"),
    # two answers, broken tags
    ("<answer>A</answer> no, wait. <answer>B</answer>", "B"),
    ("<answer>A<answer>B</answer></answer>", "B"),
    ("<answer>A</answer> or <answer>B", None),
    ("<answer>B<answer>", "B"),
    ("<answer>B", "B"),
    (f"<answer>B {BLOCK}", "B"),
    ("<think>hm <answer>B</think>", "B"),
    ("</answer>B<answer>", "B"),
    ("<answer>A</answer> Final answer: B", "A"),
    # several letters, letters inside words, articles
    ("<answer>A, B</answer>", None),
    ("<answer>A and B</answer>", None),
    ("<answer>(A) or (B)</answer>", None),
    ("<answer>A/B</answer>", None),
    ("<answer>Banana</answer>", None),
    ("<answer>A man pours oil</answer>", "B"),
    ("<answer>a bottle</answer>", None),
    ("<answer>A.M.</answer>", None),
    ("<answer>B is wrong</answer>", None),
    ("<answer>not B</answer>", None),
    ("<answer>Vitamin B</answer>", None),
    ("<answer>none of the above</answer>", None),
    ("<answer>2</answer>", None),
    # a letter that is no option: read, and wrong
    ("<answer>F</answer>", "F"),
    ("<answer>Z. zebra</answer>", "Z"),
    # nothing
    ("", None),
    (" \n\t", None),
    ("<answer></answer>", None),
    ("<answer> \n </answer>", None),
    ("<answer>A</answer> <answer></answer>", None),
    ("<answer>...</answer>", None),
    (BLOCK, None),
    # the words that announce a final answer
    ("I look. Final answer: B", "B"),
    ("I look. final answer: (b).", "B"),
    ("**Final Answer:** B", "B"),
    ("**Final Answer**: B. oil", "B"),
    ("Final answer:\nB", "B"),
    ("Final answer: A\nNo.\nFinal answer: B", "B"),
    ("My final answer is B.", "B"),
    ("Final answer:", None),
    (f"{BLOCK} Final answer: B", "B"),
    # no mark at all
    ("B", "B"),
    ("b.", "B"),
    ("(B) oil", "B"),
    ("B. oil", "B"),
    ("B: oil", "B"),
    ("B because it shines", "B"),
    ("B is correct.", "B"),
    ("B - it shines", "B"),
    ("oil", "B"),
    ("So, B", "B"),
    ("I would choose B.", "B"),
    ("I look at the bottle. It shines.\n\nB", "B"),
    ("I look at the bottle.\n(B)", "B"),
    ("It could be A, but it shines. So the correct answer is B.", "B"),
    ("A. milk? No. The correct answer is B.", "B"),
    ("The answer is not B.", None),
    ("The answer is either A or B.", None),
    ('{"answer": "B"}', "B"),
    ("The options are:\nA. milk\nB. oil\nC. A dog", None),
    ("I think it is some liquid in a bottle.", None),
    (f"B. {BLOCK}", "B"),
    (f"{BLOCK} So the answer is B.", "B"),
    (f"{BLOCK} It is oil, I think.", "B"),
    # other scripts
    ("<answer>Ｂ</answer>", "B"),
    ("<answer>（Ｂ）</answer>", "B"),
    ("<answer>B、油</answer>", "B"),
    ("<answer>答案是B</answer>", "B"),
    ("答案：Ｂ。", "B"),
    ("选B", "B"),
    ("<answer>В</answer>", None),  # Cyrillic
    ("<answer>Ответ: масло</answer>", None),
    ("<answer>油</answer>", None),
    ("<answer>الزيت</answer>", None),
    # 20,000 characters
    ("word " * 4000 + "<answer>B</answer>", "B"),
    ("<answer>" * 2500 + "B</answer>", "B"),
    (f"{BLOCK} " * 250 + "<answer>B</answer>", "B"),
    ("<answer>" + "A man " * 3300 + "</answer>", None),
    ("A, " * 6600, None),
    ("the answer is " * 1430, None),
    ("the answer is " * 1430 + "B", "B"),
    ("(" * 20000, None),
    ("<" * 20000, None),
    ("\\boxed{" * 2900, None),
    ("xx\n" * 7000 + "B", "B"),
    ("答案" * 10000, None),
]


def sample(gold):
    return VideoSample(id="v", problem="?", problem_type="multiple choice", answer=gold, options=OPTIONS)


def test_the_table_is_long_and_has_no_text_twice():
    assert len(COMPLETIONS) == len({text for text, _ in COMPLETIONS}) > 60


@pytest.mark.parametrize(("text", "choice"), COMPLETIONS, ids=[repr(text[:40]) for text, _ in COMPLETIONS])
def test_choice_of_a_completion(text, choice):
    for gold in "ABCDE":
        score = score_completion(text, sample(gold))
        status = "unanswered" if choice is None else "correct" if choice == gold else "wrong"
        assert (score.status, score.value) == (status, float(status == "correct"))
    if len(text) > 5000:
        assert_grows_linearly(lambda text: score_completion(text, sample("A")), text)


def published_choice(text):
    """Extract as Video-Thinker's evaluation: last answer tag, else after "Final answer:", else all; leading letter."""
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    if tagged:
        text = tagged[-1]
    elif "Final answer:" in text:
        text = text.rsplit("Final answer:", 1)[1]
    match = re.match(r"\s*[(\[]?([A-Z])(?:[)\].:]|\s*$)", text)
    return match.group(1) if match else None


@pytest.mark.parametrize("text", [text for text, _ in COMPLETIONS], ids=lambda text: repr(text[:40]))
def test_at_least_as_forgiving_as_the_published_extraction(text):
    choice = dict(COMPLETIONS)[text]
    initials_or_several = ("<answer>A.M.</answer>", "<answer>(A) or (B)</answer>", "<answer>A</answer> or <answer>B")
    if published_choice(text) and text not in initials_or_several:
        assert choice is not None


@pytest.mark.parametrize(("text", "choice"), COMPLETIONS, ids=[repr(text[:40]) for text, _ in COMPLETIONS])
def test_strict_wants_the_whole_format(text, choice):
    score = score_completion(text, sample("B"), strict=True)
    valid = text.count("<answer>") == text.count("</answer>") == 1 and text.endswith("<answer>B</answer>")
    assert score.status == ("correct" if valid and BLOCK in text else "unanswered")
