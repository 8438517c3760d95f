"""What a row says, checked against itself and against the length of its video. Runs without torch.

Errors make a row useless or dangerous. Warnings are rows that the scorer of a benchmark can still grade, but that teach
or measure less than they seem to. `video-thinker validate` lists both; `prepare` and `synthesize` refuse errors.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from video_thinker.data.conversation import build_target
from video_thinker.data.texts import SpecialTokens, check_texts, control_character, text_problems, texts_of
from video_thinker.errors import DataError
from video_thinker.schema import VideoSample
from video_thinker.scoring import (
    extract_choice,
    option_letters,
    options_are_lettered,
    parse_number,
    score_answer,
    score_completion,
)
from video_thinker.times import TIME_TOLERANCE_S, find_time_ranges, parse_time_range
from video_thinker.trace import extract_answer, format_violations

Severity = Literal["error", "warning"]

# Placeholders of other trainers: here media come first, and such a word stays a word.
_PLACEHOLDER = re.compile(r"</?(?:video|image|img|audio)(?:[ _]?\d+)?>", re.IGNORECASE)
_LIST_OF_OPTIONS = re.compile(r"(?:\b(?:options|choices|candidates|answers)\b|选项)[^:：\n]{0,40}[:：](.*)", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•]\s*|\(?(?:[a-z]|\d{1,2})[.):]\s*)?")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where ("file:line"), how bad, what, and of which kind. Those of one kind are counted."""

    where: str
    severity: Severity
    message: str
    kind: str = ""


MOST_KINDS, MOST_PLACES = 8, 3
"""How many kinds of findings a refusal names, and how many rows of each."""


def finding_of(error: DataError) -> Finding:
    """Make a finding of an error whose message reads "file:line: found; rule; fix."; those of one rule are one kind."""
    where, _, message = str(error).partition(": ")
    parts = message.rstrip(".").rsplit("; ", 2)
    kind = f"a row cannot be read: {masked(parts[-2])}" if len(parts) > 2 else masked(parts[0].partition(" (")[0])
    return Finding(where, "error", message, kind)


