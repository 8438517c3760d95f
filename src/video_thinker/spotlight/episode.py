"""Spotlight episodes: what a model thought, did and was shown, turn by turn; as JSON and back. Runs without torch.

One episode as JSON:

    {"num_frames": 480, "first_frames": [0, 68, 136, 205, 273, 342, 410, 479], "end": "answered", "turns": [
      {"think": "The pour is in 120 480.", "action": {"kind": "look", "start": 120, "end": 480},
       "observation": {"kind": "shown", "start": 120, "end": 480, "frames": [121, 172, 223, 274, 325, 376, 427, 479]}},
      {"think": "It is milk.", "action": {"kind": "answer", "text": "A"}}]}

`action` is what the model asked for, `observation` what was carried out: both come from the loop, never from text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from video_thinker.errors import DataError


@dataclass(frozen=True, slots=True)
class Look:
    """Show frames between two frame numbers."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LookTimes:
    """Show frames between two times, in seconds from the first frame."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class AskFrame:
    """Ask for the number of the frame at a time, in seconds from the first frame."""

    time_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the question, which ends the episode."""

    text: str


Action = Look | LookTimes | AskFrame | Answer


@dataclass(frozen=True, slots=True)
class Shown:
    """A look that was carried out: its interval in frame numbers, after clamping, and the frames that were shown."""

    start: int
    end: int
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """A time query that was answered with a frame number."""

    time_s: float
    frame: int


