"""Completion text <-> `Trace`: the `<time>`, `<caption>`, `<think>` and `<answer>` blocks. Runs without torch.

A completion as the model writes it (Video-Thinker, arXiv 2510.23473, section 3):

    I look for the lane with the pins. <time>00:10-00:14</time> <caption>A red ball rolls down a wooden lane.</caption>
    <think>The rolling ball is red.</think> So it is red. <answer>B</answer>

There are two readings of it. The **lenient** one finds what can be found, for evaluation and for showing a trace to a
person. The **strict** one is the rule of the format reward; its paper does not publish the rule, this is ours:

- the tags are, in this order, one or more blocks `time`, `caption`, `think`, and then exactly one `answer`; hence
  equally many of each, none nested, none left open, all in lower case;
- inside a block only white space stands between the tags; free prose may stand before, between and after the blocks;
- caption, think and answer are not empty;
- each time is a range whose start is before its end, and which lies within the video when its duration is known. The
  end may exceed the duration by `TIME_TOLERANCE_S`: MM:SS rounds up to a second.

Everything is one pass over the tags, so the time taken is linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from video_thinker.errors import DataError
from video_thinker.schema import Trace, TraceBlock
from video_thinker.times import MAX_RANGE_CHARS, TIME_TOLERANCE_S, format_time, parse_time_range

BLOCK_TAGS = ("time", "caption", "think")
ANSWER_TAG = "answer"

_TAG = re.compile(r"<(/?)(time|caption|think|answer)>", re.IGNORECASE | re.ASCII)
# "Final answer: B", "**Final Answer:** B", "final answer is B", and a line of its own before the answer.
_FINAL_ANSWER = re.compile(
    r"(?:\bfinal answer|\u6700\u7ec8\u7b54\u6848)[*_ ]{0,4}(?:[:\uff1a]|is\b|\u662f|\u4e3a)[*_ ]{0,4}", re.IGNORECASE
)
_JOINS_ANSWERS = re.compile(r"\s*(?:,|/|;|&|\bor\b|\band\b|\u6216\u8005?|\u548c|\u3001)\s*", re.IGNORECASE)

_BLOCK_SEQUENCE = [mark + tag for tag in BLOCK_TAGS for mark in ("", "/")]
_ANSWER_SEQUENCE = [ANSWER_TAG, "/" + ANSWER_TAG]


@dataclass(frozen=True, slots=True)
class _Tag:
    """One opening or closing tag and where it stands. `name` is in lower case."""

    name: str
    closes: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of text: the content of one element, or prose outside of all (`name` is "")."""

    name: str
    content: str


def extract_answer(text: str) -> str | None:
    """Find the answer that a completion marks as such, or `None`.

    The last complete `<answer>…</answer>` counts, the inner one where they are nested; else the last `<answer>`
    left open that has content (up to the next tag); else the rest of the line after the last "Final answer:". Answers
    joined by a word ("<answer>A</answer> or <answer>B</answer>") are one: "A or B". An answer after the last `</think>`
    goes before one in a thought. An empty answer is none. One without any mark is left to `answer_places`.
    """
    return next(_marked_answers(text), None)


def answer_places(text: str, *, is_choice: bool = False) -> Iterator[str]:
    """List where a completion may give its answer, the most telling place first.

    An answer that is marked as such after the last `</think>` is the only place. Else: what is written after the last
    `</think>`, a marked answer before it, all of a text without tags, and for a choice the prose outside of the tags.

    Args:
        text: The completion.
        is_choice: Of "Final answer:" take all that follows, not only its line: a list of options has many lines.
    """
    _, thinks, conclusion = _cut_after_thinking(text)
    marked = next(_marked_answers(conclusion, rest=is_choice), None)
    if marked is not None:
        yield marked
        return
    if thinks and (prose := untagged_prose(conclusion).strip()):
        yield prose
    yield from _marked_answers(text, rest=is_choice)
    if is_choice or not has_tags(text):
        yield untagged_prose(text)


def _cut_after_thinking(text: str) -> tuple[str, bool, str]:
    """Cut a text after its last `</think>`: what is before, whether there is one, what follows."""
    last = None
    for tag in _tags(text):
        if tag.name == "think" and tag.closes:
            last = tag
    return ("", False, text) if last is None else (text[: last.end], True, text[last.end :])


