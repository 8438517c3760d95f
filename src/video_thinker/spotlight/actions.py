"""Text of one spotlight turn <-> think text and action: one parser, one table of verbs per grammar. No torch.

One turn as the model writes it (FrameThinker, arXiv 2509.24304):

    <think>The pour must be between 120 and 480.</think><action>choose frames between 120 and 480</action>

**Strict** (rewards, SFT): white space, one think element, white space, one action element, white space; tags and verbs
as in the table; times MM:SS with hours folded into minutes (62:30). **Lenient** (evaluation): the first or the last
action that stands outside of think texts counts; case, white space, a full stop and the spelling of times are free.
An action that is left open is never carried out: its numbers may be cut in the middle.

Each reading is linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from video_thinker.errors import DataError
from video_thinker.spotlight.episode import Action, Answer, AskFrame, Look, LookTimes
from video_thinker.times import parse_time

MAX_ACTION_CHARS = 4096
"""A longer action is refused unread: an answer may be a sentence, not a book."""

_TAG = re.compile(r"<(/?)(think|action)>", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_STRICT_TIME = re.compile(r"[0-9]{1,4}:[0-5][0-9]", re.ASCII)
_SPACE = re.compile(r"[ \t\r\n]+")
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Verb:
    """One form of an action. `words` are the fixed words before each field, `kinds` what each field is.

    `("choose frames between", "and")` with `("frame", "frame")` reads "choose frames between 120 and 480".
    """

    words: tuple[str, ...]
    kinds: tuple[Literal["frame", "time", "text"], ...]
    make: Callable[..., Action]

    def __str__(self) -> str:
        """Show the form: "get frame number at time MM:SS"."""
        names = {"frame": "NUMBER", "time": "MM:SS", "text": "TEXT"}
        return " ".join(f"{word} {names[kind]}" for word, kind in zip(self.words, self.kinds, strict=True))


_ANSWER = Verb(("output answer:",), ("text",), Answer)
Grammar = tuple[Verb, ...]
GRAMMARS: dict[str, Grammar] = {
    "frame_thinker": (
        Verb(("choose frames between", "and"), ("frame", "frame"), Look),
        Verb(("get frame number at time",), ("time",), AskFrame),
        _ANSWER,
    ),
    "seconds": (Verb(("look between", "and"), ("time", "time"), LookTimes), _ANSWER),
}


@dataclass(frozen=True, slots=True)
class TurnReading:
    """What a turn says. `problem` says why there is no action, and is "" where there is one.

    `faults` are structural: not one think and one action, text outside of them, nested or open tags. They break the
    grammar rule of verification even where a lenient reading finds an action.
    """

    think: str | None
    action: Action | None
    problem: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Element:
    name: str
    content: str


def read_turn_strict(text: str, grammar: Grammar) -> TurnReading:
    """Read a turn that must keep the whole grammar; `action` is `None` and `problem` set where it does not."""
    elements, faults = _elements(text)
    if any(match.group() != match.group().lower() for match in _TAG.finditer(text)):
        faults = [*faults, "tags that are not in lower case"]
    think = next((element.content.strip() for element in elements if element.name == "think"), None)
    if faults:
        return TurnReading(think, None, "; ".join(faults), tuple(faults))
    action, problem = read_action(elements[1].content, grammar, strict=True)
    return TurnReading(think, action, problem)


def read_turn_lenient(text: str, grammar: Grammar, pick: Literal["first", "last"] = "first") -> TurnReading:
    """Read the first or last action of a turn (FrameThinker's inference: first, its training: last).

    `think` is the think text before that action. If that action cannot be read, no other one is taken in its place.
    """
    elements, faults = _elements(text)
    indices = [index for index, element in enumerate(elements) if element.name == "action"]
    if not indices:
        thinks = [element.content.strip() for element in elements if element.name == "think"]
        return TurnReading(thinks[-1] if thinks else None, None, "; ".join(faults), tuple(faults))
    index = indices[0] if pick == "first" else indices[-1]
    thinks = [element.content.strip() for element in elements[:index] if element.name == "think"]
    action, problem = read_action(elements[index].content, grammar, strict=False)
    return TurnReading(thinks[-1] if thinks else None, action, problem, tuple(faults))


def read_action(text: str, grammar: Grammar, *, strict: bool) -> tuple[Action | None, str]:
    """Read the content of an action element: the action, or `None` and why."""
    if len(text) > MAX_ACTION_CHARS:
        return None, f"an action of {len(text)} characters; it has at most {MAX_ACTION_CHARS}"
    body = text.strip(" \t\r\n")
    body = body if strict else _SPACE.sub(" ", body)
    for verb in grammar:
        first = verb.words[0]
        if body.startswith(first) or (not strict and body.lower().startswith(first.lower())):
            return _read_verb(body, verb, strict)
    return None, f"{body[:_SHOWN_CHARS]!r} is none of: {'; '.join(map(str, grammar))}"


def render_action(action: Action, grammar: Grammar) -> str:
    """Write an action in the words of a grammar; times are whole seconds, with hours folded into minutes.

    Raises:
        DataError: the grammar has no verb for it, or it cannot be read back.
    """
    verb = next((verb for verb in grammar if verb.make is type(action)), None)
    if verb is None:
        raise DataError(f"{action}: the grammar has no verb for it; it has: {'; '.join(map(str, grammar))}.")
    values = [getattr(action, name) for name in type(action).__slots__]
    fields = [_folded(v) if kind == "time" else str(v) for v, kind in zip(values, verb.kinds, strict=True)]
    text = " ".join(f"{word} {value}" for word, value in zip(verb.words, fields, strict=True))
    if _TAG.search(text) or read_action(text, grammar, strict=True)[0] != action:
        raise DataError(f"{action}: {text[:_SHOWN_CHARS]!r} does not read as this action; give valid values.")
    return text


def render_turn(think: str, action: Action, grammar: Grammar) -> str:
    """Write a turn that `read_turn_strict` reads back.

    Raises:
        DataError: the think text is empty or holds one of the tags, or the action cannot be written.
    """
    if not think.strip():
        raise DataError("an empty think text; each turn thinks before it acts; write one.")
    if match := _TAG.search(think):
        raise DataError(f"the think text {think[:_SHOWN_CHARS]!r} holds the tag {match.group()}; remove it.")
    return f"<think>{think.strip()}</think><action>{render_action(action, grammar)}</action>"


def _elements(text: str) -> tuple[list[_Element], list[str]]:
    """Cut a turn into its closed think and action elements, in order, and list its structural faults.

    What stands in an element belongs to it, tags too: an action inside a think text is never carried out. An element
    ends at its own closing tag. A think text left open ends where the first action begins after it.
    """
    elements: list[_Element] = []
    faults: list[str] = []
    tags = list(_TAG.finditer(text))
    last_close = {name: max((i for i, t in enumerate(tags) if t[1] and t[2].lower() == name), default=-1)
                  for name in ("think", "action")}  # fmt: skip
    outside, position, index = "", 0, 0
    while index < len(tags):
        tag = tags[index]
        name = tag[2].lower()
        outside += text[position : tag.start()]
        position = tag.end()
        if tag[1]:
            faults.append(f"</{name}> that closes nothing")
            index += 1
            continue
        opened, index = index, index + 1
        if last_close[name] < index:
            faults.append(f"a <{name}> that is left open")
            if name == "action":
                position = len(text)
                break
            continue
        while not (tags[index][1] and tags[index][2].lower() == name):
            index += 1
        if index > opened + 1:
            faults.append(f"a tag inside <{name}>")
        elements.append(_Element(name, text[tag.end() : tags[index].start()]))
        position = tags[index].end()
        index += 1
    outside += text[position:]
    return elements, [*dict.fromkeys(faults), *_order_faults(elements, outside)]


def _order_faults(elements: list[_Element], outside: str) -> list[str]:
    faults = []
    for name in ("think", "action"):
        count = sum(element.name == name for element in elements)
        if count != 1:
            faults.append(f"{count or 'no'} <{name}> element instead of one")
    if [element.name for element in elements] == ["action", "think"]:
        faults.append("the action before the think text")
    if outside.strip(" \t\r\n"):
        faults.append("text outside of the think and action elements")
    if any(element.name == "think" and not element.content.strip() for element in elements):
        faults.append("an empty think text")
    return faults


def _read_verb(body: str, verb: Verb, strict: bool) -> tuple[Action | None, str]:
    """Read the fields of a verb whose first words begin the text."""
    pieces = []
    rest = body[len(verb.words[0]) :]
    for word in verb.words[1:]:
        match = re.search(rf" {word} ", rest, 0 if strict else re.IGNORECASE)
        if match is None:
            return None, f"{body[:_SHOWN_CHARS]!r} is not of the form {verb}"
        pieces.append(rest[: match.start()])
        rest = rest[match.end() - 1 :]
    pieces.append(rest)
    values: list[int | float | str] = []
    for piece, kind in zip(pieces, verb.kinds, strict=True):
        if not piece.startswith(" ") and (strict or kind != "text"):
            return None, f"{body[:_SHOWN_CHARS]!r} is not of the form {verb}"
        value = _read_field(piece[1:] if piece.startswith(" ") else piece, kind, strict)
        if value is None:
            return None, f"{piece.strip()[:_SHOWN_CHARS]!r} in {body[:_SHOWN_CHARS]!r}: {_FIELD_RULES[kind]}"
        values.append(value)
    return verb.make(*values), ""


_FIELD_RULES = {
    "frame": "a frame number is a whole number from 0 in digits",
    "time": "a time is MM:SS, with hours folded into minutes (62:30)",
    "text": "the answer is empty, or holds a tag",
}


def _read_field(text: str, kind: str, strict: bool) -> int | float | str | None:
    if kind == "text":
        answer = text.strip()
        return None if not answer or _TAG.search(answer) or (strict and answer != text) else answer
    if not strict:
        text = text.strip(" '\"").removesuffix(".")
    if kind == "frame":
        return int(text) if _NUMBER.fullmatch(text) else None
    return parse_time(text) if not strict or _STRICT_TIME.fullmatch(text) else None


def _folded(seconds: float) -> str:
    """Write a whole number of seconds as MM:SS, hours folded: 3750 is "62:30"; others so that they do not read back."""
    if not math.isfinite(seconds) or seconds < 0 or seconds != int(seconds):
        return str(seconds)
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
