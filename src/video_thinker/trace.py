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
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from video_thinker.errors import DataError
from video_thinker.schema import Trace, TraceBlock

BLOCK_TAGS = ("time", "caption", "think")
ANSWER_TAG = "answer"
TIME_TOLERANCE_S = 1.0

_TAG = re.compile(r"<(/?)(time|caption|think|answer)>", re.IGNORECASE | re.ASCII)
_CLOCK = re.compile(r"(?:([0-9]{1,3}):)?([0-9]{1,4}):([0-5][0-9](?:\.[0-9]{1,9})?)")
_SECONDS = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,9})?) ?(?:s|sec|seconds)?")
_RANGE = re.compile(r"(.+?)\s*(?:->|-|–|—|~|\bto\b)\s*(.+)")
_MAX_RANGE_CHARS = 64  # longer text is not a time range, and bounds the backtracking of the patterns above
_TIME = (
    r"(?:(?:[0-9]{1,3}:)?[0-9]{1,4}:[0-5][0-9](?:\.[0-9]{1,9})?|[0-9]{1,7}(?:\.[0-9]{1,9})?(?: ?(?:seconds|sec|s)\b)?)"
)
# "00:01-00:03", "from 1.0 s to 7.5 s", "between 1 and 3", "[1.0, 7.5]", anywhere in a text.
_RANGE_IN_TEXT = re.compile(
    rf"(?<![\w.:-])({_TIME})\s{{0,4}}(?:->|-|–|—|~|(?:to|until|and)\b)\s{{0,4}}({_TIME})(?![\w:]|\.[0-9])"
    rf"|[\[(]\s{{0,4}}({_TIME})\s{{0,4}},\s{{0,4}}({_TIME})\s{{0,4}}[\])]",
    re.IGNORECASE,
)
# "Final answer: B", "**Final Answer:** B", "final answer is B", and a line of its own before the answer.
_FINAL_ANSWER = re.compile(r"\bfinal answer[*_ ]{0,4}(?:[:：]|is\b)[*_ ]{0,4}", re.IGNORECASE)

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


def parse_time(text: str) -> float | None:
    """Read a point in time as seconds; `None` if it is not one.

    "01:07" and "1:07" are 67.0, "00:07.5" and "7.5" and "7.5s" are 7.5, "1:00:05" is 3605.0. Seconds after a colon are
    two digits below 60, and so are minutes after an hour; minutes alone may exceed 59.
    """
    text = text.strip()
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = match.groups()
        if hours is not None and (int(minutes) > 59 or len(minutes) != 2):
            return None
        return round(int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds), 6)
    if match := _SECONDS.fullmatch(text):
        return float(match.group(1))
    return None


def format_time(seconds: float) -> str:
    """Render seconds as MM:SS, from one hour as H:MM:SS, with up to two decimals where needed.

    67.0 is "01:07", 7.5 is "00:07.5", 3605 is "1:00:05".

    Raises:
        DataError: If `seconds` is negative or not finite.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise DataError(f"a time is {seconds}; it must be a finite number of seconds from 0; fix the segment.")
    whole, hundredths = divmod(round(seconds * 100), 100)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    decimals = f".{hundredths:02d}".rstrip("0") if hundredths else ""
    clock = f"{minute:02d}:{second:02d}{decimals}"
    return f"{hours}:{clock}" if hours else clock


def parse_time_range(text: str) -> tuple[float, float] | None:
    """Read "00:10-00:14" as (10.0, 14.0); `None` if it is not a range of two times.

    The separator may be "-", "->", "–", "—", "~" or "to". The order of the two times is not checked here.
    """
    text = text.strip()
    if len(text) > _MAX_RANGE_CHARS:
        return None
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    start_s, end_s = parse_time(match.group(1)), parse_time(match.group(2))
    return None if start_s is None or end_s is None else (start_s, end_s)


def find_time_ranges(text: str) -> list[tuple[float, float]]:
    """Find all time ranges in a text, in seconds: "It happens from 1.0 to 7.5 s and at 00:10-00:14".

    Unlike `parse_time_range`, which wants the text to be one range and nothing else. The order of the two times of a
    range is not checked here.
    """
    spans = []
    for match in _RANGE_IN_TEXT.finditer(text):
        start_s, end_s = (parse_time(time) for time in match.groups() if time is not None)
        if start_s is not None and end_s is not None:
            spans.append((start_s, end_s))
    return spans


def extract_answer(text: str) -> str | None:
    """Find the answer a completion gives, or `None`.

    The last complete `<answer>…</answer>` counts, the inner one where they are nested; else the last `<answer>` left
    open that has content (up to the next tag); else the rest of the line after the last "Final answer:". An empty
    answer is none. An answer without any mark is left to `scoring.score_completion`, which knows the options.
    """
    opened_at: int | None = None
    answer: str | None = None
    left_open = ""
    for tag, following in itertools.pairwise([*_tags(text), _Tag("", False, len(text), len(text))]):
        if tag.name != ANSWER_TAG:
            continue
        if not tag.closes:
            opened_at = tag.end
            left_open = text[tag.end : following.start].strip() or left_open
        elif opened_at is not None:
            answer, opened_at = text[opened_at : tag.start], None
    if answer is None:
        answer = left_open or _after_final_answer(text)
    return (answer or "").strip() or None


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


def _after_final_answer(text: str) -> str | None:
    matches = list(_FINAL_ANSWER.finditer(text))
    if not matches:
        return None
    lines = text[matches[-1].end() :].strip().splitlines()
    return lines[0].strip("* \t") if lines else None


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
        return [f"{text.strip()[:_MAX_RANGE_CHARS]!r} is not a time range MM:SS-MM:SS"]
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
