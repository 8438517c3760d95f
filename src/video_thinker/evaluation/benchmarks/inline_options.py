r"""Questions that hold their options: "What year?\n(A) 1636\n(B) 1366", "Who?\nA. Ann\nB. Bob"."""

from __future__ import annotations

import re
import string

from video_thinker.evaluation.benchmarks.base import Record

_OPTION_LINE = re.compile(r"^[ \t]*(?:\((?P<a>[A-Z])\)[ \t]*|(?P<b>[A-Z])[.):][ \t]+)", re.MULTILINE)
_HEADING = re.compile(r"\s*(?:options|choices):?\s*$", re.IGNORECASE)


def split_inline_options(record: Record, text: str) -> tuple[str, dict[str, str]]:
    """Cut a question's text into the question and its options by letter.

    Lines without a letter of their own belong to the option before them.

    Raises:
        DataError: there are no options, they are not lettered from A on, or there is no question before them.
    """
    marks = list(_OPTION_LINE.finditer(text))
    letters = [match["a"] or match["b"] for match in marks]
    if len(marks) < 2 or letters != list(string.ascii_uppercase[: len(marks)]):
        raise record.error(
            f"option letters {''.join(letters) or '(none)'} in {text[:120]!r}",
            "options are lines lettered from A on",
        )
    problem = _HEADING.sub("", text[: marks[0].start()]).strip()
    if not problem:
        raise record.error(f"only options in {text[:120]!r}", "the question stands before its options")
    ends = [match.start() for match in marks[1:]] + [len(text)]
    texts = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return problem, dict(zip(letters, texts, strict=True))
