"""Where the right option stands: planned before anything is asked, so that the letters are balanced over the set.

The plan depends only on the order of the annotations and the seed. A sample that is dropped or rejected later, or a
video that is repaired, changes no other sample's request, so nothing is paid for twice.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Letters:
    """The number of options of a question, and the position of the right one, from 0."""

    num_options: int
    position: int

    @property
    def gold(self) -> str:
        """The right option's letter."""
        return string.ascii_uppercase[self.position]


@dataclass
class LetterPlan:
    """Deals positions so that each comes once in every `num_options` questions of as many options."""

    seed: int
    _dealt: dict[int, int] = field(default_factory=dict)
    _blocks: dict[int, list[int]] = field(default_factory=dict)

    def deal(self, num_options: int) -> Letters:
        """Give the next question of `num_options` options its position."""
        count = self._dealt.get(num_options, 0)
        if count % num_options == 0:
            block = list(range(num_options))
            random.Random(f"letters {self.seed} {num_options} {count}").shuffle(block)
            self._blocks[num_options] = block
        self._dealt[num_options] = count + 1
        return Letters(num_options, self._blocks[num_options][count % num_options])


def place_answer(options: Sequence[str], answer: str, position: int) -> tuple[tuple[str, ...], str]:
    """Letter some bare options with the answer at `position`; the others keep their order.

    Returns:
        The options, "A. milk", and the answer's letter.
    """
    others = [option for option in options if option != answer]
    ordered = [*others[:position], answer, *others[position:]]
    lettered = tuple(f"{letter}. {text.strip()}" for letter, text in zip(string.ascii_uppercase, ordered, strict=False))
    return lettered, string.ascii_uppercase[position]