def masked(message: str) -> str:
    """Take values out of a message, so that messages of one kind are equal."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+(?:\.\d+)?", "…", message)


def error_findings(samples: Iterable[VideoSample], check: Callable[[VideoSample], None]) -> Iterator[Finding]:
    """Call a check on each sample, and make findings of the `DataError`s that it raises."""
    for sample in samples:
        try:
            check(sample)
        except DataError as error:
            yield finding_of(error)


def check_all_texts(samples: Iterable[VideoSample], tokens: SpecialTokens) -> None:
    """Check the texts of all samples, as `check_texts` does.

    Raises:
        DataError: some cannot be used; see `refuse`.
    """
    refuse(error_findings(samples, lambda sample: check_texts(sample, tokens)))


def refuse(findings: Iterable[Finding]) -> None:
    """Refuse a run for the errors among findings.

    Raises:
        DataError: there are some. It says the first in full, counts the rows of each kind, and names some of each.
    """
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise DataError(summarize(errors))


def summarize(findings: Sequence[Finding]) -> str:
    """Say the first finding in full, and of each kind how many rows it has and which; at most `MOST_KINDS` kinds."""
    said = f"{findings[0].where}: {findings[0].message}"
    num_rows = len({finding.where for finding in findings})
    if len(findings) == 1:
        return said
    said += f" {num_rows - 1} more rows cannot be used; `video-thinker validate` lists all of them."
    kinds: dict[str, list[str]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind or masked(finding.message), []).append(finding.where)
    for kind, places in list(kinds.items())[:MOST_KINDS]:
        more = ", …" if len(places) > MOST_PLACES else ""
        said += f"\n  {kind}: {_rows(len(places))} ({', '.join(places[:MOST_PLACES])}{more})"
    if len(kinds) > MOST_KINDS:
        rest = sum(map(len, list(kinds.values())[MOST_KINDS:]))
        said += f"\n  and {len(kinds) - MOST_KINDS} other kinds: {_rows(rest)}"
    return said


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


@dataclass(frozen=True, slots=True)
class _Fault:
    """A broken rule, before it is said of which sample."""

    severity: Severity
    kind: str
    found: str
    fix: str


def check_sample(
    sample: VideoSample, duration_s: float | None = None, tokens: SpecialTokens | None = None
) -> Iterator[Finding]:
    """Check what a row says against itself, and against its video's real duration in seconds where that is known.

    `tokens` are those of the model at hand; without them, those of the supported families.
    """
    length_s = duration_s if duration_s is not None else sample.duration_s
    for rule in (_gold_faults, _option_faults, _placeholder_faults):
        for fault in rule(sample):
            yield _finding(sample, fault)
    for fault in _text_faults(sample, tokens or SpecialTokens()):
        yield _finding(sample, fault)
    for fault in _time_faults(sample, duration_s, length_s):
        yield _finding(sample, fault)
    if sample.process is not None and not sample.only_stills:
        for fault in _trace_faults(sample, length_s):
            yield _finding(sample, fault)


def _finding(sample: VideoSample, fault: _Fault) -> Finding:
    fix = f"; {fault.fix}" if fault.fix else ""
    return Finding(sample.location, fault.severity, f"{fault.found} (sample {sample.id!r}){fix}", fault.kind)


def _gold_faults(sample: VideoSample) -> Iterator[_Fault]:
    if score_answer(sample.answer, sample).value != 1.0:
        rule = "it must be one of the options" if sample.options else "it must be readable by that type's rule"
        found = f"the gold {sample.answer!r} is no {sample.problem_type} answer: {rule}"
        yield _Fault("error", "the gold is no answer of its problem type", found, "fix the solution")
    number = parse_number(sample.answer) if sample.problem_type == "numerical" else None
    if number and abs(number) < 0.005:
        found = f"the gold {sample.answer!r} is 0.00 when rounded to the two decimals that Video-R1 compares"
        fix = "scale the number (another unit), or make it a regression"
        yield _Fault("warning", "a numerical gold rounds to 0.00", found, fix)


def _option_faults(sample: VideoSample) -> Iterator[_Fault]:
    if sample.problem_type != "multiple choice":
        return
    options = sample.options
    if not options:
        found = "multiple choice without options: any letter counts as an answer"
        yield _Fault("warning", "multiple choice without options", found, "give the options, or change the type")
        return
    if len(options) == 1:
        found = f"{options[0]!r} is the only option: every answer is right"
        yield _Fault("warning", "there is only one option", found, "add wrong options or drop the row")
    lettered = [options_are_lettered([option]) for option in options]
    letters = [next(iter(option_letters([option]))) for option in options]
    if any(lettered) and not all(lettered):
        found = f"only {sum(lettered)} of {len(options)} options carry a letter"
        yield _Fault("warning", "some options carry a letter and others none", found, "letter all options or none")
    elif all(lettered) and (twice := _repeated(letters)):
        found = f"the letter {twice} stands before several options"
        yield _Fault("error", "two options have the same letter", found, "letter the options A, B, C, …")
    if twice := _repeated([text for text in map(folded, _bare_texts(options)) if text]):
        found = f"the text {twice!r} stands in several options: one of two equal answers would be wrong"
        yield _Fault("warning", "two options have the same text", found, "change or drop one of them")
    if repeats_options(sample.problem, options):
        found = "the problem lists the options, and the prompt lists them again"
        yield _Fault("warning", "options are repeated in the problem", found, "take them out of the problem")


def repeats_options(problem: str, options: Sequence[str]) -> bool:
    """Say whether a problem lists its options: on lines of their own, lettered ("(A) milk (B) oil"), or after a colon.

    A problem that mentions them in a sentence ("Which comes first, red or blue?") lists nothing. Options that are bare
    letters need the list in the problem.
    """
    texts = [folded(text) for text in _bare_texts(options)]
    letters = _letters(options)
    if len(texts) < 2 or not all(texts) or texts == [letter.casefold() for letter in letters]:
        return False
    whole = folded(problem)
    lines = {_BULLET.sub("", line, count=1).strip(" .。,;") for line in map(folded, problem.splitlines())}
    lines |= {folded(line) for line in problem.splitlines()}
    if all(
        text in lines or re.search(_lettered_pattern(letter, number, text), whole)
        for number, (letter, text) in enumerate(zip(letters, texts, strict=True), start=1)
    ):
        return True
    listed = _LIST_OF_OPTIONS.search(unicodedata.normalize("NFKC", problem).casefold())
    rest = folded(listed.group(1)) if listed else ""
    return bool(rest) and all(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", rest) for text in texts)


def folded(text: str) -> str:
    """Fold a text for comparison: NFKC, no case, single spaces, no full stop at the end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".。")


def _lettered_pattern(letter: str, number: int, text: str) -> str:
    return rf"(?<!\w)[(\[]?(?:{re.escape(letter.casefold())}|{number})\s?[.):\]、]\s?{re.escape(text)}(?!\w)"


