from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from video_thinker.errors import ConfigError
from video_thinker.spotlight.episode import Answer, AskFrame, Episode, Look, LookTimes, Shown, Told, Turn
from video_thinker.spotlight.frames import first_view, look_frames
from video_thinker.spotlight.verify import last_two_integers, violations

N = 480


def look(start: int, end: int, think: str | None = None) -> Turn:
    end_shown = min(end, N)
    frames = look_frames(start, end_shown, 8) if end_shown - start > 1 else ()
    return Turn(think or f"see {start} {end}", Look(start, end), Shown(start, end_shown, frames))


def ask(time_s: float, frame: int) -> Turn:
    return Turn("when", AskFrame(time_s), Told(time_s, frame))


ANSWER = Turn("so", Answer("A"))


def episode(*turns: Turn, n: int = 8) -> Episode:
    return Episode(N, first_view(N, n), turns, "answered")


T, I = "frame_thinker", "frame_thinker_infer"  # noqa: E741


@pytest.mark.parametrize(
    ("made", "training", "inference"),
    [
        (episode(ANSWER), [], []),
        (episode(look(100, 200), ANSWER), [], []),
        (episode(look(100, 200), look(120, 180), ANSWER), [], []),
        (episode(ask(5.0, 150), look(100, 200), ANSWER), [], []),
        (episode(ask(5.0, 100), look(100, 200), ANSWER), [], []),
        (episode(ask(5.0, 200), look(100, 200), ANSWER), [], []),
        (episode(ask(5.0, 150), ask(6.0, 160), look(100, 200), ANSWER), [], ["flow"]),
        (episode(), ["count"], ["count"]),
        (episode(look(100, 200)), ["count"], ["count"]),
        (episode(ANSWER, ANSWER), ["count"], ["count"]),
        (episode(Turn(None, Answer("A"))), ["count"], ["count"]),
        (episode(Turn("so", None), ANSWER), ["count"], ["count"]),
        (episode(Turn("so", Answer("A"), faults=("2 <action> element instead of one",))), ["grammar"], ["grammar"]),
        (episode(Turn("1 40", Look(1, 40)), ANSWER), ["executed"], ["executed"]),
        (episode(Turn("is: 120", AskFrame(5.0)), look(100, 200), ANSWER), ["executed"], ["executed"]),
        (episode(Turn("a", AskFrame(5.0), Told(6.0, 150)), look(100, 200), ANSWER), ["executed"], ["executed"]),
        (episode(Turn("1 40", Look(1, 40), Shown(1, 39, ())), ANSWER), ["executed"], ["executed"]),
        (episode(Turn("so", Answer("A"), Shown(1, 40, ()))), ["executed"], ["executed"]),
        (episode(look(100, 200), look(100, 200), ANSWER), ["redundancy"], ["redundancy"]),
        (episode(look(100, 200), look(101, 199), ANSWER), ["redundancy"], []),
        (episode(look(100, 200), look(99, 201), ANSWER), [], []),
        (episode(look(100, 200), look(102, 198), ANSWER), [], []),
        (episode(look(100, 200), look(101, 200), ANSWER), [], []),
        (episode(look(0, 479), ANSWER), ["redundancy"], ["redundancy"]),
        (episode(look(1, 478), ANSWER), ["redundancy"], []),
        (episode(look(2, 477), ANSWER), [], []),
        (episode(look(400, 480), look(400, 999), ANSWER), ["redundancy"], ["redundancy"]),
        (episode(ask(5.0, 150), ask(5.0, 150), look(100, 200), ANSWER), ["redundancy"], ["redundancy", "flow"]),
        (episode(look(100, 108), ANSWER), ["width"], ["width"]),
        (episode(look(100, 109), ANSWER), [], []),
        (episode(look(100, 109), ANSWER, n=12), [], ["width"]),
        (episode(look(100, 112), ANSWER, n=12), [], ["width"]),
        (episode(look(100, 113), ANSWER, n=12), [], []),
        (episode(look(100, 200, "see 100 201"), ANSWER), ["fidelity"], []),
        (episode(look(100, 200, "see 200 100"), ANSWER), ["fidelity"], []),
        (episode(look(100, 200, "see 100 200 at 3"), ANSWER), ["fidelity"], []),
        (episode(look(100, 200, "see 100 200 at 01:05"), ANSWER), [], []),
        (episode(look(100, 200, "see 200"), ANSWER), ["fidelity"], []),
        (episode(look(100, 200, "see \u0661\u0660\u0660 200"), ANSWER), ["fidelity"], []),
        (episode(ask(5.0, 99), look(100, 200), ANSWER), ["flow"], ["flow"]),
        (episode(ask(5.0, 201), look(100, 200), ANSWER), ["flow"], ["flow"]),
        (episode(ask(5.0, 150), ANSWER), ["flow"], ["flow"]),
        (episode(Turn("a", LookTimes(1.0, 9.0), Shown(30, 270, ())), ANSWER), [], []),
    ],
)
def test_each_preset_finds_what_its_protocol_forbids(made, training, inference):
    assert [v.rule for v in violations(made, T)] == training
    assert [v.rule for v in violations(made, I)] == inference


