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
# A time in a text: "00:04", "1:00:05.5", "00:00:04,000" (SRT), "4.0", "4 s", "1 min 5 s", "4th second", "4\u79d2".
_MINUTES_UNIT = r"(?:minutes|minute|mins|min|m|\u5206\u949f|\u5206)"
_SECONDS_UNIT = r"(?:seconds|second|secs|sec|s|\u79d2\u949f|\u79d2)"
_TIME_IN_TEXT = re.compile(
    r"(?<![A-Za-z0-9_.])(?<![0-9]:)(?:\u7b2c ?)?(?:"
    r"(?:(?P<hours>[0-9]{1,3}):)?(?P<minutes>[0-9]{1,4}):(?P<seconds>[0-5][0-9](?:[.][0-9]{1,9}|,[0-9]{3})?)"
    rf"|(?P<long_minutes>[0-9]{{1,4}}) ?{_MINUTES_UNIT}(?:\b"
    rf"|(?=[0-9 \u4e00-\u9fff]))(?:,? ?(?:and )?(?P<more>[0-9]{{1,2}}(?:\.[0-9]{{1,9}})?) ?{_SECONDS_UNIT})"
    r"|(?P<number>[0-9]{1,7}(?:\.[0-9]{1,9})?)(?:st|nd|rd|th)?"
    r")(?![0-9:]|\.[0-9])"
    rf"(?P<unit> ?(?:{_MINUTES_UNIT}|{_SECONDS_UNIT}|hours|hour|h)(?![A-Za-z]))?(?![A-Za-z_])",
    re.IGNORECASE,
)
# Between the two times of a span.
_TO = re.compile(
    r"[\s\"')\]]*(?:-{1,3}>?|[\u2013\u2014~\u2192]|=>|(?:to|until|till|through|and|up to)\b|\u81f3|\u5230|\u2014\u2014)"
    r"[\s\"'(\[]*(?:(?:about|around|approximately|roughly|the|second|t ?=)\s*)*(?:\u7b2c ?)?",
    re.IGNORECASE,
)
_START_TO_END = re.compile(
    r"[^0-9]{0,60}(?:\b(?:end|ends|ending|ended|stop|stops|finish|finishes|until|lasts until|last until"
    r"|concludes)\b|\bend_?(?:time|_s)?"
    r"|\u7ed3\u675f|\u5f00\u59cb|\u6b62)[^0-9]{0,30}",
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*[,;|]\s*|\s+")
_LASTS = re.compile(r"[^0-9]{0,40}\b(?:lasts?|lasting|for|duration)(?: (?:of|is|about|for)|:){0,2} ", re.IGNORECASE)
_FRAME_BEFORE = re.compile(r"\bframes?(?: (?:number|no\.|from|between))?[ #:]{0,3}\Z", re.IGNORECASE)
_FRAME_AFTER = re.compile(r" ?(?:frames?\b|\u5e27)", re.IGNORECASE)
_MAX_GAP_CHARS = 96
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
    """Find all time spans in a text, in seconds: "It happens from 1.0 to 7.5 s and at 00:10-00:14".

    Read are "4.0-9.5", "from 4 to 9.5 seconds", "[4.0, 9.5]", "00:00:04,000 --> 00:00:09,500", "starts at 4 s and ends
    at 9.5 s", "4秒到9.5秒" and, where a text holds two times and no more, "4.0, 9.5". Unlike
    `parse_time_range`, which wants the text to be one range and nothing else. The order of the two times of a range is
    not checked here.
    """
    times = list(_TIME_IN_TEXT.finditer(text))
    spans = []
    index = 0
    while index + 1 < len(times):
        first, second = times[index], times[index + 1]
        gap = text[first.end() : second.start()]
        if _is_span(text, first, second, gap, is_only=len(times) == 2):
            span = _span_of(first, second)
            if span is not None and _is_length(second, gap):
                span = span[0], span[0] + span[1]
            if span is not None:
                spans.append(span)
                index += 2
                continue
        index += 1
    return spans


def _is_span(text: str, first: re.Match[str], second: re.Match[str], gap: str, *, is_only: bool) -> bool:
    is_negative = re.search(r"(?:^|[^0-9\s-])\s*-$", text[max(0, first.start() - 3) : first.start()])
    if len(gap) > _MAX_GAP_CHARS or is_negative or _are_frames(text, first, second):
        return False
    if _TO.fullmatch(gap):
        moments = re.search(r"\bat (?:the )?$", text[max(0, first.start() - 8) : first.start()])
        return not (moments and re.search(r"\band\b", gap))
    if _START_TO_END.fullmatch(gap) or _is_length(second, gap):
        return True
    if _COMMA.fullmatch(gap):
        before = text[max(0, first.start() - 3) : first.start()].rstrip()
        after = text[second.end() : second.end() + 3].lstrip()
        return is_only or (before[-1:] in tuple("[(") and after[:1] in tuple("])"))
    return False


def _is_length(second: re.Match[str], gap: str) -> bool:
    """Say whether a second time is how long the span is: "begins at 4 s and lasts 5 s"."""
    return second["unit"] is not None and len(gap) <= _MAX_GAP_CHARS and _LASTS.fullmatch(gap) is not None


def _are_frames(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    """Say whether two numbers count frames and not seconds: "frames 4-9", "\u7b2c4\u5e27\u5230\u7b2c9\u5e27"."""
    return bool(
        _FRAME_BEFORE.search(text[max(0, first.start() - 24) : first.start()]) or _FRAME_AFTER.match(text, second.end())
    ) and not (first["unit"] or second["unit"] or first["seconds"])


def _span_of(first: re.Match[str], second: re.Match[str]) -> tuple[float, float] | None:
    """Read two times; a first one without a unit has that of the second ("1-2 minutes")."""
    unit = second["unit"] if first["unit"] is None else first["unit"]
    start_s, end_s = _seconds_of(first, unit if first["number"] else None), _seconds_of(second, second["unit"])
    return None if start_s is None or end_s is None else (start_s, end_s)


def _seconds_of(time: re.Match[str], unit: str | None) -> float | None:
    if time["seconds"]:
        clock = ":".join(part for part in (time["hours"], time["minutes"], time["seconds"]) if part)
        return parse_time(clock.replace(",", "."))
    if time["long_minutes"]:
        return 60 * int(time["long_minutes"]) + float(time["more"] or 0)
    unit = (unit or "").strip().lower()
    factor = 3600 if unit.startswith("h") else 60 if unit.startswith(("m", "\u5206")) else 1
    return factor * float(time["number"])


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
