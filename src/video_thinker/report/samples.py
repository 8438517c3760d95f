"""Results -> what the page's script draws, as JSON values: samples, predictions, strips and curves."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from video_thinker.data.conversation import media_path
from video_thinker.evaluation.scored import Result, status_of
from video_thinker.grounding import mean_best_iou, temporal_iou
from video_thinker.report.curves import make_panels
from video_thinker.report.strips import Strip
from video_thinker.report.timeline import SEGMENT_COLORS, assign_lanes, on_color, tick_step
from video_thinker.runs.predictions import Graded
from video_thinker.runs.reading import TrainingRun, variant_of
from video_thinker.schema import Media, TraceBlock, VideoSample
from video_thinker.scoring import extract_choice, option_letters
from video_thinker.trace import format_violations, parse_trace, untagged_prose

LOST_IOU = 0.3
"""A sample has lost its grounding if it has gold segments and a lower mean best IoU with them: the lowest of R@K."""


Place = tuple[Path, Media]
"""A media file: the folder that its path is relative to, and what the items call it."""


@dataclass(frozen=True)
class Shown:
    """Which samples the page shows of a split: `samples`, out of `total`; their media are under `media_root`."""

    split: str
    samples: Sequence[VideoSample]
    total: int
    media_root: Path

    def places(self, sample: VideoSample) -> list[Place]:
        """Say where the media of a sample are."""
        return [(self.media_root, media) for media in sample.media]


def choose_samples(
    items: Mapping[str, Sequence[VideoSample]], roots: Mapping[str, Path], max_samples: int
) -> list[Shown]:
    """Choose at most `max_samples` of each split, evenly spaced, since files are often sorted by video or category."""
    shown = []
    for split, samples in items.items():
        count = min(len(samples), max_samples)
        chosen = [samples[i * len(samples) // count] for i in range(count)]
        shown.append(Shown(split, chosen, len(samples), roots[split]))
    return shown


def page_data(
    results: Sequence[Result],
    trainings: Sequence[TrainingRun],
    shown: Sequence[Shown],
    strips: Mapping[Place, Strip],
    folder: Path,
) -> dict[str, Any]:
    """Collect all that the script draws, on a page that will lie in `folder`.

    `entries` are the models under their variants, in the order of the runs; `main` are the numbers of those on the real
    videos. A sample's `media` and the keys of its `predictions` are numbers of `media` and `entries`.
    """
    entries = list(dict.fromkeys(result.entry for result in results))
    numbers = {place: number for number, place in enumerate(strips)}
    samples = []
    for one in shown:
        graded_by = {entries.index(r.entry): r.graded for r in results if r.split == one.split}
        for sample in one.samples:
            graded = {entry: graded[sample.id] for entry, graded in graded_by.items() if sample.id in graded}
            places = one.places(sample)
            values = describe_sample(sample, graded, [strips[place] for place in places])
            samples.append({**values, "split": one.split, "media": [numbers[place] for place in places]})
    return {
        "entries": entries,
        "main": sorted({entries.index(r.entry) for r in results if not variant_of(r.key)}),
        "splits": [one.split for one in shown],
        "lost_iou": LOST_IOU,
        "colors": [{"fill": color, "ink": on_color(color)} for color in SEGMENT_COLORS],
        "media": [
            {**dataclasses.asdict(strip), "kind": media.kind, "url": media_url(media, root, folder)}
            for (root, media), strip in strips.items()
        ],
        "samples": samples,
        "training": [make_panels(run) for run in trainings],
    }


def media_url(media: Media, root: Path, folder: Path) -> str | None:
    """Address a media file from a page in `folder`, relative to it; `None` if the file is not there."""
    path = media_path(media, root)
    return quote(os.path.relpath(path.resolve(), folder.resolve())) if path.is_file() else None


def describe_sample(sample: VideoSample, graded: Mapping[int, Graded], strips: Sequence[Strip]) -> dict[str, Any]:
    """Say all that the page shows of one sample: the question, its gold, and the predictions by entry number."""
    duration_s = axis_duration(sample, graded.values(), strips)
    return {
        "id": sample.id,
        "problem": sample.problem,
        "options": list(sample.options),
        "answer": sample.answer,
        "gold": choice_index(sample.answer, sample),
        "category": sample.category or sample.data_source,
        "duration": duration_s,
        "tick": tick_step(duration_s) if duration_s else None,
        "segments": _on_axis(
            [TraceBlock(gold.start_s, gold.end_s, gold.caption, "") for gold in sample.segments], duration_s
        ),
        "predictions": {entry: describe_prediction(one, duration_s) for entry, one in graded.items()},
    }


def axis_duration(sample: VideoSample, graded: Iterable[Graded], strips: Sequence[Strip]) -> float | None:
    """Length of a sample's time axis in seconds; `None` for one without exactly one video.

    It is that of the file, else as predicted on, else as in the items, else up to the last segment anyone names.
    """
    if [media.kind for media in sample.media] != ["video"]:
        return None
    graded = list(graded)
    known = [strips[0].duration_s, *(one.prediction.duration_s for one in graded), sample.duration_s]
    ends = [span.end_s for one in graded for span in one.blocks] + [span.end_s for span in sample.segments]
    return next((duration_s for duration_s in known if duration_s), max(ends, default=None))


def describe_prediction(graded: Graded, duration_s: float | None) -> dict[str, Any]:
    """Say all that the page shows of one prediction; `moments` are in the order of the text."""
    prediction, sample = graded.prediction, graded.sample
    trace = parse_trace(prediction.completion)
    miou = mean_best_iou(graded.blocks, sample.segments)
    moments = _on_axis(graded.blocks, duration_s)
    for moment, block in zip(moments, graded.blocks, strict=True):
        moment["iou"] = max((temporal_iou(block, gold) for gold in sample.segments), default=None)
    return {
        "status": status_of(graded),
        "unread": why_unanswered(graded),
        "score": graded.score.value if graded.score else None,
        "answer": graded.answer,
        "choice": choice_index(graded.answer, sample),
        "completion": prediction.completion,
        "reasoning": trace.reasoning if trace else "",
        "moments": moments,
        "miou": miou,
        "lost": graded.score is not None and miou is not None and miou < LOST_IOU,
        "violations": format_violations(prediction.completion, prediction.duration_s) if graded.score else [],
        "num_tokens": prediction.num_tokens,
        "finished": prediction.finished,
        "error": prediction.error,
    }


def why_unanswered(graded: Graded) -> str | None:
    """Tell an answer that is not among the options from one that cannot be read, and from none; `None` if it counts.

    Prose without a marked answer ("I cannot see it") is one that cannot be read.
    """
    if graded.score is None or graded.score.status != "unanswered":
        return None
    if not graded.answer:
        return "none"
    is_marked = graded.answer != untagged_prose(graded.prediction.completion).strip()
    return "no option" if is_marked and graded.sample.problem_type == "multiple choice" else "unreadable"


def _on_axis(blocks: Sequence[TraceBlock], duration_s: float | None) -> list[dict[str, Any]]:
    """Describe segments; `row` is the one under the frames, `None` where a segment lies outside of the video."""
    lanes = assign_lanes(blocks, duration_s) if duration_s else [None] * len(blocks)
    return [
        {
            "start": block.start_s,
            "end": block.end_s,
            "caption": block.caption,
            "think": block.think,
            "row": lane.row if lane else None,
        }
        for block, lane in zip(blocks, lanes, strict=True)
    ]


def choice_index(answer: str | None, sample: VideoSample) -> int | None:
    """Index of the option that an answer names, or `None`."""
    letters = list(option_letters(sample.options))
    choice = extract_choice(answer, sample.options) if answer and letters else None
    return letters.index(choice) if choice in letters else None
