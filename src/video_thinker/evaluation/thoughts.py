"""Whether a model still thinks in words, measured against its teacher's. Runs without torch.

Rewards on the outcome and the format do not read the thoughts. Without a KL term nothing holds the thoughts in place:
each update moves them a little, and after some hundred steps they can be noise ("nowowow what comes last") while
accuracy and format are at their best. So this has to be measured on its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from video_thinker.trace import parse_trace

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
_EDGE = ""  # stands before the first word and after the last


class TeacherWords:
    """The words of a teacher's thoughts, and which of them stood next to each other.

    A thought is **known** if each of its words is one of the teacher's, and each two neighbors in it were neighbors in
    some thought of the teacher; the start and the end of a thought count as neighbors too. So these are not known:

        nowowow what comes last          a word nobody wrote
        look look look                   each word is the teacher's, but no thought of his repeats it
        this is what comes               breaks off where no thought of his ended
        (nothing)                        no thought of his was empty

    New sentences made of the teacher's pairs of words are known; so this does not ask whether a thought is true or fits
    its caption. Case does not matter; punctuation counts as words.

    This fits a language as small as the toy world's. A teacher's free prose leaves out most of the pairs that make
    sense: compare with the share of the SFT model's thoughts, not with 1.
    """

    def __init__(self, traces: Iterable[str]) -> None:
        """Read the thoughts of `traces`, completions with tags."""
        self._pairs = {pair for trace in traces for thought in thoughts(trace) for pair in _pairs(thought)}

    def knows(self, thought: str) -> bool:
        """Say whether the teacher could have written a thought."""
        return self._pairs.issuperset(_pairs(thought))

    def share_known(self, completions: Iterable[str]) -> float | None:
        """Compute the share of known thoughts among all thoughts of the completions; `None` if they have none."""
        known = [self.knows(thought) for completion in completions for thought in thoughts(completion)]
        return sum(known) / len(known) if known else None


def thoughts(completion: str) -> list[str]:
    """List the thoughts of a completion, read leniently: one for each `<time>` with a readable range."""
    trace = parse_trace(completion)
    return [block.think for block in trace.blocks] if trace else []


def _pairs(thought: str) -> Iterator[tuple[str, str]]:
    return itertools.pairwise([_EDGE, *_WORD.findall(thought.casefold()), _EDGE])
