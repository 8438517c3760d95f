"""What must not stand in a sample's texts: special tokens, and characters that are no text. Runs without torch.

A tokenizer turns `<|im_end|>` into one id wherever the words come from. A problem that holds `<|im_end|>`
and `<|im_start|>assistant` would end its own turn and give the answer away, and `<|video_pad|>` would be one video
more than there is. So these rules run before a run starts, and again where a sample becomes tokens.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from video_thinker.errors import DataError
from video_thinker.schema import VideoSample
from video_thinker.trace import ANSWER_TAG, BLOCK_TAGS

# Qwen2.5-VL and Qwen3-VL have these besides the tokens of the form <|…|>.
_TOOL_TOKENS = frozenset({"<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"})
_CHAT_TOKEN = r"<\|[^\s|<>]{1,64}\|>"
_TRACE_TAG = re.compile(rf"</?(?:{'|'.join((*BLOCK_TAGS, ANSWER_TAG))})>", re.IGNORECASE | re.ASCII)
_BRACKETED = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _AddedToken(Protocol):
    content: str
    special: bool


class Tokenizer(Protocol):
    """The part of a `transformers` tokenizer that knows its own tokens."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Id -> token, of all tokens that are cut out of a text before it is split into words."""
        ...


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens that a text must not hold. Those of the form `<|…|>` and the tags of a trace always count.

    `names` are further ones; without a tokenizer those of Qwen2.5-VL and Qwen3-VL.
    """

    names: frozenset[str] = _TOOL_TOKENS

    @classmethod
    def of_tokenizer(cls, tokenizer: Tokenizer) -> SpecialTokens:
        """Take the tokens of a tokenizer: the special ones, and all in brackets (Qwen3-VL's `<think>` is not special).

        Words that were only added to the vocabulary are words.
        """
        added: list[_AddedToken] = list(tokenizer.added_tokens_decoder.values())
        return cls(frozenset(t.content for t in added if t.special or _BRACKETED.fullmatch(t.content)))

    def find(self, text: str, *, is_trace: bool = False) -> str | None:
        """Find the first special token of a text; in a trace, the tags of its format are none."""
        found = [match for match in _pattern(self.names).finditer(text) if not (is_trace and _is_tag(match.group()))]
        if not is_trace and (tag := _TRACE_TAG.search(text)):
            found.append(tag)
        return min(found, key=re.Match.start).group() if found else None


@dataclass(frozen=True, slots=True)
class TextProblem:
    """What is wrong with a text of a sample: its kind, where it stands ("the problem"), what was found, rule, fix."""

    kind: str
    field: str
    found: str
    rule: str
    fix: str


def texts_of(sample: VideoSample) -> Iterator[tuple[str, str]]:
    """Give all texts of a sample that a model may read or learn, each with its name for messages."""
    yield "the problem", sample.problem
    for number, option in enumerate(sample.options, start=1):
        yield f"option {number}", option
    yield "the solution", sample.answer
    for number, segment in enumerate(sample.segments, start=1):
        yield f"the caption of segment {number}", segment.caption
    if sample.process is not None:
        yield "process", sample.process


def text_problems(sample: VideoSample, tokens: SpecialTokens) -> Iterator[TextProblem]:
    """Find what cannot be used in the texts of a sample: special tokens, lone surrogates, NUL characters."""
    for field, text in texts_of(sample):
        if (found := unusable_character(text)) is not None:
            kind, rule = "a text holds characters that are none", "it cannot be tokenized"
            yield TextProblem(kind, field, f"holds {found}", rule, "write the text again")
        if (token := tokens.find(text, is_trace=field == "process")) is not None:
            yield TextProblem("a text holds special tokens", field, *_describe_token(token))


def check_texts(sample: VideoSample, tokens: SpecialTokens) -> None:
    """Refuse a sample whose texts hold a special token of the model, or characters that are no text.

    Raises:
        DataError: one does; the message names the sample's place, its field and the token.
    """
    for problem in text_problems(sample, tokens):
        where = f"{sample.location}: " if sample.location else ""
        raise DataError(
            f"{where}{problem.field} {problem.found} (sample {sample.id!r}); {problem.rule}; {problem.fix}."
        )


def unusable_character(text: str) -> str | None:
    r"""Name the first character that no text holds: half of a surrogate pair ("\ud83d" in JSON), or NUL."""
    if match := _SURROGATE.search(text):
        return f"the lone surrogate U+{ord(match.group()):04X}, half of a character"
    return "a NUL character" if "\0" in text else None


def control_character(text: str) -> str | None:
    """Name the first control character besides tab and line breaks, or replacement character, that a text holds."""
    for char in text:
        if char == "\N{REPLACEMENT CHARACTER}" or (char not in "\t\n\r\0" and unicodedata.category(char) == "Cc"):
            return f"U+{ord(char):04X}"
    return None


def is_blank(text: str) -> bool:
    """Say whether nothing of a text can be seen: it is empty, or all spaces, controls and zero-width characters."""
    return all(unicodedata.category(char)[0] in "ZC" for char in text)


def printable(text: str) -> str:
    r"""Write lone surrogates as "\udXXX", since no stream takes them as they are."""
    return text.encode("utf-8", "backslashreplace").decode()


def _describe_token(token: str) -> tuple[str, str, str]:
    if _is_tag(token):
        rule = "the tags of a trace stand in `process` only"
        return f"holds the tag {token!r}", rule, "take it out; the prompt style asks for the format"
    rule = "the tokenizer would make it a token of the chat format, not words"
    return f"holds {token!r}, a special token", rule, "take it out or write it in other words"


def _is_tag(text: str) -> bool:
    return _TRACE_TAG.fullmatch(text) is not None


@lru_cache(maxsize=16)
def _pattern(names: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join([*map(re.escape, longest_first), _CHAT_TOKEN]))


def brief(value: object) -> str:
    """Write a decoded value for an error message: as JSON, cut to 80 characters."""
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    if len(text) <= 80:
        return text
    return text[:76] + '..."' if isinstance(value, str) else text[:77] + "..."
