"""The only prompt text in the project: used for training, for evaluation and for every baseline. Runs without torch.

A style is a system message (or none) and a reminder at the end of the question, which depends on the kind of answer
that is wanted. With style "trace" a multiple-choice sample becomes

    What is poured after the eggs?
    A. milk
    B. oil
    Write the time, caption and think blocks first. End with the letter of the right option in <answer></answer>.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from video_thinker.errors import ConfigError
from video_thinker.schema import VideoSample
from video_thinker.scoring import options_are_lettered

AnswerKind = Literal["letter", "option", "number", "span", "text"]


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """The words of one style.

    `reminder` and `still_reminder` (for samples that show images only, which have no timeline) may hold `{answer}`,
    which is replaced with `answers[kind]`.
    """

    system: str | None
    reminder: str
    still_reminder: str
    answers: Mapping[AnswerKind, str]


_TRACE_SYSTEM = """\
You are a video analyst. You answer questions about a video by looking at the moments that decide them.

Go through the moments in order. Write one block for each:
<time>MM:SS-MM:SS</time> <caption>what is visible in that span</caption> <think>what it means for the question</think>

Between the blocks you may write ordinary sentences. Where your findings disagree, or something is missing, say so, \
look at the moment again and correct yourself. When the evidence is complete, draw your conclusion and give the answer \
once, at the very end:
<answer>your answer</answer>"""

_LONG_ANSWERS: Mapping[AnswerKind, str] = MappingProxyType(
    {
        "letter": "the letter of the right option",
        "option": "the right option, word for word,",
        "number": "only a number",
        "span": "the time span MM:SS-MM:SS",
        "text": "a short text",
    }
)
_SHORT_ANSWERS: Mapping[AnswerKind, str] = MappingProxyType(
    {"letter": "letter", "option": "option", "number": "number", "span": "span", "text": "text"}
)
_PLAIN_ANSWERS: Mapping[AnswerKind, str] = MappingProxyType(
    {
        "letter": "with the letter",
        "option": "with an option",
        "number": "with a number",
        "span": "with the time span MM:SS-MM:SS",
        "text": "briefly",
    }
)

PROMPT_STYLES: dict[str, PromptStyle] = {
    "trace": PromptStyle(
        system=_TRACE_SYSTEM,
        reminder="Write the time, caption and think blocks first. End with {answer} in <answer></answer>.",
        still_reminder="There is no timeline: reason inside <think></think>. End with {answer} in <answer></answer>.",
        answers=_LONG_ANSWERS,
    ),
    "trace_concise": PromptStyle(
        system=None,
        reminder="<time> <caption> <think> <answer> {answer}",
        still_reminder="<think> <answer> {answer}",
        answers=_SHORT_ANSWERS,
    ),
    "plain": PromptStyle(
        system=None, reminder="Answer {answer}.", still_reminder="Answer {answer}.", answers=_PLAIN_ANSWERS
    ),
}


# The questions of benchmarks whose annotations are captions, not questions.
CAPTIONING_QUESTION = "Tell, moment by moment, what happens in the video."
_GROUNDING_QUESTION = 'When in the video does this happen: "{caption}"?'


def grounding_question(caption: str) -> str:
    """Ask for the time span of what a caption tells."""
    return _GROUNDING_QUESTION.format(caption=caption.strip())


def frame_label(time: str, video: int | None = None) -> str:
    """Label a frame with its time, and its video's number if there are several: for frames sent as single images."""
    return f"Frame at {time}:" if video is None else f"Video {video}, frame at {time}:"


def render_system(style: str) -> str | None:
    """Return the system message of a style, or `None` if the style has none.

    Raises:
        ConfigError: If the style is unknown.
    """
    return _style(style).system


def render_question(sample: VideoSample, style: str) -> str:
    """Render the user message of a sample: the question, its options one per line, and the style's reminder.

    Raises:
        ConfigError: If the style is unknown.
    """
    words = _style(style)
    reminder = words.still_reminder if sample.only_stills else words.reminder
    return "\n".join([sample.problem, *sample.options, reminder.format(answer=words.answers[_answer_kind(sample)])])


def _style(style: str) -> PromptStyle:
    if style not in PROMPT_STYLES:
        known = ", ".join(PROMPT_STYLES)
        raise ConfigError(f"prompt_style: {style!r} is not a prompt style; the styles are {known}; choose one of them.")
    return PROMPT_STYLES[style]


def _answer_kind(sample: VideoSample) -> AnswerKind:
    if sample.problem_type == "multiple choice":
        return "letter" if options_are_lettered(sample.options) or not sample.options else "option"
    if sample.problem_type == "grounding":
        return "span"
    return "number" if sample.problem_type in ("numerical", "regression") else "text"
