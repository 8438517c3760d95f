"""Cognitive Consistency Verification (FrameThinker, arXiv 2509.24304): do thoughts, looks and answer hang together?

Each rule is a pure function of the episode as it was carried out, never of its text: an invented "Frame number … is:
120" or a second action in a turn cannot pass. Two presets recompute the published protocols:

- `frame_thinker`, its training;
- `frame_thinker_infer`, its inference: no fidelity, nested intervals allowed, a look wider than n, and a look right
  after every time query.

Fidelity compares the interval that the model asked for; all other rules take what was carried out (after clamping).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from video_thinker.errors import ConfigError
from video_thinker.spotlight.episode import Action, Answer, AskFrame, Episode, Look, LookTimes, Shown, Told

RuleName = Literal["count", "grammar", "executed", "redundancy", "width", "fidelity", "flow"]
_NUMBERS = re.compile(r"(?<![0-9:])[0-9]+(?![0-9:])", re.ASCII)
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule. `turn` counts from 1 and is 0 for the episode as a whole; `numbers` are the offending ones."""

    turn: int
    rule: RuleName
    message: str
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Preset:
    """Which rules hold. `min_width` is what a look must be wider than; `None` is n, the frames of the first view."""

    name: str
    min_width: int | None
    fidelity: bool
    nested: bool
    look_after_query: bool


PRESETS = {
    "frame_thinker": Preset("frame_thinker", 8, fidelity=True, nested=True, look_after_query=False),
    "frame_thinker_infer": Preset("frame_thinker_infer", None, fidelity=False, nested=False, look_after_query=True),
}


