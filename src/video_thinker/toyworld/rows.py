"""Lessons of the toy base as token ids, positions and labels.

Shapes: B rows, L tokens, N visual tokens of all rows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor

from video_thinker.models.positions import PositionRule
from video_thinker.toyworld import lessons
from video_thinker.toyworld.lessons import Lesson
from video_thinker.toyworld.questions import write_time
from video_thinker.toyworld.seconds import SecondsBank
from video_thinker.toyworld.tokenizer import WORD_PATTERN
from video_thinker.toyworld.world import sample_clip


@dataclass(frozen=True)
class Round:
    """Steps, of how many segments the clips may be, the share of each kind of lesson, and that of unclear clips."""

    steps: int
    num_segments: Sequence[int]
    mix: dict[str, float]
    unclear: float = 0.0


# Walks come bare first: among other text from the start, finding is not learned.


class WordEncoder:
    """The tokenizer with a memory: lessons repeat a few hundred words."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Wrap `tokenizer`."""
        self._tokenizer = tokenizer
        self._memory: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """Encode text without special tokens."""
        ids: list[int] = []
        for word in re.findall(WORD_PATTERN, text):
            if word not in self._memory:
                self._memory[word] = self._tokenizer(word, add_special_tokens=False).input_ids
            ids += self._memory[word]
        return ids


@dataclass
class Row:
    """One lesson as ids, with the weight of each id in the loss.

    `skills` names the graded pieces, `piece_of` says which of them an id belongs to (-1: none). `first_visual` is the
    place of the first visual token; `seconds` are the bank's rows for them, and `starts` the second in which the
    segment of each begins. `looks` are the places from which a segment is to be found, each with the second in which
    that segment begins.
    """

    ids: list[int]
    weights: list[float]
    piece_of: list[int]
    skills: list[str]
    first_visual: int
    seconds: list[int]
    starts: list[int]
    looks: list[tuple[int, int]] = field(default_factory=list)

    def add(self, ids: list[int], skill: str = "") -> None:
        """Append ids; those with a skill are graded. The weight of a piece is the square root of its length."""
        self.ids += ids
        self.weights += [len(ids) ** -0.5 if skill else 0.0] * len(ids)
        self.piece_of += [len(self.skills) if skill else -1] * len(ids)
        self.skills += [skill] if skill else []


class LessonWriter:
    """Draw lessons and write them as token ids in the chat format."""

    def __init__(self, processor: Qwen2_5_VLProcessor, bank: SecondsBank, plan: Round) -> None:
        """Keep what is needed to write."""
        self.encode = WordEncoder(processor.tokenizer)
        ids = processor.tokenizer.convert_tokens_to_ids
        self.start, self.end, self.pad = ids("<|im_start|>"), ids("<|im_end|>"), ids("<|video_pad|>")
        self.vision = ids("<|vision_start|>"), ids("<|vision_end|>")
        self.bank, self.plan = bank, plan

    def draw(self, rng: random.Random) -> Row:
        """Draw one lesson to learn from, now and then about an unclear clip."""
        row = self.draw_clear(rng, "base")
        if rng.random() < self.plan.unclear:
            row.seconds, row.looks = self.bank.unclear_rows(len(row.seconds), rng), []
        return row

    def draw_clear(self, rng: random.Random, split: str) -> Row:
        """Draw one lesson about a clear clip."""
        kind = rng.choices(list(self.plan.mix), list(self.plan.mix.values()))[0]
        clip = sample_clip(rng, split)
        clip = replace(clip, spans=clip.spans[: rng.choice(self.plan.num_segments)])
        return self.write(getattr(lessons, kind)(clip, rng), rng)

    def write(self, lesson: Lesson, rng: random.Random) -> Row:
        """Write a lesson in Qwen's chat format, the video first."""
        newline = self.encode("\n")
        head = [self.start, *self.encode("user"), *newline, self.vision[0]]
        starts = [span.start_s for span in lesson.clip.spans for _ in range(span.end_s - span.start_s)]
        row = Row([], [], [], [], len(head), self.bank.rows(lesson.clip, rng), starts)
        row.add([*head, *[self.pad] * len(starts), self.vision[1]])
        row.add([*self.encode(lesson.user), self.end, *newline, self.start, *self.encode("assistant"), *newline])
        # A piece is cut at a word that begins with a space, as the tokenizer would cut the whole text.
        for i, (ids, skill) in enumerate(self._cut(lesson)):
            is_last = i == len(lesson.pieces) - 1
            if skill == "find":
                span = next(span for span in lesson.clip.spans if write_time(span) == lesson.pieces[i].text)
                row.looks += [(len(row.ids) - 1 + n, span.start_s) for n in range(len(ids))]
            row.add(ids + [self.end] * (is_last and lesson.ends), skill)
        return row

    def _cut(self, lesson: Lesson) -> list[tuple[list[int], str]]:
        """Encode the pieces; a space at the end of one goes to the next word, as in the text as a whole."""
        cut, carried = [], ""
        for piece in lesson.pieces:
            text = carried + piece.text
            carried = " " if text.endswith(" ") else ""
            cut.append((self.encode(text[: len(text) - len(carried)]), piece.graded))
        return cut


def position_ids(row: Row, length: int, rule: PositionRule) -> torch.Tensor:
    """Positions (3, L) of a row padded to `length`, which has one video of a pair of frames per second."""
    types = torch.zeros(length, dtype=torch.long)
    types[row.first_visual : row.first_visual + len(row.seconds)] = 2
    return rule.prompt_positions(types, None, torch.tensor([[len(row.seconds), 2, 2]]), torch.tensor([1.0]))


def collate(rows: Sequence[Row], pad_id: int, rule: PositionRule) -> dict[str, torch.Tensor]:
    """Pad on the right. Causal attention needs no mask there, since padding has no weight in the loss.

    Returns:
        `ids`, `weights` and `piece_of` (B, L), `positions` (3, B, L); and of the N visual tokens of all rows, one after
        the other, `visual_row` and `visual_place` in these, `bank_row`, `own_s` and `start_s`.
    """
    length = max(len(row.ids) for row in rows)
    batch = {
        "ids": torch.full((len(rows), length), pad_id),
        "weights": torch.zeros(len(rows), length),
        "piece_of": torch.full((len(rows), length), -1),
        "positions": torch.stack([position_ids(row, length, rule) for row in rows], dim=1),
        "visual_row": torch.tensor([i for i, row in enumerate(rows) for _ in row.seconds]),
        "own_s": torch.cat([torch.arange(len(row.seconds)) for row in rows]),
        "start_s": torch.tensor([start_s for row in rows for start_s in row.starts]),
        "bank_row": torch.tensor([second for row in rows for second in row.seconds]),
    }
    first = torch.tensor([row.first_visual for row in rows])
    batch["visual_place"] = first[batch["visual_row"]] + batch["own_s"]
    for i, row in enumerate(rows):
        batch["ids"][i, : len(row.ids)] = torch.tensor(row.ids)
        batch["weights"][i, : len(row.ids)] = torch.tensor(row.weights)
        batch["piece_of"][i, : len(row.ids)] = torch.tensor(row.piece_of)
    return batch