Observation = Shown | Told
EpisodeEnd = Literal["answered", "invalid", "turn limit", "token limit", "cut off", "unreadable"]
ENDS: tuple[EpisodeEnd, ...] = get_args(EpisodeEnd)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the model and what it got for it.

    `think` is `None` where the turn has no think text, `action` where it has none that can be read. `observation` is
    `None` where nothing was carried out. `faults` are the structural faults of the text (`actions.TurnReading.faults`).
    """

    think: str | None
    action: Action | None
    observation: Observation | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """All turns on one video of `num_frames` frames (numbers 0 to num_frames - 1), after a view of `first_frames`."""

    num_frames: int
    first_frames: tuple[int, ...]
    turns: tuple[Turn, ...]
    end: EpisodeEnd

    @property
    def answer(self) -> str | None:
        """The answer of the last turn, or `None`."""
        action = self.turns[-1].action if self.turns else None
        return action.text if isinstance(action, Answer) else None

    @property
    def num_looks(self) -> int:
        """How many looks were carried out."""
        return sum(isinstance(turn.observation, Shown) for turn in self.turns)

    @property
    def num_time_queries(self) -> int:
        """How many time queries were answered."""
        return sum(isinstance(turn.observation, Told) for turn in self.turns)

    @property
    def num_frames_shown(self) -> int:
        """How many frames the model was shown, the first view included; a frame shown twice counts twice."""
        looks = (turn.observation for turn in self.turns)
        return len(self.first_frames) + sum(len(look.frames) for look in looks if isinstance(look, Shown))


_KINDS: dict[str, type[Action | Observation]] = {
    "look": Look,
    "look_times": LookTimes,
    "ask_frame": AskFrame,
    "answer": Answer,
    "shown": Shown,
    "told": Told,
}
_FIELDS: dict[str, dict[str, type]] = {
    "look": {"start": int, "end": int},
    "look_times": {"start_s": float, "end_s": float},
    "ask_frame": {"time_s": float},
    "answer": {"text": str},
    "shown": {"start": int, "end": int, "frames": tuple},
    "told": {"time_s": float, "frame": int},
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_ACTIONS = ("look", "look_times", "ask_frame", "answer")
_OBSERVATIONS = ("shown", "told")


def episode_to_json(episode: Episode) -> dict[str, Any]:
    """Make the JSON object of an episode; `episode_from_json` reads it back."""
    return {
        "num_frames": episode.num_frames,
        "first_frames": list(episode.first_frames),
        "end": episode.end,
        "turns": [_turn_to_json(turn) for turn in episode.turns],
    }


def episode_from_json(value: object, where: str = "episode") -> Episode:
    """Read an episode from its JSON object.

    Args:
        value: What JSON gave.
        where: How messages name the place, "file:line".

    Raises:
        DataError: a field is missing, unknown or of another type; the message names it.
    """
    fields = _object(value, where, {"num_frames", "first_frames", "end", "turns"}, set())
    if fields["end"] not in ENDS:
        raise DataError(f"{where}: end={fields['end']!r}; it is one of {', '.join(ENDS)}; fix it.")
    num_frames = _field(fields["num_frames"], int, f"{where}: num_frames")
    if num_frames < 1:
        raise DataError(f"{where}: num_frames={num_frames}; a video has at least one frame; fix it.")
    if not isinstance(fields["turns"], list):
        raise DataError(f"{where}: turns={fields['turns']!r:.60}; it is a list of objects; fix it.")
    turns = tuple(_turn_from_json(turn, f"{where}: turn {n}") for n, turn in enumerate(fields["turns"], start=1))
    first = _field(fields["first_frames"], tuple, f"{where}: first_frames")
    return Episode(num_frames, first, turns, fields["end"])


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    row: dict[str, Any] = {"think": turn.think, "action": _part_to_json(turn.action)}
    if turn.observation is not None:
        row["observation"] = _part_to_json(turn.observation)
    if turn.faults:
        row["faults"] = list(turn.faults)
    return row


def _part_to_json(part: Action | Observation | None) -> dict[str, Any] | None:
    if part is None:
        return None
    kind = _NAMES[type(part)]
    values = {name: getattr(part, name) for name in _FIELDS[kind]}
    return {"kind": kind, **{name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}}


def _turn_from_json(value: object, where: str) -> Turn:
    fields = _object(value, where, {"think", "action"}, {"observation", "faults"})
    if fields["think"] is not None:
        _field(fields["think"], str, f"{where}: think")
    faults = fields.get("faults", [])
    if not isinstance(faults, list) or not all(isinstance(fault, str) for fault in faults):
        raise DataError(f"{where}: faults={faults!r:.60}; it is a list of texts; fix it.")
    action = _part_from_json(fields["action"], f"{where}: action", _ACTIONS)
    observation = _part_from_json(fields.get("observation"), f"{where}: observation", _OBSERVATIONS)
    return Turn(fields["think"], action, observation, tuple(faults))  # type: ignore[arg-type]  # _part_from_json checks kinds


def _part_from_json(value: object, where: str, kinds: tuple[str, ...]) -> Action | Observation | None:
    if value is None:
        return None
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise DataError(f"{where}: {value!r:.80}; its kind is one of {', '.join(kinds)}; fix it.")
    fields = _object(value, where, {"kind", *_FIELDS[kind]}, set())
    return _KINDS[kind](**{n: _field(fields[n], type_, f"{where}: {n}") for n, type_ in _FIELDS[kind].items()})


def _object(value: object, where: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: {value!r:.80}; it is a JSON object with {', '.join(sorted(required))}; fix it.")
    if missing := sorted(required - set(value)):
        raise DataError(f"{where}: no {', '.join(missing)}; an episode has it; add it.")
    if unknown := sorted(set(map(str, value)) - required - optional):
        raise DataError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(required | optional))}.")
    return value


def _field(value: object, kind: type, where: str) -> Any:
    if kind is tuple and isinstance(value, list) and all(_is_int(number) for number in value):
        return tuple(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    if (kind is int and _is_int(value)) or (kind is str and isinstance(value, str)):
        return value
    rules = {tuple: "a list of whole numbers", float: "a number from 0", int: "a whole number from 0", str: "a text"}
    raise DataError(f"{where}={value!r:.60}; it is {rules[kind]}; fix it.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
