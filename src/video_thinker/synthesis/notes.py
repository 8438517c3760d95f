"""Asking a model for the answer that notes about a video lead to: the check of questions and of traces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from video_thinker.schema import Segment, TraceBlock, VideoSample
from video_thinker.scoring import extract_choice, option_letters
from video_thinker.synthesis.asking import Conversation, json_parser
from video_thinker.synthesis.frames import FrameSet
from video_thinker.synthesis.prompts import ANSWER_FROM_NOTES
from video_thinker.times import format_time

Span = Segment | TraceBlock


class Answers(BaseModel):
    """The letters of the options that notes show to be right."""

    letters: list[str]


def write_span(span: Span) -> str:
    """Write a span as "MM:SS-MM:SS"."""
    return f"{format_time(span.start_s)}-{format_time(span.end_s)}"


def note(span: Span) -> dict[str, str]:
    """Write a span and what is seen there for a request."""
    return {"time": write_span(span), "caption": span.caption}


def question_payload(sample: VideoSample) -> dict[str, Any]:
    """Write a sample's question for a request; options are always lettered there."""
    payload: dict[str, Any] = {"question": sample.problem}
    if sample.duration_s is not None:
        payload["video_duration"] = format_time(sample.duration_s)
    if sample.options:
        payload["options"] = [f"{letter}. {text}" for letter, text in option_letters(sample.options).items()]
    return payload


def gold_letter(sample: VideoSample) -> str | None:
    """Name the gold option's letter, also where the options carry none; `None` if the gold is no option."""
    return extract_choice(sample.answer, sample.options)


async def answer_from_notes(
    conversation: Conversation,
    role: str,
    stage: str,
    sample: VideoSample,
    spans: Iterable[Span],
    *,
    attempt: int,
    frames: FrameSet | None = None,
) -> list[str]:
    """Ask which options the notes show to be right; letters in upper case, sorted.

    Raises:
        UnusableReplyError: no reply could be read.
    """
    payload = {**question_payload(sample), "notes": [note(span) for span in spans]}
    answers = await conversation.ask(
        role, stage, ANSWER_FROM_NOTES, payload, json_parser(Answers), attempt=attempt, frames=frames
    )
    return sorted({letter.strip().strip("().").upper() for letter in answers.letters})