def _marked_answers(text: str, *, rest: bool = False) -> Iterator[str]:
    """Find the marked answer after the last `</think>`, then that of the whole text."""
    _, thinks, conclusion = _cut_after_thinking(text)
    for part in (conclusion, text) if thinks else (text,):
        if answer := _tagged_answer(part) or _after_final_answer(part, rest=rest):
            yield answer


def _tagged_answer(text: str) -> str:
    opened_at: int | None = None
    answer: str | None = None
    closed_at: int | None = None
    left_open, joins = "", False
    for tag, following in itertools.pairwise([*_tags(text), _Tag("", False, len(text), len(text))]):
        if tag.name != ANSWER_TAG:
            continue
        if not tag.closes:
            gap = "" if closed_at is None else text[closed_at : tag.start][:16]
            joins = closed_at is not None and (not gap.strip(" .\n") or _JOINS_ANSWERS.fullmatch(gap) is not None)
            opened_at = tag.end
            open_content = text[tag.end : following.start].strip()
            if joins and not following.closes and open_content:
                answer = f"{answer} or {open_content}"
            left_open = open_content or left_open
        elif opened_at is not None:
            content = text[opened_at : tag.start]
            repeats = answer is not None and content.strip() == answer.strip()
            answer = f"{answer} or {content}" if joins and content.strip() and not repeats else content
            opened_at, closed_at = None, tag.end
    return (left_open if answer is None else answer).strip()


def has_tags(text: str) -> bool:
    """Say whether a text holds any tag of the trace format."""
    return _TAG.search(text) is not None


def untagged_prose(text: str) -> str:
    """Return what stands outside of all tags, the pieces separated by line breaks; all of a text without tags."""
    return "\n".join(piece.content.strip() for piece in _pieces(text) if not piece.name)


def parse_trace(text: str, *, strict: bool = False, duration_s: float | None = None) -> Trace | None:
    """Parse a completion.

    Lenient: each `<time>` with a readable range whose start is before its end makes a block, with the first caption and
    think text that follow it before the next `<time>`; tags may be left open, nested, or in any case.
    `reasoning` is the prose outside of all tags.

    Returns:
        The trace. Strict: `None` unless `format_violations(text, duration_s)` is empty. Lenient: `None` if there is
        neither a block nor an answer.
    """
    if strict and format_violations(text, duration_s):
        return None
    pieces = list(_pieces(text))
    blocks = tuple(_blocks(pieces))
    answer = extract_answer(text)
    if not blocks and answer is None:
        return None
    prose = (piece.content.strip() for piece in pieces if not piece.name)
    return Trace(blocks=blocks, answer=answer, reasoning=" ".join(part for part in prose if part))


def render_trace(trace: Trace) -> str:
    """Render a trace: its blocks, then its reasoning, then its answer, each on a line.

    `parse_trace(render_trace(trace), strict=True)` gives the trace back if it has a block and an answer, and times in
    hundredths of a second.

    Raises:
        DataError: If a text holds one of the tags, which would make the result unreadable, or a time is invalid.
    """
    parts: list[str] = []
    for block in trace.blocks:
        span = f"{format_time(block.start_s)}-{format_time(block.end_s)}"
        parts.append(" ".join(map(_element, BLOCK_TAGS, (span, block.caption, block.think))))
    if trace.reasoning:
        parts.append(_untagged(trace.reasoning))
    if trace.answer is not None:
        parts.append(_element(ANSWER_TAG, trace.answer))
    return "\n".join(parts)


def format_violations(text: str, duration_s: float | None = None) -> list[str]:
    """Say why a completion breaks the strict rule (see the module's docstring); empty if it is valid.

    `duration_s` is the video's length in seconds; `None` leaves out the check that times lie within it.
    """
    tags = list(_tags(text))
    violations = _structure_violations(text, tags)
    if violations:
        return violations
    contents = [text[opening.end : closing.start] for opening, closing in zip(tags[::2], tags[1::2], strict=True)]
    num_blocks = len(contents) // 3
    for index in range(num_blocks):
        span, caption, think = contents[3 * index : 3 * index + 3]
        first, last = tags[6 * index], tags[6 * index + 5]
        between = text[tags[6 * index + 1].end : tags[6 * index + 2].start]
        between += text[tags[6 * index + 3].end : tags[6 * index + 4].start]
        where = f"block {index + 1} (characters {first.start}-{last.end})"
        if between.strip():
            violations.append(f"{where}: text between its tags")
        violations += [f"{where}: {problem}" for problem in _time_violations(span, duration_s)]
        violations += [
            f"{where}: empty {tag}" for tag, body in (("caption", caption), ("think", think)) if not body.strip()
        ]
    if not contents[-1].strip():
        violations.append("empty answer")
    return violations


