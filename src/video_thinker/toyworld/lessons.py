"""What the toy base model is taught: to see, to walk along a clip as it is told, and to look up letters.

No traces, no tags, and few questions as they are asked later. A lesson is one exchange; the loss falls only on the pieces
of the assistant's text that follow from the video, the options or the words before (`graded`):

    user:       <video> Look around.\nA. white\nB. blue\nC. green\nD. cyan
    assistant:  I look for red. [00:01-00:03 red on the left], now I look right after it [00:03-00:04 blue at the top].
                So blue: [B]. I look at the end. [00:06-00:08 ...
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from video_thinker.prompts import PROMPT_STYLES
from video_thinker.toyworld.questions import KINDS, LETTERS, ask, to_item, write_time
from video_thinker.toyworld.world import COLORS, Clip, Span

SEPARATORS = (" ", ", ", ": ", ".\n", ". ", ".\n- ", ".\nAnswer: ", " is ")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the assistant's text. `graded` names the skill it shows; an empty name is not graded."""

    text: str
    graded: str = ""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One exchange; `ends` says whether the end of the turn is graded too. `clip` is `None` for text-only lessons."""

    user: str
    pieces: tuple[Piece, ...]
    clip: Clip | None = None
    ends: bool = True

    @property
    def text(self) -> str:
        """Both sides as plain text."""
        return f"{self.user}\n{''.join(piece.text for piece in self.pieces)}"


def render_options(options: Sequence[str]) -> str:
    """One option per line, lettered."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def drill(rng: random.Random) -> Lesson:
    """Text only: name the letters of options, in random order and several ways of writing."""
    options = rng.sample(list(COLORS), 4)
    pieces = []
    for color in rng.choices(options, k=6):
        said = f"{rng.choice(('So ', 'So ', '')) + color}{rng.choice(SEPARATORS)}"
        pieces += [Piece(said), Piece(LETTERS[options.index(color)], "letter"), Piece(rng.choice((". ", "\n", ", ")))]
    return Lesson(f"Read the letters.\n{render_options(options)}", tuple(pieces), ends=False)


def walk(clip: Clip, rng: random.Random, num_steps: int = 7) -> Lesson:
    """Find a segment, step along the clip, jump elsewhere; now and then say the letter of the color just seen."""
    spans, pieces, here = clip.spans, [], None
    options = rng.sample(clip.timeline, 4)
    gap = rng.choice((" ", "\n"))
    for _ in range(num_steps):
        here, move, opening = _step(clip, here, rng)
        pieces += [Piece(opening), Piece(f"{write_time(spans[here])}{gap}{spans[here].caption}", move), Piece(rng.choice((", ", ". ", "; ", " ")))]
        color = spans[here].color
        if color in options and rng.random() < 0.4:
            pieces += [
                Piece(f"So {color}{rng.choice(SEPARATORS)}"),
                Piece(LETTERS[options.index(color)], "letter"),
                Piece(rng.choice((". ", "\n"))),
            ]
    return Lesson(f"Look around.\n{render_options(options)}", tuple(pieces), clip, ends=False)


def _step(clip: Clip, here: int | None, rng: random.Random) -> tuple[int, str, str]:
    """Choose where to look next: the segment, the name of the move, and the words that announce it."""
    moves = ["find", "find", "start", "end", "at"]
    if here is not None:
        moves += ["after"] * 4 * (here < len(clip.spans) - 1) + ["before"] * 4 * (here > 0)
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
    """The question in plain wording, answered with the bare letter: taught little, so that there is room to grow."""
    question = ask(clip, rng.choice(KINDS), rng.choice(LETTERS), rng)
    item = to_item(question, "", "")
    reminder = PROMPT_STYLES["plain"].reminder.format(answer=PROMPT_STYLES["plain"].answers["letter"])
    user = "\n".join([item["problem"], *item["options"], reminder])
    return Lesson(user, (Piece(question.answer, f"direct-{question.kind}"),), clip)
