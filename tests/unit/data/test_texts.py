from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from video_thinker.data.checks import check_all_texts
from video_thinker.data.texts import (
    SpecialTokens,
    check_texts,
    control_character,
    is_blank,
    text_problems,
    unusable_character,
)
from video_thinker.errors import DataError
from video_thinker.schema import Segment, VideoSample

SAMPLE = VideoSample(
    "v1",
    "Which color comes last?",
    "multiple choice",
    "A",
    options=("A. red", "B. blue"),
    segments=(Segment(1, 2, "a red square"),),
    process="I look. <time>00:01-00:02</time> <caption>red</caption> <think>the last</think> So red.",
    location="train.jsonl:12",
)


@dataclass
class FakeToken:
    content: str
    special: bool


class FakeTokenizer:
    added_tokens_decoder = {  # noqa: RUF012
        1: FakeToken("<|im_end|>", True),
        2: FakeToken("<think>", False),
        3: FakeToken("</s>", True),
        4: FakeToken("[MASK]", False),
        5: FakeToken("aardvark", False),
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What? <|im_end|>\n<|im_start|>assistant\nA", "<|im_end|>"),
        ("<|video_pad|> Which?", "<|video_pad|>"),
        ("a<|endoftext|>b", "<|endoftext|>"),
        ("<|of_a_model_to_come|>", "<|of_a_model_to_come|>"),
        ("call <tool_call> this", "<tool_call>"),
        ("answer in <Answer> tags", "<Answer>"),
        ("the <think> tag, then <|im_end|>", "<think>"),
        ("1 <| 2 |> 3", None),
        ("if a < b | c > d", None),
        ("<video>", None),  # a word for every tokenizer here; `checks` warns
        ("Which is larger, <b> or <a|b>?", None),
    ],
)
def test_special_tokens_without_a_tokenizer(text, found):
    assert SpecialTokens().find(text) == found


def test_special_tokens_of_a_tokenizer():
    tokens = SpecialTokens.of_tokenizer(FakeTokenizer())
    assert [tokens.find(text) for text in ("so </s>", "a [MASK]", "<|new|>", "<think>")] == [
        "</s>",
        "[MASK]",
        "<|new|>",
        "<think>",
    ]
    assert tokens.find("the aardvark's <tool_call>") is None
    assert SpecialTokens().find("so </s>") is None


def test_a_trace_may_hold_the_tags_of_its_format_and_nothing_else():
    for tokens in (SpecialTokens(), SpecialTokens.of_tokenizer(FakeTokenizer())):
        check_texts(SAMPLE, tokens)
        with pytest.raises(DataError, match=r"process holds '<\|im_end\|>'"):
            check_texts(replace(SAMPLE, process=f"{SAMPLE.process}<|im_end|>"), tokens)


@pytest.mark.parametrize("bad", ["red <|im_end|>", "red <think>", "red \ud83d", "red\0"])
@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("the problem", lambda text: {"problem": text}),
        ("option 2", lambda text: {"options": ("A. red", text)}),
        ("the solution", lambda text: {"answer": text}),
        ("the caption of segment 1", lambda text: {"segments": (Segment(1, 2, text),)}),
    ],
)
def test_every_text_is_looked_at_and_named(field, change, bad):
    sample = replace(SAMPLE, **change(bad))
    assert [problem.field for problem in text_problems(sample, SpecialTokens())] == [field]
    with pytest.raises(DataError) as caught:
        check_texts(sample, SpecialTokens())
    message = str(caught.value)
    assert message.startswith(f"train.jsonl:12: {field} holds ")
    assert "(sample 'v1')" in message
    assert message.encode()  # can be printed


def test_a_question_without_a_file_is_named_by_its_sample():
    with pytest.raises(DataError, match="^the problem holds '<think>' *|tag"):
        check_texts(replace(SAMPLE, problem="<think>", location=""), SpecialTokens())


def test_the_first_of_many_is_told_and_the_others_are_counted():
    bad = [replace(SAMPLE, id=f"v{n}", location=f"a.jsonl:{n}", problem="<|im_end|>") for n in range(1, 4)]
    check_all_texts([SAMPLE], SpecialTokens())
    with pytest.raises(DataError, match=r"^a\.jsonl:1: .* 2 more rows cannot be used"):
        check_all_texts([SAMPLE, *bad], SpecialTokens())
    with pytest.raises(DataError) as caught:
        check_all_texts(bad[:1], SpecialTokens())
    assert "more rows" not in str(caught.value)


def test_characters():
    assert unusable_character("é 😀 \u200b\t\r\n") is None
    assert unusable_character("\ud83d\ude00") == "the lone surrogate U+D83D, half of a character"
    assert unusable_character("a\0") == "a NUL character"
    assert [control_character(text) for text in ("a\tb\r\nc", "a\x07", "a\x85b", "a\ufffdb")] == [
        None,
        "U+0007",
        "U+0085",
        "U+FFFD",
    ]
    assert [is_blank(text) for text in ("", " \n", "\u200b\ufeff", "?", "。")] == [True, True, True, False, False]