def test_a_violation_names_turn_and_numbers():
    (found,) = violations(episode(look(100, 200), look(101, 199), ANSWER))
    assert (found.turn, found.numbers) == (2, (101, 199, 100, 200))
    assert found.message == "101-199 is by one frame inside of the look of turn 1, 100-200"


def test_an_unknown_preset_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"'strict'.*frame_thinker_infer"):
        violations(episode(ANSWER), "strict")


@pytest.mark.parametrize(
    ("think", "numbers"),
    [
        ("", None),
        ("12", None),
        ("12 48", (12, 48)),
        ("frames 012, 048.", (12, 48)),
        ("12-48", (12, 48)),
        ("[12,48]", (12, 48)),
        ("at 01:05 to 02:05", None),
        ("12 48 at 1:02:30", (12, 48)),
        ("12:48 60 90", (60, 90)),
        ("12 48: 60", (12, 60)),
        ("12.5", (12, 5)),
        ("1 " + "9" * 5000, None),
        ("\uff11\uff12 48", None),
        ("is: 120 then 480", (120, 480)),
    ],
)
def test_the_last_two_bare_integers(think, numbers):
    assert last_two_integers(think) == numbers


# The published rule, written down once more from the paper's notes, on texts as its code reads them.


def published(turns: list[tuple[str, str]], replies: list[int | None], total: int) -> bool:  # noqa: C901  # a literal transcription
    thinks, actions = [think for think, _ in turns], [action for _, action in turns]
    if not actions or "output answer:" not in actions[-1]:
        return False
    intervals, times, told = [(0, total - 1)], [], None
    for index, (think, action) in enumerate(zip(thinks, actions, strict=True)):
        if chosen := re.fullmatch(r"choose frames between (\d+) and (\d+)", action):
            start, end = int(chosen[1]), int(chosen[2])
            if (start, end) in intervals or any((start, end) == (s + 1, e - 1) for s, e in intervals):
                return False
            if end - start <= 8:
                return False
            bare = re.findall(r"(?<![\d:])\d+(?![\d:])", think)
            if [int(number) for number in bare[-2:]] != [start, end]:
                return False
            if told is not None and not start <= told <= end:
                return False
            intervals.append((start, end))
            told = None
        elif query := re.fullmatch(r"get frame number at time (\d+:\d+)", action):
            if query[1] in times:
                return False
            times.append(query[1])
            told = replies[index]
        elif action.startswith("output answer:"):
            if told is not None or index < len(actions) - 1:
                return False
        else:
            return False
    return True


@st.composite
def looks(draw):
    start = draw(st.integers(0, 6))
    width = draw(st.sampled_from([7, 8, 9, 10, 11, 12, 13, 14]))
    ends = (start, min(start + width, 20))
    named = draw(st.sampled_from([ends, ends, ends, ends, ends[::-1]]))
    return Turn(f"see {named[0]} {named[1]}{draw(st.sampled_from(['', ' at 0:05']))}", Look(*ends), Shown(*ends, ()))


queries = st.integers(0, 3).map(lambda s: Turn("when", AskFrame(float(s)), Told(float(s), s * 4)))
answers = st.just(ANSWER)


@settings(max_examples=300)
@given(st.lists(st.one_of(looks(), looks(), queries), max_size=4), st.booleans(), st.booleans())
def test_training_agrees_with_the_published_rule_on_random_episodes(middle, answers_early, answers_last):
    turns = [*([ANSWER] if answers_early and len(middle) > 2 else []), *middle, *([ANSWER] if answers_last else [])]
    made = Episode(20, first_view(20, 8), tuple(turns), "answered")
    texts = []
    for turn in turns:
        if isinstance(turn.action, Look):
            texts.append((turn.think, f"choose frames between {turn.action.start} and {turn.action.end}"))
        elif isinstance(turn.action, AskFrame):
            texts.append((turn.think, f"get frame number at time 0:{int(turn.action.time_s):02d}"))
        else:
            texts.append((turn.think, "output answer: A"))
    replies = [turn.observation.frame if isinstance(turn.observation, Told) else None for turn in turns]
    assert (violations(made, T) == []) == published(texts, replies, 20)
