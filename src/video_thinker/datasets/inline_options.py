r"""Questions that hold their options: "What year?\n(A) 1636\n(B) 1366", "Who?\nA. Ann\nB. Bob", "Who? A) Ann B) Bob".

Official scorers of such benchmarks show the text as it is and compare letters. So a text whose options cannot be told
apart is kept whole, without options, and its letter is graded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from video_thinker.data.texts import brief
from video_thinker.datasets.base import Record
from video_thinker.datasets.items import LETTERS, read_options

_MARK = r"(?:[(（](?P<a>{letter})[)）]|(?P<b>{letter})[.):．：）、](?![A-Za-z]\.))[ \t]*"
# Tried in this order: capital letters at the start of a line, small ones, capital letters after a sentence.
_PATTERNS = (
    re.compile(r"^[ \t]*" + _MARK.format(letter="[A-ZＡ-Ｚ]"), re.MULTILINE),
    re.compile(r"^[ \t]*" + _MARK.format(letter="[a-z]"), re.MULTILINE),
    re.compile(r"(?:(?<=\s)|^)" + _MARK.format(letter="[A-ZＡ-Ｚ]")),
)
_SENTENCE_END = re.compile(r"[?!.:_)。？！：…]\s*$")
_HEADING = re.compile(r"\s*(?:options|choices):?\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Mark:
    letter: str
    start: int
    end: int


def split_inline_options(record: Record, text: str) -> tuple[str, dict[str, str]]:
    """Cut a question's text into the question and its options by letter.

    Lines without a letter of their own belong to the option before them. Where letters start again at A (a generator's
    notes stand before the options), the last run is the options; what stands before it stays in the question, as the
    official evaluation shows it, with a note. A text without options is given back whole, with a note.

    Raises:
        DataError: an option is empty, see `read_options`.
    """
    for pattern in _PATTERNS:
        marks = [_Mark(_capital(match["a"] or match["b"]), *match.span()) for match in pattern.finditer(text)]
        run = _last_run(marks)
        before = text[: run[0].start] if run else ""
        problem = _HEADING.sub("", before).strip()
        within_a_line = pattern is _PATTERNS[-1]
        if not problem or (within_a_line and not _SENTENCE_END.search(before)):
            continue
        ends = [mark.start for mark in run[1:]] + [len(text)]
        texts = {mark.letter: text[mark.end : end].strip() for mark, end in zip(run, ends, strict=True)}
        if [mark.letter for mark in run] != sorted(texts):
            record.note("options out of order", f"the options stand in the order {''.join(m.letter for m in run)}")
        if len(run) < len(marks):
            odd = next(mark for mark in marks if mark not in run)
            record.note(
                "words among the options",
                f"{brief(text[odd.start :])} begins like an option and is none: the options are the last run from A",
            )
        return problem, read_options(record, texts)
    record.note("no options", f"no options can be told apart in {brief(text)}: the text is kept whole")
    return text, {}


def _capital(letter: str) -> str:
    """Return the plain capital letter: "b" and full-width ones, too."""
    return chr(ord(letter) - 0xFEE0) if ord(letter) > 0xFF00 else letter.upper()


def _last_run(marks: list[_Mark]) -> list[_Mark]:
    """Return the marks of the options: all if each letter is there once, else the last run A, B, C …; or none."""
    letters = [mark.letter for mark in marks]
    if len(marks) > 1 and sorted(letters) == list(LETTERS[: len(marks)]):
        return marks
    for first in range(len(marks) - 1, -1, -1):
        run = []
        for mark, letter in zip(marks[first:], LETTERS, strict=False):
            if mark.letter != letter:
                break
            run.append(mark)
        if len(run) > 1:
            return run
    return []
