"""Stages (b) to (d): captions, the trace, and hindsight curation, which asks whether the trace leads to the answer.

An attempt captions the segments that have no caption of their own from their frames, has the trace written, and checks
it: first its form, then whether a validator who knows only what stands in its `<time>` and `<caption>` blocks (and sees
the video, if so configured) reaches the gold answer. What fails is written again, captions included, since a wrong
caption cannot be mended by the trace (Video-Thinker, arXiv 2510.23473, section 3.2).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pydantic import BaseModel, Field

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.texts import SpecialTokens, text_problems
from video_thinker.grounding import recall_at, temporal_iou
from video_thinker.schema import Segment, Trace, VideoSample
from video_thinker.scoring import option_letters, score_answer
from video_thinker.synthesis.asking import Conversation, UnusableReplyError, json_parser
from video_thinker.synthesis.frames import FrameSet, VideoFile
from video_thinker.synthesis.notes import answer_from_notes, gold_letter, note, question_payload, write_span
from video_thinker.synthesis.prompts import WRITE_CAPTION, WRITE_TRACE
from video_thinker.trace import extract_answer, format_violations, parse_trace

CAPTION, TRACE, VALIDATE = "caption", "trace", "validate"


class Caption(BaseModel):
    """What a captioner says."""

    caption: str = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class CurationSettings:
    """What a trace must pass, and how many frames models see; see `SynthesisArguments`."""

    curation: str = "validator"
    max_attempts: int = 3
    min_iou: float = 0.5
    validator_sees_video: bool = False
    frames_per_segment: int = 4
    frames_per_video: int = 16
    max_pixels: int = 256 * 28 * 28
    video_backend: str = "auto"
    media_timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S


async def write_curated_trace(
    conversation: Conversation, sample: VideoSample, video: VideoFile, settings: CurationSettings
) -> VideoSample | None:
    """Have a trace written until it passes; `None` if none did. Every attempt is logged.

    Returns:
        The sample with captioned segments and its trace. Its answer stays the gold one, but with curation "off" it is
        what the trace concludes: SFT must not teach a trace that ends in another answer than its own.
    """
    for attempt in range(1, settings.max_attempts + 1):
        text = ""
        try:
            captioned = await _caption_segments(conversation, sample, video, settings, attempt)
            text = await conversation.ask(
                "trace_writer", TRACE, WRITE_TRACE, _trace_payload(captioned), str, attempt=attempt
            )
            reason = await _problem(conversation, captioned, text, video, settings, attempt)
        except UnusableReplyError as error:
            reason = f"unusable reply: {error}"
        conversation.log(TRACE, attempt, reason, text)
        if reason is None:
            answer = extract_answer(text) if settings.curation == "off" else captioned.answer
            return dataclasses.replace(captioned, process=strip_answer(text), answer=answer or captioned.answer)
    return None


def first_text_problem(sample: VideoSample) -> str | None:
    """Say which text of a sample holds special tokens of chat formats, or characters that are none."""
    return next((f"text: {one.field} {one.found}" for one in text_problems(sample, SpecialTokens())), None)


def structure_problem(text: str, sample: VideoSample, min_iou: float) -> str | None:
    """Say what is wrong with a trace before a validator is asked; `None` if nothing is.

    It must keep to the strict format with all times in the video, end in the gold option, and meet every gold segment
    with a temporal IoU of at least `min_iou`.
    """
    violations = format_violations(text, sample.duration_s)
    trace = parse_trace(text)
    if violations or trace is None:
        return f"format: {violations[0] if violations else 'no trace'}"
    score = score_answer(trace.answer, sample)
    if score.status == "unanswered" or (sample.options and not _is_option(trace.answer or "", sample)):
        return f"answer: {trace.answer!r} is no option"
    if score.value != 1.0:
        return f"answer: concludes {trace.answer!r}, the gold is {sample.answer!r}"
    return _coverage_problem(trace, sample, min_iou)


def strip_answer(text: str) -> str:
    """Take the answer tag off the end of a trace; SFT adds it again from the item's solution."""
    return text.rpartition("<answer>")[0].strip() or text.strip()


async def _problem(
    conversation: Conversation,
    sample: VideoSample,
    text: str,
    video: VideoFile,
    settings: CurationSettings,
    attempt: int,
) -> str | None:
    if (unusable := first_text_problem(dataclasses.replace(sample, process=text))) is not None:
        return unusable
    if settings.curation == "off":
        return None
    reason = structure_problem(text, sample, settings.min_iou)
    if reason is not None or settings.curation == "structure":
        return reason
    trace = parse_trace(text, strict=True)
    if trace is None:
        return "format: no trace"
    frames = _frames(video, 0.0, video.duration_s, settings.frames_per_video, settings)
    found = await answer_from_notes(
        conversation,
        "validator",
        VALIDATE,
        sample,
        trace.blocks,
        attempt=attempt,
        frames=frames if settings.validator_sees_video else None,
    )
    gold = gold_letter(sample)
    return None if found == [gold] else f"validator: reaches {', '.join(found) or 'no option'}, the gold is {gold}"


async def _caption_segments(
    conversation: Conversation, sample: VideoSample, video: VideoFile, settings: CurationSettings, attempt: int
) -> VideoSample:
    """Caption the segments that have no caption from their frames, knowing question and answer."""
    segments = []
    for number, segment in enumerate(sample.segments, start=1):
        if not segment.caption:
            frames = _frames(video, segment.start_s, segment.end_s, settings.frames_per_segment, settings)
            payload = {"question": sample.problem, "answer": _answer_text(sample), "time": write_span(segment)}
            written = await conversation.ask(
                "captioner", f"{CAPTION}_{number}", WRITE_CAPTION, payload, json_parser(Caption), attempt=attempt,
                frames=frames,
            )  # fmt: skip
            segment = Segment(segment.start_s, segment.end_s, " ".join(written.caption.split()))
        segments.append(segment)
    return dataclasses.replace(sample, segments=tuple(segments))


def _trace_payload(sample: VideoSample) -> dict[str, object]:
    return {
        **question_payload(sample),
        "right_option": _answer_text(sample),
        "segments": [note(segment) for segment in sample.segments],
        "answer": sample.answer,
    }


def _answer_text(sample: VideoSample) -> str:
    letter = gold_letter(sample)
    return option_letters(sample.options)[letter] if letter else sample.answer


def _frames(video: VideoFile, start_s: float, end_s: float, count: int, settings: CurationSettings) -> FrameSet:
    return FrameSet(video, start_s, end_s, count, settings.max_pixels, settings.video_backend, settings.media_timeout_s)


def _is_option(answer: str, sample: VideoSample) -> bool:
    bare = dataclasses.replace(sample, answer=answer)
    return score_answer(answer, bare).value == 1.0


def _coverage_problem(trace: Trace, sample: VideoSample, min_iou: float) -> str | None:
    if recall_at(trace.blocks, sample.segments, min_iou) in (None, 1.0):
        return None
    best = [max(temporal_iou(block, segment) for block in trace.blocks) for segment in sample.segments]
    missed = min(range(len(best)), key=best.__getitem__)
    span = write_span(sample.segments[missed])
    return f"times: the gold segment {span} is met with IoU {best[missed]:.2f}, below {min_iou:g}"
