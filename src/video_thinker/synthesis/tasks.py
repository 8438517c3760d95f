"""Raw files -> tasks: one for each question to be made, on a video that can be used; and what was dropped, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from video_thinker.data.checks import check_sample
from video_thinker.datasets import SOURCES
from video_thinker.datasets.annotated import Annotation, CaptionedVideo
from video_thinker.datasets.base import Note
from video_thinker.errors import DataError, DecodeError
from video_thinker.schema import VideoSample
from video_thinker.scoring import options_are_lettered
from video_thinker.synthesis.arguments import SourceFile, SynthesisArguments
from video_thinker.synthesis.frames import VideoFile, VideoFolder
from video_thinker.synthesis.letters import LetterPlan, Letters, place_answer


@dataclass(frozen=True, slots=True)
class Task:
    """One sample to be made. `letters` is the plan for a question that has yet to be written, else `None`."""

    id: str
    source: str
    annotation: Annotation
    video: VideoFile
    letters: Letters | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class Dropped:
    """What is not used: an annotation row or a video; or, of kind "note", what was changed in a row that is used."""

    source: str
    kind: str
    reason: str
    id: str = ""


@dataclass
class Plan:
    """All tasks in the order of the raw files."""

    tasks: list[Task] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An annotation under its source's name, with what is planned for it before any video is opened."""

    id: str
    source: str
    annotation: Annotation
    place: tuple[str, str]
    letters: Letters | None
    number: int


def plan_tasks(args: SynthesisArguments, folder: VideoFolder) -> Plan:
    """Read the sources, plan letters, open the videos, and drop what cannot be used.

    Raises:
        DataError: a file cannot be read at all.
    """
    plan = Plan()
    entries = _without_doubles(_entries(args, args.source_files(), plan), plan)
    videos = folder.open_all([entry.place for entry in entries])
    seen_videos: set[tuple[str, str]] = set()
    for entry, video in zip(entries, videos, strict=True):
        if isinstance(video, DecodeError):
            if (entry.source, str(video)) not in seen_videos:
                plan.dropped.append(Dropped(entry.source, "video", str(video), entry.id))
            seen_videos.add((entry.source, str(video)))
            continue
        annotation = _on_video(entry.annotation, video)
        reason = unusable_reason(annotation, video)
        if reason:
            plan.dropped.append(Dropped(entry.source, "row", f"{annotation.location}: {reason}", entry.id))
        else:
            plan.tasks.append(Task(entry.id, entry.source, annotation, video, entry.letters, entry.number))
    return plan


def _without_doubles(entries: Iterable[_Entry], plan: Plan) -> list[_Entry]:
    """Leave out entries whose id another one has: two source names with one file, "v-q1" beside question 1 of "v"."""
    kept: dict[str, _Entry] = {}
    for entry in entries:
        first = kept.setdefault(entry.id, entry)
        if first is not entry:
            where = f"{entry.annotation.location} ({entry.source})"
            reason = f"{where}: its id {entry.id!r} is that of {first.annotation.location} ({first.source}); left out"
            plan.dropped.append(Dropped(entry.source, "row", reason, entry.id))
    return list(kept.values())


def unusable_reason(annotation: Annotation, video: VideoFile) -> str | None:
    """Say why no sample can be made of an annotation on this video; `None` if one can."""
    if isinstance(annotation, CaptionedVideo):
        captioned = [segment for segment in annotation.segments if segment.caption]
        if len(captioned) < 2:
            return f"{len(captioned)} captioned segments; a question needs at least two; left out"
        probe = VideoSample(annotation.id, "captions", "free-form", "captions", segments=annotation.segments)
    else:
        probe = annotation
        if annotation.problem_type != "multiple choice" or not annotation.options:
            return (
                f"a {annotation.problem_type} question without options; only multiple choice is synthesized; left out"
            )
        if len({option.casefold() for option in annotation.options}) < len(annotation.options):
            return "two options are the same; left out"
        if not annotation.segments:
            return "no gold segments; a trace needs at least one; left out"
    errors = [finding.message for finding in check_sample(probe, video.duration_s) if finding.severity == "error"]
    return errors[0] if errors else None


def _entries(args: SynthesisArguments, sources: Mapping[str, SourceFile], plan: Plan) -> Iterable[_Entry]:
    letters = LetterPlan(args.seed)
    counts = list(range(args.min_options, args.max_options + 1))
    first_use: dict[str, str] = {}
    num_written = 0
    for name, source in sources.items():
        for annotation in _annotations(name, source, plan):
            first = first_use.setdefault(annotation.id, annotation.location)
            if first != annotation.location:
                reason = f"{annotation.location}: its id {annotation.id!r} was already used at {first}; left out"
                plan.dropped.append(Dropped(name, "row", reason, annotation.id))
            elif isinstance(annotation, CaptionedVideo):
                place = (source.videos, annotation.path)
                for number in range(1, args.questions_per_video + 1):
                    deal = letters.deal(counts[num_written % len(counts)])
                    num_written += 1
                    suffix = f"-q{number}" if args.questions_per_video > 1 else ""
                    yield _Entry(annotation.id + suffix, name, annotation, place, deal, number)
            else:
                sample = _lettered(annotation, letters) if args.letter_options else annotation
                yield _Entry(sample.id, name, sample, (source.videos, sample.media[0].path), None, 1)


def _annotations(name: str, source: SourceFile, plan: Plan) -> Iterable[Annotation]:
    count = 0
    for row in SOURCES[source.source](Path(source.file)):
        if isinstance(row, DataError):
            plan.dropped.append(Dropped(name, "row", str(row)))
        elif isinstance(row, Note):
            plan.dropped.append(Dropped(name, "note", row.message))
        else:
            if count == source.num_rows:
                return
            count += 1
            yield row


def _lettered(sample: VideoSample, letters: LetterPlan) -> VideoSample:
    """Letter bare options, with the answer where the plan wants it; lettered options stay as they are."""
    if not sample.options or options_are_lettered(sample.options) or sample.answer not in sample.options:
        return sample
    options, answer = place_answer(sample.options, sample.answer, letters.deal(len(sample.options)).position)
    return dataclasses.replace(sample, options=options, answer=answer)


def _on_video(annotation: Annotation, video: VideoFile) -> Annotation:
    """Give an annotation the real path and length of its video."""
    duration_s = round(video.duration_s, 3)
    if isinstance(annotation, CaptionedVideo):
        return dataclasses.replace(annotation, path=video.path, duration_s=duration_s)
    media = dataclasses.replace(annotation.media[0], path=video.path)
    return dataclasses.replace(annotation, media=(media,), duration_s=duration_s)


def count_dropped(dropped: Sequence[Dropped]) -> dict[str, dict[str, int]]:
    """Count what was dropped by source and kind."""
    counts: dict[str, dict[str, int]] = {}
    for one in dropped:
        by_kind = counts.setdefault(one.source, {})
        by_kind[one.kind] = by_kind.get(one.kind, 0) + 1
    return counts
