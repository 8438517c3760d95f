"""Stage (a): a multiple-choice question from the captions of a video's segments, which needs more than one of them.

What is checked, in this order: that no text holds special tokens; the number of options; that they differ; that at
least two segments are named; that all captions together lead to the right option and to no other; and that none of them
alone does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from video_thinker.datasets.annotated import CaptionedVideo
from video_thinker.schema import Media, VideoSample
from video_thinker.synthesis.asking import Conversation, UnusableReplyError, json_parser
from video_thinker.synthesis.curation import first_text_problem
from video_thinker.synthesis.frames import VideoFile
from video_thinker.synthesis.letters import Letters, place_answer
from video_thinker.synthesis.notes import answer_from_notes, note
from video_thinker.synthesis.prompts import WRITE_QUESTION
from video_thinker.times import format_time

STAGE = "question"


class Draft(BaseModel):
    """A question as the teacher writes it. `segments` are numbers from 1."""

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    distractors: list[str]
    segments: list[int]


@dataclass(frozen=True, slots=True)
class QuestionSettings:
    """How questions are written and how often; `number` is that of the question on its video, out of `count`."""

    max_attempts: int
    number: int = 1
    count: int = 1


async def write_question(
    conversation: Conversation,
    annotation: CaptionedVideo,
    video: VideoFile,
    letters: Letters,
    settings: QuestionSettings,
) -> VideoSample | None:
    """Have a question written until it passes the checks; `None` if none did. Every attempt is logged."""
    payload = _payload(annotation, video, letters.num_options, settings)
    for attempt in range(1, settings.max_attempts + 1):
        sample, text = None, ""
        try:
            draft = await conversation.ask(
                "teacher", STAGE, WRITE_QUESTION, payload, json_parser(Draft), attempt=attempt
            )
            text = draft.model_dump_json()
            reason = draft_problem(draft, letters.num_options, len(annotation.segments))
            if reason is None:
                sample = build_sample(conversation.sample_id, annotation, video, draft, letters)
                reason = await _ambiguity(conversation, sample, annotation, letters.gold, attempt)
        except UnusableReplyError as error:
            reason = f"unusable reply: {error}"
        conversation.log(STAGE, attempt, reason, text)
        if reason is None:
            return sample
    return None


def draft_problem(draft: Draft, num_options: int, num_segments: int) -> str | None:
    """Say what is wrong with a question as such; `None` if nothing is."""
    texts = VideoSample("", draft.question, "multiple choice", draft.answer, tuple(draft.distractors))
    if (unusable := first_text_problem(texts)) is not None:
        return unusable
    options = [_folded(text) for text in (draft.answer, *draft.distractors)]
    if len(options) != num_options:
        return f"{len(options)} options instead of {num_options}"
    if not all(options) or len(set(options)) != len(options):
        return "options are empty or not distinct"
    if not all(1 <= number <= num_segments for number in draft.segments):
        return f"segments {draft.segments} of a video with {num_segments}"
    if len(set(draft.segments)) < 2:
        return "needs only one segment, by its own account"
    return None


def build_sample(
    sample_id: str, annotation: CaptionedVideo, video: VideoFile, draft: Draft, letters: Letters
) -> VideoSample:
    """Make a sample of a draft, with the answer at its planned letter and the needed segments as gold."""
    options, answer = place_answer([draft.answer, *draft.distractors], draft.answer, letters.position)
    return VideoSample(
        id=sample_id,
        problem=draft.question.strip(),
        problem_type="multiple choice",
        answer=answer,
        options=options,
        media=(Media("video", video.path),),
        segments=tuple(annotation.segments[number - 1] for number in sorted(set(draft.segments))),
        data_source=annotation.data_source,
        category=annotation.category,
        duration_s=round(video.duration_s, 3),
        location=annotation.location,
    )


async def _ambiguity(
    conversation: Conversation, sample: VideoSample, annotation: CaptionedVideo, gold: str, attempt: int
) -> str | None:
    """Say why a question is not decided by all captions together, or is by a single one; `None` if neither."""
    found = await answer_from_notes(conversation, "teacher", "check_all", sample, annotation.segments, attempt=attempt)
    if found != [gold]:
        return f"all captions together do not decide it: they lead to {', '.join(found) or 'no option'}, not to {gold}"
    singles = await asyncio.gather(
        *(
            answer_from_notes(conversation, "teacher", f"check_{number}", sample, [segment], attempt=attempt)
            for number, segment in enumerate(annotation.segments, start=1)
        ),
        return_exceptions=True,  # all of them end before the sample does: what is answered is counted and kept
    )
    for found_or_error in singles:
        if isinstance(found_or_error, BaseException):
            raise found_or_error
    telling = [n for n, letters in enumerate(singles, start=1) if isinstance(letters, list) and gold in letters]
    return f"one segment is enough: number {telling[0]} alone leads to the answer" if telling else None


def _payload(
    annotation: CaptionedVideo, video: VideoFile, num_options: int, settings: QuestionSettings
) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "video_duration": format_time(round(video.duration_s, 1)),
        "segments": [{"number": i, **note(segment)} for i, segment in enumerate(annotation.segments, start=1)],
        "num_options": num_options,
    }
    if settings.count > 1:
        payload["question_number"] = settings.number
    return payload


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".")