def violations(episode: Episode, preset: Preset | str = "frame_thinker") -> list[Violation]:
    """List the broken rules of an episode, by rule; empty if it is verified.

    Raises:
        ConfigError: there is no preset of that name.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ConfigError(f"verification preset {preset!r} is unknown; there are {', '.join(PRESETS)}.")
        preset = PRESETS[preset]
    return [violation for rule in RULES for violation in rule(episode, preset)]


def count(episode: Episode, preset: Preset) -> Iterator[Violation]:
    """Each turn has a think text and an action; the last action, and only that, is an answer."""
    if not episode.turns:
        yield Violation(0, "count", "no turn; an episode has at least one")
    for number, turn in enumerate(episode.turns, start=1):
        if turn.think is None or turn.action is None:
            missing = " and no ".join(n for n, v in (("think text", turn.think), ("action", turn.action)) if v is None)
            yield Violation(number, "count", f"no {missing}")
        is_last = number == len(episode.turns)
        if is_last and not isinstance(turn.action, Answer):
            yield Violation(number, "count", "the last action is not an answer")
        if not is_last and isinstance(turn.action, Answer):
            yield Violation(number, "count", "an answer before the last turn")


def grammar(episode: Episode, preset: Preset) -> Iterator[Violation]:
    """The text of each turn is one think element and one action element and nothing else."""
    for number, turn in enumerate(episode.turns, start=1):
        yield from (Violation(number, "grammar", fault) for fault in turn.faults)


def executed(episode: Episode, preset: Preset) -> Iterator[Violation]:
    """What was carried out is what was asked for: a look was shown, a query told, an answer got nothing."""
    for number, turn in enumerate(episode.turns, start=1):
        if turn.action is not None and not _is_reply(turn.action, turn.observation, episode.num_frames):
            yield Violation(number, "executed", f"{turn.action} was answered by {turn.observation}")


def redundancy(episode: Episode, preset: Preset) -> Iterator[Violation]:
    """No interval again, none nested in an earlier one by one frame, not the whole video; no time asked twice.

    The first view counts as a look at 0 to N - 1.
    """
    seen = {(0, episode.num_frames - 1): "the whole video"}
    asked: dict[float, int] = {}
    for number, turn in enumerate(episode.turns, start=1):
        shown = turn.observation
        if isinstance(shown, Told):
            if shown.time_s in asked:
                message = f"{shown.time_s:g} s was asked in turn {asked[shown.time_s]}"
                yield Violation(number, "redundancy", message, (shown.time_s,))
            asked.setdefault(shown.time_s, number)
        if isinstance(shown, Shown):
            interval = shown.start, shown.end
            if interval in seen:
                yield Violation(number, "redundancy", f"{_span(interval)} is {seen[interval]}", interval)
            outer = shown.start - 1, shown.end + 1
            if preset.nested and outer in seen:
                message = f"{_span(interval)} is by one frame inside of {seen[outer]}, {_span(outer)}"
                yield Violation(number, "redundancy", message, (*interval, *outer))
            seen.setdefault(interval, f"the look of turn {number}")


def width(episode: Episode, preset: Preset) -> Iterator[Violation]:
    """A look is wider than n (inference), or than 8 whatever n is (training)."""
    least = len(episode.first_frames) if preset.min_width is None else preset.min_width
    for number, shown in _looks(episode):
        if shown.end - shown.start <= least:
            message = f"{_span((shown.start, shown.end))} is {shown.end - shown.start} wide; more than {least} is asked"
            yield Violation(number, "width", message, (shown.start, shown.end, least))


def fidelity(episode: Episode, preset: Preset) -> Iterator[Violation]:
    """The last two whole numbers of the think text are the interval that was asked for.

    A number beside a colon is part of a time, not a whole number. Looks by time have no such rule.
    """
    if not preset.fidelity:
        return
    for number, turn in enumerate(episode.turns, start=1):
        if isinstance(turn.action, Look):
            named = last_two_integers(turn.think or "")
            asked = turn.action.start, turn.action.end
            if named != asked:
                message = f"the think text ends in {named or 'fewer than two numbers'}, the look is {_span(asked)}"
                yield Violation(number, "fidelity", message, (*asked, *(named or ())))


def flow(episode: Episode, preset: Preset) -> Iterator[Violation]:
    """A look after a time query holds the frame that was told; an answer never follows a time query."""
    for number, (turn, following) in enumerate(zip(episode.turns, episode.turns[1:], strict=False), start=2):
        told, shown = turn.observation, following.observation
        if not isinstance(told, Told):
            continue
        if isinstance(following.action, Answer):
            yield Violation(number, "flow", "an answer right after a time query", (told.frame,))
        elif isinstance(shown, Shown):
            if not shown.start <= told.frame <= shown.end:
                message = f"{_span((shown.start, shown.end))} does not hold frame {told.frame}, told before"
                yield Violation(number, "flow", message, (shown.start, shown.end, told.frame))
        elif preset.look_after_query:
            yield Violation(number, "flow", "no look right after a time query", (told.frame,))


RULES: tuple[Callable[[Episode, Preset], Iterator[Violation]], ...] = (
    count,
    grammar,
    executed,
    redundancy,
    width,
    fidelity,
    flow,
)


def last_two_integers(think: str) -> tuple[int, int] | None:
    """Return the last two whole numbers of a text that stand beside no colon and have at most 18 digits."""
    found = [match.group() for match in _NUMBERS.finditer(think)][-2:]
    if len(found) < 2 or any(len(digits) > _MAX_DIGITS for digits in found):
        return None
    return int(found[0]), int(found[1])


def _looks(episode: Episode) -> Iterator[tuple[int, Shown]]:
    for number, turn in enumerate(episode.turns, start=1):
        if isinstance(turn.observation, Shown):
            yield number, turn.observation


def _is_reply(action: Action, observation: object, num_frames: int) -> bool:
    if isinstance(action, Look):
        asked = action.start, min(action.end, num_frames)
        return isinstance(observation, Shown) and (observation.start, observation.end) == asked
    if isinstance(action, LookTimes):
        return isinstance(observation, Shown)
    if isinstance(action, AskFrame):
        return isinstance(observation, Told) and observation.time_s == action.time_s
    return observation is None


def _span(interval: tuple[int, int]) -> str:
    return f"{interval[0]}-{interval[1]}"