def _tags(text: str) -> Iterator[_Tag]:
    for match in _TAG.finditer(text):
        yield _Tag(match.group(2).lower(), match.group(1) == "/", match.start(), match.end())


def _pieces(text: str) -> Iterator[_Piece]:
    """Cut the text at its tags. An element ends at its closing tag, at any other tag, or at the end of the text."""
    name, position = "", 0
    for tag in _tags(text):
        yield _Piece(name, text[position : tag.start])
        name, position = ("" if tag.closes else tag.name), tag.end
    yield _Piece(name, text[position:])


def _blocks(pieces: list[_Piece]) -> Iterator[TraceBlock]:
    span: tuple[float, float] | None = None
    texts: dict[str, str] = {}
    for piece in [*pieces, _Piece("time", "")]:
        if piece.name in ("caption", "think"):
            texts.setdefault(piece.name, piece.content.strip())
        elif piece.name == "time":
            if span is not None and span[0] < span[1]:
                yield TraceBlock(*span, caption=texts.get("caption", ""), think=texts.get("think", ""))
            span, texts = parse_time_range(piece.content), {}


def _after_final_answer(text: str, *, rest: bool) -> str:
    """Return the line after the last "Final answer:", or with `rest` all that follows; "" if there is none."""
    matches = list(_FINAL_ANSWER.finditer(text))
    if not matches:
        return ""
    following = untagged_prose(text[matches[-1].end() :]).strip("* \t\n")
    return following if rest else following.partition("\n")[0].strip("* \t")


def _structure_violations(text: str, tags: list[_Tag]) -> list[str]:
    sequence = [("/" if tag.closes else "") + tag.name for tag in tags]
    counts = Counter(sequence)
    violations = []
    if any(text[tag.start : tag.end] != text[tag.start : tag.end].lower() for tag in tags):
        violations.append("tags that are not in lower case")
    if not all(counts[name] for name in _BLOCK_SEQUENCE):
        violations.append("no complete <time>…</time> <caption>…</caption> <think>…</think> block")
    if len({counts[name] for name in _BLOCK_SEQUENCE}) > 1:
        found = ", ".join(f"{counts[name]} <{name}>" for name in _BLOCK_SEQUENCE)
        violations.append(f"unequal numbers of tags: {found}")
    if (counts["answer"], counts["/answer"]) != (1, 1):
        violations.append(f"{counts['answer']} <answer> and {counts['/answer']} </answer> instead of one each")
    if not violations and sequence != _BLOCK_SEQUENCE * counts["time"] + _ANSWER_SEQUENCE:
        violations.append("tags nested or out of order: not time, caption, think, repeated, and then answer")
    return violations


def _time_violations(text: str, duration_s: float | None) -> list[str]:
    span = parse_time_range(text)
    if span is None:
        return [f"{text.strip()[:MAX_RANGE_CHARS]!r} is not a time range MM:SS-MM:SS"]
    start_s, end_s = span
    if start_s >= end_s:
        return [f"start {start_s:g} s is not before end {end_s:g} s"]
    if duration_s is not None and (start_s >= duration_s or end_s > duration_s + TIME_TOLERANCE_S):
        return [f"{start_s:g}-{end_s:g} s is outside the video of {duration_s:g} s"]
    return []


def _element(tag: str, content: str) -> str:
    return f"<{tag}>{_untagged(content)}</{tag}>"


def _untagged(text: str) -> str:
    if match := _TAG.search(text):
        raise DataError(
            f"the text {text[:80]!r} holds the tag {match.group()}; a trace's texts hold no tags; remove it."
        )
    return text
