"""What the toy teacher says: no model, but the ground truth of the toy world, with errors put in on purpose.

It stands in for teacher, captioner and validator of `video-thinker synthesize`, to try that out and to test it without
a model and without paying. It knows which clip a request is about from the sample's id in the request's name, and does
what the request's payload asks: it writes questions and traces in the words of the toy world, captions a span, or says
what notes lead to. Everything it says is a function of the request, so the same request gets the same reply.

Errors, each with a share of its own: `error_rate` of what it writes is wrong in one of the ways of `ERRORS`, and
`answer_error_rate` of its answers from notes are.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from video_thinker.synthesis import curation, questions
from video_thinker.times import parse_time, parse_time_range
from video_thinker.toyworld.questions import OPPOSITE, PROBLEMS, Question, write_time, write_trace
from video_thinker.toyworld.world import COLORS, QUESTION_COLORS, Clip, Span

ERRORS: dict[str, tuple[str, ...]] = {
    "question": ("wrong_answer", "one_segment", "repeated_option", "malformed"),
    "caption": ("wrong_color",),
    # Looks the other way and concludes so; does, but names the gold; sees a wrong color; a wrong time; a broken tag.
    "trace": ("direction", "rationalized", "wrong_color", "wrong_time", "broken_tag"),
}

_PATTERNS = {kind: re.compile(re.escape(text).replace(r"\{anchor\}", "(.+)")) for kind, text in PROBLEMS.items()}

Payload = Mapping[str, Any]


class CannotSayError(Exception):
    """The request makes no sense in the toy world; the message says why."""


@dataclass(frozen=True)
class ToyTeacher:
    """Answers from ground truth.

    Args:
        clips: Sample id -> its clip.
        error_rate: Share of questions, captions and traces that are wrong.
        answer_error_rate: Share of answers from notes that are wrong.
        looks: Sample id -> direction in which its trace looks, for traces that are wrong by plan; `error_rate` then
            does not touch traces.
        seed: Of the errors.
    """

    clips: Mapping[str, Clip]
    error_rate: float = 0.0
    answer_error_rate: float = 0.0
    looks: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def reply(self, sample_id: str, stage: str, attempt: str, payload: Payload, num_images: int) -> str:
        """Say something about a request.

        Raises:
            CannotSayError: the sample is none of the toy world's, or the stage is unknown.
        """
        clip = self.clips.get(sample_id) or self.clips.get(re.sub(r"-q\d+$", "", sample_id))
        if clip is None:
            raise CannotSayError(f"the toy world has no sample {sample_id!r}; is its seed the teacher's?")
        rng = random.Random(f"toy teacher {self.seed} {sample_id} {stage} {attempt}")
        if stage == questions.STAGE:
            return write_question(clip, payload, rng, self._error("question", self.error_rate, rng))
        if stage.startswith(curation.CAPTION):
            return write_caption(clip, payload, rng, self._error("caption", self.error_rate, rng), num_images)
        if stage == curation.TRACE:
            error = None if sample_id in self.looks else self._error("trace", self.error_rate, rng)
            return write_full_trace(clip, payload, rng, error, self.looks.get(sample_id))
        if stage.startswith(("check", curation.VALIDATE)):
            wrong = rng.random() < self.answer_error_rate
            return answer(clip, payload, rng, wrong=wrong, sees_video=num_images > 0)
        raise CannotSayError(f"unknown stage {stage!r}")

    def _error(self, what: str, rate: float, rng: random.Random) -> str | None:
        return rng.choice(ERRORS[what]) if rng.random() < rate else None


def write_question(clip: Clip, payload: Payload, rng: random.Random, error: str | None) -> str:
    """Ask for a color right after or before another one, which takes two segments to answer."""
    kind = rng.choice(("after", "before"))
    anchor = rng.randrange(1, len(clip.spans) - 1)
    question = Question(kind, clip, anchor, ())
    text = PROBLEMS[kind].format(anchor=clip.spans[anchor].color)
    right = question.answer
    pool = [color for color in clip.timeline if color not in (right, clip.spans[anchor].color)]
    rng.shuffle(pool)
    pool += [color for color in QUESTION_COLORS if color not in clip.timeline] + [clip.spans[anchor].color]
    needed = [anchor + 1, question.answer_index + 1]
    if error == "malformed":
        return f"Question: {text}"
    if error == "wrong_answer":
        right, pool = pool[0], [right, *pool[1:]]
    elif error == "one_segment":
        text, right = PROBLEMS["first"], clip.spans[0].color
        pool = [color for color in [*clip.timeline, *QUESTION_COLORS] if color != right]
        pool = list(dict.fromkeys(pool))
    distractors = pool[: payload["num_options"] - 1]
    if error == "repeated_option":
        distractors[-1] = right.upper()
    return json.dumps({"question": text, "answer": right, "distractors": distractors, "segments": sorted(needed)})


def write_caption(clip: Clip, payload: Payload, rng: random.Random, error: str | None, num_images: int) -> str:
    """Say what is seen in a span; nothing, where no frames came with the request."""
    span = _span_at(clip, payload["time"])
    if span is None or num_images == 0:
        return json.dumps({"caption": "nothing is to be seen"})
    caption = span.caption
    if error == "wrong_color":
        caption = caption.replace(span.color, rng.choice([color for color in COLORS if color != span.color]))
    return json.dumps({"caption": caption})


def write_full_trace(
    clip: Clip, payload: Payload, rng: random.Random, error: str | None, looks: str | None = None
) -> str:
    """Write a trace with its answer, in the direction `looks`, or wrong in the way `error`.

    Looking the right way, it takes over the captions it is given.
    """
    kind, anchor = _parse_question(payload["question"], clip)
    question = Question(kind, clip, anchor, ())
    right = payload["right_option"]
    direction = looks or (OPPOSITE[kind] if error in ("direction", "rationalized") else kind)
    text, concluded = write_trace(question, direction)
    if direction == kind:
        for segment in payload["segments"]:
            span = _span_at(clip, segment["time"])
            if span is not None:
                text = text.replace(f"<caption>{span.caption}</caption>", f"<caption>{segment['caption']}</caption>")
        text, concluded = text.replace(f"So {concluded}.", f"So {right}."), right
    elif error == "rationalized":
        text, concluded = text.replace(f"So {concluded}.", f"So {right}."), right
    if error == "wrong_color":
        other = rng.choice([color for color in QUESTION_COLORS if color != concluded])
        head, tag, tail = text.rpartition("<caption>")
        text = head + tag + tail.replace(concluded, other, 1)
    elif error == "wrong_time":
        true = write_time(question.relevant[-1])
        text = text.replace(true, write_time(rng.choice([s for s in clip.spans if write_time(s) != true])))
    elif error == "broken_tag":
        text = text.replace("</caption>", "", 1)
    return f"{text}\n<answer>{_as_answer(concluded, payload)}</answer>"


def answer(clip: Clip, payload: Payload, rng: random.Random, *, wrong: bool, sees_video: bool) -> str:
    """Say which options notes lead to; a viewer who sees the video too leaves out notes that are not true of it."""
    letters = {option.partition(". ")[2].casefold(): option[0] for option in payload["options"]}
    notes = [(span, note["caption"]) for note in payload["notes"] if (span := parse_time_range(note["time"]))]
    if sees_video:
        true = {(float(span.start_s), float(span.end_s), span.caption) for span in clip.spans}
        notes = [(span, caption) for span, caption in notes if (*span, caption) in true]
    found = solve(payload["question"], notes, parse_time(payload.get("video_duration", "")))
    right = [letters[color] for color in found if color in letters]
    if wrong:
        right = rng.choice([[], *([letter] for letter in letters.values() if [letter] != right)])
    return json.dumps({"letters": right})


def solve(question: str, notes: Sequence[tuple[tuple[float, float], str]], duration_s: float | None) -> list[str]:
    """Work out the color that notes on a clip lead to, knowing nothing else; empty if they do not decide."""
    kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(question)), None)
    colors = [(start_s, end_s, caption.split()[0]) for (start_s, end_s), caption in notes if caption]
    if kind == "first":
        return [color for start_s, _, color in colors if start_s == 0][:1]
    if kind == "last":
        return [color for _, end_s, color in colors if duration_s is not None and abs(end_s - duration_s) < 0.5][:1]
    if kind is None:
        return []
    match = _PATTERNS[kind].fullmatch(question)
    asked = match.group(1) if match else ""
    for start_s, end_s, color in colors:
        if color == asked:
            edge = 0 if kind == "after" else 1
            at = end_s if kind == "after" else start_s
            return [other[2] for other in colors if other[edge] == at and other[2] != asked][:1]
    return []


def _parse_question(text: str, clip: Clip) -> tuple[str, int | None]:
    for kind, pattern in _PATTERNS.items():
        match = pattern.fullmatch(text)
        if match and not match.groups():
            return kind, None
        if match and match.group(1) in clip.timeline:
            anchor = clip.timeline.index(match.group(1))
            if 0 < anchor < len(clip.spans) - 1:
                return kind, anchor
    raise CannotSayError(f"{text!r} is no question about this clip")


def _span_at(clip: Clip, time: str) -> Span | None:
    return next((span for span in clip.spans if write_time(span) == time), None)


def _as_answer(color: str, payload: Payload) -> str:
    """Write an answer as the gold is written: a letter, or the option's words."""
    letters = {option.partition(". ")[2]: option[0] for option in payload["options"]}
    return letters.get(color, color) if payload["answer"] in letters.values() else color
