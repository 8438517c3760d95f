"""Annotation files -> `VideoSample`: JSON lists, JSONL and parquet in Video-Thinker's and Video-R1's schema. No torch.

One row (`segments`, `category`, `duration_s` and `process` are optional; see data/README.md for every field):

    {"problem_id": "v_0031-2", "problem": "What is poured after the eggs?", "data_type": "video",
     "problem_type": "multiple choice", "options": ["A. milk", "B. oil"], "solution": "<answer>A</answer>",
     "path": "./cooking/v_0031.mp4", "data_source": "youcook2", "duration_s": 31.5,
     "segments": [{"start_s": 4.0, "end_s": 9.5, "caption": "Milk is poured into the bowl."}]}

A row that breaks the schema is a `DataError` and is never dropped. Here the form of a row is checked; whether its gold
can be scored and its media decode is what `video-thinker validate` checks on top.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard, cast

from video_thinker.data.checks import finding_of, refuse
from video_thinker.data.raw_files import iter_rows
from video_thinker.data.texts import brief, is_blank, printable, unusable_character
from video_thinker.errors import DataError
from video_thinker.schema import PROBLEM_TYPES, Media, MediaKind, ProblemType, Segment, VideoSample

DATA_TYPES = ("video", "image", "text")

_SOLUTION = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)
_PROBLEM_TYPE_OF = {name.lower(): name for name in PROBLEM_TYPES}


def load_samples(path: str | Path) -> list[VideoSample]:
    """Read all samples of a file.

    Raises:
        DataError: Rows break the schema (the first is said in full, the others are counted), the file is missing or has
            no rows.
    """
    samples, errors = [], []
    for result in check_rows(path):
        if isinstance(result, DataError):
            errors.append(finding_of(result))
        else:
            samples.append(result)
    refuse(errors)
    return samples


def check_rows(path: str | Path) -> Iterator[VideoSample | DataError]:
    """Read a file row by row; a row that breaks the schema gives its error instead of a sample, and reading goes on.

    Raises:
        DataError: If reading cannot go on: the file is missing, not text, has no rows, or a JSON list is cut off.
    """
    seen: dict[str, str] = {}
    for row in iter_rows(path):
        if isinstance(row, DataError):
            yield row
            continue
        try:
            sample = parse_row(row.value, row.location)
        except DataError as error:
            yield error
            continue
        first = seen.setdefault(sample.id, row.location)
        if first == row.location:
            yield sample
        else:
            yield DataError(
                f"{row.location}: problem_id {sample.id!r} was already used at {first}; "
                "each row of a file has its own; rename one of them or drop the copy."
            )


def parse_row(row: object, location: str) -> VideoSample:
    """Turn one decoded row into a sample. Keys that are not in the schema are left out.

    Raises:
        DataError: If a field is missing, malformed, or contradicts another one. The message starts with `location`.
    """
    if not isinstance(row, dict):
        raise DataError(f"{location}: found {brief(row)}; a row is a JSON object with the fields of data/README.md.")
    fields = _Fields(row, location)
    problem_type = fields.problem_type()
    process = fields.text("process", optional=True)
    return VideoSample(
        id=fields.id,
        problem=fields.text("problem"),
        problem_type=problem_type,
        answer=fields.solution(),
        options=fields.options(problem_type),
        media=fields.media(),
        segments=fields.segments(),
        process=None if is_blank(process) else process,
        data_source=fields.text("data_source", optional=True),
        category=fields.text("category", optional=True),
        duration_s=fields.duration_s(),
        location=location,
    )


def to_row(sample: VideoSample) -> dict[str, Any]:
    """Turn a sample into a row that `parse_row` reads back; optional fields without a value are left out."""
    kinds = [media.kind for media in sample.media]
    paths = [media.path for media in sample.media]
    row: dict[str, Any] = {
        "problem_id": sample.id,
        "problem": sample.problem,
        "data_type": "text" if not kinds else kinds[0] if len(set(kinds)) == 1 else kinds,
        "problem_type": sample.problem_type,
        "options": list(sample.options),
        "solution": f"<answer>{sample.answer}</answer>",
        "path": paths[0] if len(paths) == 1 else paths,
        "data_source": sample.data_source,
    }
    if sample.category:
        row["category"] = sample.category
    if sample.duration_s is not None:
        row["duration_s"] = sample.duration_s
    if sample.segments:
        row["segments"] = [
            {"start_s": segment.start_s, "end_s": segment.end_s, "caption": segment.caption}
            for segment in sample.segments
        ]
    if sample.process is not None:
        row["process"] = sample.process
    return row


class _Fields:
    """Reads the fields of one row, and knows how to complain about them."""

    def __init__(self, row: dict[str, Any], location: str) -> None:
        self.row = row
        self.location = location
        self.id = ""
        problem_id = row.get("problem_id")
        if isinstance(problem_id, bool) or not isinstance(problem_id, str | int) or not str(problem_id).strip():
            found = self.missing("problem_id") if problem_id is None else f"problem_id={brief(problem_id)}"
            raise self.error(found, "it is a text or a whole number, unique in its file", "add one")
        self.id = self.whole("problem_id", str(problem_id))

    def error(self, found: str, rule: str, fix: str) -> DataError:
        sample = f" (sample {self.id!r})" if self.id else ""
        return DataError(f"{self.location}: {printable(found)}{sample}; {rule}; {fix}.")

    def whole(self, key: str, text: str) -> str:
        """Give a text back if all its characters are characters."""
        if (found := unusable_character(text)) is not None:
            raise self.error(f"{key} holds {found}", "a text is valid Unicode without NUL", "write the text again")
        return text

    def missing(self, key: str) -> str:
        keys = printable(", ".join(map(str, self.row)))
        return f"no {key} among the fields {keys[:120] or '(none)'}"

    def text(self, key: str, *, optional: bool = False) -> str:
        value = self.row.get(key)
        if value is None and optional:
            return ""
        if not isinstance(value, str) or not (optional or not is_blank(value)):
            found = self.missing(key) if value is None else f"{key}={brief(value)}"
            raise self.error(
                found, f"{key} is a text" if optional else f"{key} is a text that is not empty", f"give the {key}"
            )
        return self.whole(key, value)

    def problem_type(self) -> ProblemType:
        name = self.text("problem_type")
        if name.lower() not in _PROBLEM_TYPE_OF:
            known = ", ".join(PROBLEM_TYPES)
            raise self.error(
                f"problem_type={name!r}", f"the types are {known}", "use the one whose scoring fits the answer"
            )
        return _PROBLEM_TYPE_OF[name.lower()]

    def solution(self) -> str:
        value = self.row.get("solution")
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not is_finite:
            found = self.missing("solution") if value is None else f"solution={brief(value)}"
            raise self.error(found, 'solution is the gold answer, "<answer>A</answer>" or bare', "give the solution")
        text = self.whole("solution", str(value))
        match = _SOLUTION.fullmatch(text)
        answer = match.group(1) if match else text
        if "<answer>" in answer or "</answer>" in answer:
            raise self.error(
                f"solution={brief(text)}", "it holds one answer, with at most one pair of answer tags", "fix it"
            )
        return answer.strip()

    def options(self, problem_type: ProblemType) -> tuple[str, ...]:
        value = self.row.get("options")
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(option, str) and option.strip() for option in value):
            raise self.error(f"options={brief(value)}", 'options is a list of texts like "A. milk"', "fix the list")
        if value and problem_type != "multiple choice":
            raise self.error(
                f"{len(value)} options with problem_type {problem_type!r}",
                'only "multiple choice" has options',
                "change the type or empty the options",
            )
        return tuple(self.whole(f"option {number}", option) for number, option in enumerate(value, start=1))

    def media(self) -> tuple[Media, ...]:
        path, kinds = self.row.get("path"), self.row.get("data_type")
        paths = [path] if isinstance(path, str) and path else path or []
        if not isinstance(paths, list) or not all(isinstance(item, str) and item.strip() for item in paths):
            raise self.error(
                f"path={brief(path)}", "path is a text, or a list of texts for several files", "fix the path"
            )
        paths = [self.whole("path", item) for item in paths]
        kinds = kinds if isinstance(kinds, list) else [kinds] * max(1, len(paths))
        if not kinds or not all(isinstance(kind, str) and kind in DATA_TYPES for kind in kinds):
            found = f"data_type={brief(self.row.get('data_type'))}"
            raise self.error(
                found, f"the types are {', '.join(DATA_TYPES)}, or a list of them, one for each path", "fix it"
            )
        if not paths and set(kinds) == {"text"}:
            return ()
        if len(kinds) != len(paths) or "text" in kinds:
            found = f"data_type={brief(self.row.get('data_type'))} with path={brief(path)}"
            raise self.error(found, "a video or image has a path each, a text has none", "make the two agree")
        return tuple(Media(cast(MediaKind, kind), item) for kind, item in zip(kinds, paths, strict=True))

    def segments(self) -> tuple[Segment, ...]:
        value = self.row.get("segments")
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.error(f"segments={brief(value)}", "segments is a list of objects", "fix the list")
        return tuple(self._segment(item, index) for index, item in enumerate(value, start=1))

    def _segment(self, item: object, index: int) -> Segment:
        fields: dict[str, Any] = item if isinstance(item, dict) else {}
        caption = fields.get("caption", "")
        if not (is_time(fields.get("start_s")) and is_time(fields.get("end_s")) and isinstance(caption, str)):
            found = f"segment {index} is {brief(item)}"
            raise self.error(found, "a segment is {start_s, end_s, caption} with seconds from 0", "fix the segment")
        start_s, end_s = float(fields["start_s"]), float(fields["end_s"])
        if start_s >= end_s:
            relation = "after" if start_s > end_s else "equal to"
            found = f"segment {index}: start_s={start_s} is {relation} end_s={end_s}"
            raise self.error(found, "a segment starts before it ends", "fix the segment or drop the row")
        return Segment(start_s, end_s, self.whole(f"the caption of segment {index}", caption))

    def duration_s(self) -> float | None:
        key = "duration" if self.row.get("duration_s") is None else "duration_s"
        value = self.row.get(key)
        if value is None:
            return None
        if not is_time(value) or value == 0:
            raise self.error(f"{key}={brief(value)}", "a duration is a number of seconds above 0", "fix or remove it")
        return float(value)


def is_time(value: object) -> TypeGuard[int | float]:
    """Say whether a decoded value is a finite number of seconds from 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
