"""Questions about toy clips, and the traces a careless teacher would write for them.

One item of the SFT split, as `build` writes it (the schema of `video_thinker.schema`):

    {"problem_id": "train_sft-0007", "problem": "Which color comes right after red?", "data_type": "video",
     "problem_type": "multiple choice", "options": ["purple", "blue", "green", "red", "orange", "cyan"],
     "solution": "<answer>blue</answer>", "path": "media/train_sft-0007.mp4", "data_source": "toyworld/after",
     "segments": [{"start_s": 1, "end_s": 3, "caption": "red on the left"},
                  {"start_s": 3, "end_s": 4, "caption": "blue at the top"}],
     "process": "I look for red. <time>00:01-00:03</time> <caption>red on the left</caption> <think>now I look right
     after it</think> <time>00:03-00:04</time> <caption>blue at the top</caption> <think>this is what comes right
     after red</think> So blue."}

The answer is the word of an option: a model this small reads letters off a list badly. The options are all six colors,
in random order, so that picking an option and naming any color without reading the options are the same guess: 1/6.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from video_thinker.times import format_time
from video_thinker.toyworld.world import COLORS, QUESTION_COLORS, Clip, Span

Item = dict[str, Any]
"""A row of a data file."""

NUM_OPTIONS = len(QUESTION_COLORS)
KINDS = ("after", "before", "first", "last")
OPPOSITE = {"after": "before", "before": "after", "first": "last", "last": "first"}
PROBLEMS = {
    "after": "Which color comes right after {anchor}?",
    "before": "Which color comes right before {anchor}?",
    "first": "Which color comes first?",
    "last": "Which color comes last?",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One multiple-choice question; `anchor` is the segment it starts from ("right after red"), if any."""

    kind: str
    clip: Clip
    anchor: int | None
    options: tuple[str, ...]

    @property
    def answer_index(self) -> int:
        """The segment that holds the true answer."""
        return look(self.kind, self.anchor, len(self.clip.spans))

    @property
    def answer(self) -> str:
        """The color of the true answer."""
        return self.clip.spans[self.answer_index].color

    @property
    def relevant(self) -> tuple[Span, ...]:
        """The gold segments: the anchor, if there is one, and the answer."""
        indices = [self.anchor, self.answer_index] if self.anchor is not None else [self.answer_index]
        return tuple(self.clip.spans[i] for i in indices)


def look(kind: str, anchor: int | None, num_segments: int) -> int:
    """Return the segment one ends at who looks in the direction `kind`."""
    if anchor is None:
        return 0 if kind == "first" else num_segments - 1
    return anchor + 1 if kind == "after" else anchor - 1


def ask(clip: Clip, kind: str, slot: int, rng: random.Random) -> Question:
    """Draw one question of `kind` whose true answer stands at position `slot` of the options.

    Anchors are never the first or last segment, so that both directions lead somewhere.
    """
    anchor = rng.randrange(1, len(clip.spans) - 1) if kind in ("after", "before") else None
    answer = clip.spans[look(kind, anchor, len(clip.spans))].color
    options = [color for color in option_colors(clip, rng) if color != answer]
    rng.shuffle(options)
    options.insert(slot, answer)
    return Question(kind, clip, anchor, tuple(options))


def option_colors(clip: Clip, rng: random.Random) -> tuple[str, ...]:
    """Choose the six colors of a question: those of the clip and one other.

    For a clip of `QUESTION_COLORS` these are all six. The base's clips have yellow and white too.
    """
    known = QUESTION_COLORS if set(clip.timeline) <= set(QUESTION_COLORS) else tuple(COLORS)
    others = [color for color in known if color not in clip.timeline]
    return (*clip.timeline, *rng.sample(others, NUM_OPTIONS - len(clip.timeline)))


def write_trace(question: Question, looks: str) -> tuple[str, str]:
    """Write what a viewer says who looks in the direction `looks`, and the color that follows from it."""
    spans = question.clip.spans
    found = spans[look(looks, question.anchor, len(spans))]
    if question.anchor is None:
        place = {"first": "start", "last": "end"}[looks]
        text = f"I look at the {place}. {_block(found, f'this is what comes {looks}')}"
    else:
        anchor = spans[question.anchor]
        text = (
            f"I look for {anchor.color}. {_block(anchor, f'now I look right {looks} it')} "
            f"{_block(found, f'this is what comes right {looks} {anchor.color}')}"
        )
    return f"{text} So {found.color}.", found.color


def write_time(span: Span) -> str:
    """Write a span as "MM:SS-MM:SS"."""
    return f"{format_time(span.start_s)}-{format_time(span.end_s)}"


def _block(span: Span, think: str) -> str:
    return f"<time>{write_time(span)}</time> <caption>{span.caption}</caption> <think>{think}</think>"


def to_item(question: Question, item_id: str, path: str) -> Item:
    """Turn a question into a row of a data file, without a trace."""
    anchor = None if question.anchor is None else question.clip.spans[question.anchor].color
    return {
        "problem_id": item_id,
        "problem": PROBLEMS[question.kind].format(anchor=anchor),
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": list(question.options),
        "solution": f"<answer>{question.answer}</answer>",
        "path": path,
        "data_source": f"toyworld/{question.kind}",
        "segments": [{"start_s": s.start_s, "end_s": s.end_s, "caption": s.caption} for s in question.relevant],
    }
