"""The words everyone shares: samples, segments, traces and scores. Runs without torch.

One raw item of a data file (the schema of Video-Thinker and Video-R1; `segments` is optional, `process` is for SFT):

    {"problem_id": "v_0031-2", "problem": "What is poured after the eggs?", "data_type": "video",
     "problem_type": "multiple choice", "options": ["A. milk", "B. oil"], "solution": "<answer>A</answer>",
     "path": "cooking/v_0031.mp4", "data_source": "youcook2",
     "segments": [{"start_s": 4.0, "end_s": 9.5, "caption": "Milk is poured into the bowl."}],
     "process": "I look for the eggs. <time>00:02-00:04</time> <caption>...</caption> <think>...</think> So milk."}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MediaKind = Literal["video", "image"]
ProblemType = Literal["multiple choice", "numerical", "OCR", "free-form", "regression", "grounding"]

PROBLEM_TYPES: tuple[ProblemType, ...] = (
    "multiple choice",
    "numerical",
    "OCR",
    "free-form",
    "regression",
    "grounding",  # Video-R1 has the first five
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of a video, in seconds from its first frame, with what is seen there."""

    start_s: float
    end_s: float
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Media:
    """One video or image file of a sample. `path` is absolute or relative to the media root."""

    kind: MediaKind
    path: str


@dataclass(frozen=True, slots=True)
class VideoSample:
    """One question on some media, with its gold answer.

    `answer` is the bare gold ("A", "3.5", "a red car", "4.0-9.5"), without the `<answer>` tags of the raw `solution`.
    `options` are as in the file ("A. milk"); empty unless `problem_type` is "multiple choice".
    `media` is usually one video; an empty tuple is a text-only sample.
    `category` is the benchmark's own kind of question ("Time Cognition"), by which figures can be broken down.
    `location` is "file:line", for a JSON list "file:line (item N)", for error messages.
    """

    id: str
    problem: str
    problem_type: ProblemType
    answer: str
    options: tuple[str, ...] = ()
    media: tuple[Media, ...] = ()
    segments: tuple[Segment, ...] = ()
    process: str | None = None
    data_source: str = ""
    category: str = ""
    duration_s: float | None = None
    location: str = ""

    @property
    def only_stills(self) -> bool:
        """Whether the sample shows images and no video, so that there is no timeline to speak of."""
        return bool(self.media) and all(media.kind == "image" for media in self.media)


@dataclass(frozen=True, slots=True)
class TraceBlock:
    """One `<time>…</time> <caption>…</caption> <think>…</think>` block; times in seconds."""

    start_s: float
    end_s: float
    caption: str
    think: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A completion, parsed: the moments the model looked at, and its answer (`None` if it gave none)."""

    blocks: tuple[TraceBlock, ...]
    answer: str | None
    reasoning: str = ""


ScoreStatus = Literal["correct", "wrong", "partial", "unanswered", "unscorable"]


@dataclass(frozen=True, slots=True)
class Score:
    """How an answer compares with the gold.

    `value` is in [0, 1]; `None` means the gold itself cannot be used ("unscorable"), which is never counted as wrong.
    "unanswered" (no parsable answer) has value 0.0 but is told apart from "wrong".
    """

    value: float | None
    status: ScoreStatus
