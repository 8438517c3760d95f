"""What the toy base model is taught: to see, and to walk along a clip as it is told.

No traces, no tags, and few questions as they are asked later. A lesson is one exchange; the loss falls only on the
pieces of the assistant's text that follow from the video or the words before (`graded`, here in brackets):

    user:       <video> Look around.
    assistant:  I look for red. [00:01-00:03 red on the left], now I look right after it [00:03-00:04 blue at the top].
                I look at the end. [00:06-00:08 green at the bottom] …
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from video_thinker.prompts import PROMPT_STYLES
from video_thinker.toyworld.questions import KINDS, NUM_OPTIONS, ask, to_item, write_time
from video_thinker.toyworld.world import COLORS, Clip


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the assistant's text. `graded` names the skill it shows; an empty name is not graded."""

    text: str
    graded: str = ""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One exchange; `ends` says whether the end of the turn is graded too."""

    user: str
    pieces: tuple[Piece, ...]
    clip: Clip
    ends: bool = True

    @property
    def text(self) -> str:
        """Both sides as plain text."""
        return f"{self.user}\n{''.join(piece.text for piece in self.pieces)}"


def walk(clip: Clip, rng: random.Random) -> Lesson:
    """Take a walk that is asked for among other text; its first step may be what that text asks for."""
    instruction, asked = _instruction(clip, rng)
    return Lesson(instruction, _take_walk(clip, rng, asked), clip, ends=False)


def bare_walk(clip: Clip, rng: random.Random) -> Lesson:
    """Take a walk that is asked for in two words."""
    return Lesson("Look around.", _take_walk(clip, rng), clip, ends=False)


def _take_walk(clip: Clip, rng: random.Random, asked: int | None = None, num_steps: int = 6) -> tuple[Piece, ...]:
    """Find a segment, step along the clip, jump elsewhere; now and then repeat the color just seen."""
    spans, pieces, here = clip.spans, [], asked
    gap = rng.choice((" ", "\n"))
    for number in range(num_steps):
        if number == 0 and here is not None:
            move = "find"
            pieces += [Piece("I look for "), Piece(spans[here].color, "asked"), Piece(". ")]
        else:
            here, move, opening = _step(clip, here, rng)
            pieces.append(Piece(opening))
        pieces += [Piece(write_time(spans[here]), move), Piece(gap), Piece(spans[here].caption, "see")]
        pieces.append(Piece(rng.choice((", ", ". ", "; ", " "))))
        if rng.random() < 0.4:
            pieces += [Piece("So "), Piece(spans[here].color, "so"), Piece(". ")]
    return tuple(pieces)


def finds(clip: Clip, rng: random.Random) -> Lesson:
    """Say when each color is seen, twice and in random order: finding, and nothing else."""
    pieces: list[Piece] = []
    for span in [span for _ in range(2) for span in rng.sample(clip.spans, len(clip.spans))]:
        opening = rng.choice(("I look for ", "")) + span.color + rng.choice((". ", " "))
        pieces += [Piece(opening), Piece(write_time(span), "find"), Piece(rng.choice((", ", ". ")))]
    return Lesson("Find each color.", tuple(pieces), clip, ends=False)


def guided(clip: Clip, rng: random.Random) -> Lesson:
    """Look for what a question asks, in plain words and without answering: what is asked decides where to look.

    Without this, the direction in a question means nothing to the model, and GRPO has nothing to tie its reward to.
    """
    question = ask(clip, rng.choice(KINDS), rng.randrange(NUM_OPTIONS), rng)
    item = to_item(question, "", "")
    gap = rng.choice((" ", "\n"))
    pieces: list[Piece] = []
    if question.anchor is None:
        pieces += [Piece("I look at the "), Piece({"first": "start", "last": "end"}[question.kind], "way"), Piece(". ")]
    else:
        anchor = clip.spans[question.anchor]
        pieces += [Piece("I look for "), Piece(anchor.color, "asked"), Piece(". ")]
        pieces += [Piece(write_time(anchor), "find"), Piece(gap), Piece(anchor.caption, "see")]
        pieces += [Piece(", now I look right "), Piece(question.kind, "way"), Piece(" it ")]
    found = clip.spans[question.answer_index]
    pieces += [Piece(write_time(found), question.kind), Piece(gap), Piece(found.caption, "see")]
    return Lesson("\n".join([item["problem"], *item["options"], "Look for it."]), tuple(pieces), clip, ends=False)


def _instruction(clip: Clip, rng: random.Random) -> tuple[str, int | None]:
    """Ask for a walk among other text of any length, so that where a word stands does not matter.

    Returns:
        The text, and the segment it asks for, if any.
    """
    if rng.random() < 0.6:
        question = ask(clip, rng.choice(KINDS), rng.randrange(NUM_OPTIONS), rng)
        item = to_item(question, "", "")
        return "\n".join([item["problem"], *item["options"], "Look around."]), question.anchor
    words = rng.choices(list(COLORS), k=rng.randrange(9))
    return "\n".join(["Look around.", *words]), None


def _step(clip: Clip, here: int | None, rng: random.Random) -> tuple[int, str, str]:
    """Choose where to look next: the segment, the name of the move, and the words that announce it."""
    moves = ["find"] * 6 + ["start", "end", "at"]
    if here is not None:
        moves += ["after"] * 3 * (here < len(clip.spans) - 1) + ["before"] * 3 * (here > 0)
    move = rng.choice(moves)
    if move == "find":
        there = rng.randrange(len(clip.spans))
        return there, move, f"I look for {clip.spans[there].color}. "
    if move == "at":
        second = rng.randrange(clip.duration_s)
        there = next(i for i, s in enumerate(clip.spans) if s.start_s <= second < s.end_s)
        return there, move, f"I look at 00:{second:02d}. "
    if move in ("start", "end"):
        return (0 if move == "start" else len(clip.spans) - 1), move, f"I look at the {move}. "
    assert here is not None
    opening = rng.choice(("Now I look right {} it. ", "now I look right {} it ", "right {} it ")).format(move)
    return here + (1 if move == "after" else -1), move, opening


def listing(clip: Clip, rng: random.Random) -> Lesson:
    """Everything that is seen, in order."""
    if rng.random() < 0.3:
        return Lesson("List the colors.", (Piece(", ".join(clip.timeline), "colors"),), clip)
    text = ", ".join(f"{write_time(span)} {span.caption}" for span in clip.spans)
    return Lesson("Describe the video.", (Piece(text, "list"),), clip)


def direct(clip: Clip, rng: random.Random) -> Lesson:
    """The question in plain wording, answered with the bare word: taught little, so that there is room to grow."""
    question = ask(clip, rng.choice(KINDS), rng.randrange(NUM_OPTIONS), rng)
    item = to_item(question, "", "")
    reminder = PROMPT_STYLES["plain"].reminder.format(answer=PROMPT_STYLES["plain"].answers["option"])
    user = "\n".join([item["problem"], *item["options"], reminder])
    return Lesson(user, (Piece(question.answer, f"direct-{question.kind}"),), clip)