def _letters(options: Sequence[str]) -> list[str]:
    own = [next(iter(option_letters([option]))) for option in options]
    by_place = [chr(ord("A") + number) for number in range(len(options))]
    return own if all(options_are_lettered([option]) for option in options) else by_place


def _bare_texts(options: Sequence[str]) -> list[str]:
    """Texts of options without their letters, if all have one; unlike `option_letters`, also of repeated letters."""
    if all(options_are_lettered([option]) for option in options):
        return [next(iter(option_letters([option]).values())) for option in options]
    return list(options)


def _repeated(values: Sequence[str]) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _text_faults(sample: VideoSample, tokens: SpecialTokens) -> Iterator[_Fault]:
    for problem in text_problems(sample, tokens):
        yield _Fault("error", problem.kind, f"{problem.field} {problem.found}", f"{problem.rule}; {problem.fix}")
    for field, text in texts_of(sample):
        if (char := control_character(text)) is not None:
            found = f"{field} holds the control or replacement character {char}"
            yield _Fault("warning", "a text holds control characters", found, "the export was damaged: write it again")


def _placeholder_faults(sample: VideoSample) -> Iterator[_Fault]:
    for field, text in texts_of(sample):
        if (field == "the problem" or field.startswith("option")) and (found := _PLACEHOLDER.search(text)):
            said = f"{field} holds {found.group()!r}: media stand before the text, and this would stay there as a word"
            yield _Fault("warning", "a placeholder for media is written as a word", said, "take it out")


def _time_faults(sample: VideoSample, duration_s: float | None, length_s: float | None) -> Iterator[_Fault]:
    if duration_s is not None and sample.duration_s and abs(duration_s - sample.duration_s) > TIME_TOLERANCE_S:
        found = f"the row says {sample.duration_s:g} s, the video lasts {duration_s:.2f} s"
        yield _Fault("warning", "the stated duration is not that of the video", found, "fix the row")
    if length_s is None:
        return
    for index, segment in enumerate(sample.segments, start=1):
        if segment.start_s >= length_s or segment.end_s > length_s + TIME_TOLERANCE_S:
            span = f"{segment.start_s:g}-{segment.end_s:g} s"
            found = f"segment {index}, {span}, is outside the video of {length_s:.2f} s"
            yield _Fault("error", "a segment is outside the video", found, "fix or drop it")
    for start_s, end_s in _gold_spans(sample):
        found = f"the gold span {start_s:g}-{end_s:g} s "
        if start_s >= length_s:
            kind, fix = "a grounding gold lies after the end of the video", "no answer can meet it: fix or drop the row"
            yield _Fault("error", kind, f"{found}lies after the video of {length_s:.2f} s", fix)
        elif end_s > length_s + TIME_TOLERANCE_S:
            kind, fix = "a grounding gold ends after the video", "end it with the video"
            yield _Fault("warning", kind, f"{found}goes beyond the video of {length_s:.2f} s", fix)


def _gold_spans(sample: VideoSample) -> list[tuple[float, float]]:
    if sample.problem_type != "grounding":
        return []
    spans = [parse_time_range(part) for part in sample.answer.split(",")]
    whole = [span for span in spans if span is not None]
    return whole if len(whole) == len(spans) else find_time_ranges(sample.answer)


def _trace_faults(sample: VideoSample, length_s: float | None) -> Iterator[_Fault]:
    for violation in format_violations(build_target(sample), length_s):
        kind = "a trace's times are outside the video" if "outside the video" in violation else ""
        found = f"the trace in `process` breaks the format: {violation}"
        yield _Fault("warning", kind or "a trace breaks the format", found, "")
    concluded = _conclusion(sample)
    if concluded is not None:
        found = f"the trace concludes {concluded!r}, the gold is {sample.answer!r}"
        yield _Fault("warning", "a trace concludes another answer than the gold", found, "fix one of them")


def _conclusion(sample: VideoSample) -> str | None:
    """Give the answer that a trace ends in, if it can be read and is not the gold: of a choice, and marked answers."""
    process = sample.process or ""
    answer = extract_answer(process)
    if answer is None and sample.problem_type == "multiple choice":
        last = process.rpartition(">")[2].strip()
        names_option = extract_choice(last, sample.options) in option_letters(sample.options)
        return last if names_option and score_completion(last, sample).status == "wrong" else None
    return answer if answer is not None and score_answer(answer, sample).value == 0.0 else None
