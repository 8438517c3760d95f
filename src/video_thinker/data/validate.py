"""`video-thinker validate FILE … --media-root DIR`: check every row and every media file before a run.

Errors, which give exit code 1: a row that breaks the schema; a gold that does not score 1.0 against itself; a media
file that is missing, does not decode (its first, middle and last frame are decoded), or has fewer frames than a run
takes; a segment outside its video. Warnings: a reference trace that the format reward would refuse, multiple choice
without options, a stated duration that is not the file's.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from video_thinker.config import SAMPLING_KEYS, VideoArguments, add_video_flags
from video_thinker.data.annotations import check_rows
from video_thinker.data.conversation import build_target, media_path
from video_thinker.errors import DataError, DecodeError
from video_thinker.schema import Media, MediaKind, VideoSample
from video_thinker.scoring import score_answer
from video_thinker.trace import TIME_TOLERANCE_S, format_violations

if TYPE_CHECKING:
    from video_thinker.data.video import VideoInfo

Severity = Literal["error", "warning"]
# "train.json:12 (item 3)" splits into "train.json", "12", …, "3", …
_LOCATION_NUMBERS = re.compile(r":(\d+)$|:(\d+) \(item (\d+)\)$")

MediaFile = tuple[Path, MediaKind]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where ("file:line"), how bad, and what."""

    where: str
    severity: Severity
    message: str


@dataclass
class Report:
    """What a validation found. `durations_s` has one entry per distinct video that decodes, in seconds."""

    findings: list[Finding] = field(default_factory=list)
    samples: list[VideoSample] = field(default_factory=list)
    num_rows: int = 0
    num_media: int = 0
    media_checked: bool = True
    durations_s: list[float] = field(default_factory=list)

    def count(self, severity: Severity) -> int:
        """Count the findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def num_rows_ok(self) -> int:
        """Number of rows without an error."""
        bad = {finding.where for finding in self.findings if finding.severity == "error"}
        return sum(sample.location not in bad for sample in self.samples)


def validate(
    paths: Sequence[str | Path],
    media_root: str | Path,
    *,
    skip_media: bool = False,
    video: VideoArguments | None = None,
    workers: int = 4,
    progress: bool = False,
) -> Report:
    """Check annotation files and, unless `skip_media`, each media file they name once.

    Args:
        paths: The annotation files.
        media_root: Folder that the paths in them start from.
        skip_media: Open no media file.
        video: Decoder, time limit and sampling of the run to come; the defaults, if not given.
        workers: Media files opened at a time.
        progress: Show a progress bar.

    Raises:
        ConfigError: no video can meet the sampling, or there is no such decoder.
    """
    video = video or VideoArguments()
    report = Report(media_checked=not skip_media)
    for path in paths:
        _read_rows(path, report)
    durations_s: dict[MediaFile, float] = {}
    if not skip_media:
        users = _media_users(report.samples, media_root)
        infos = _open_all(list(users), video, workers, progress)
        report.num_media = len(users)
        report.findings += _media_findings(users, infos, video)
        durations_s = {
            file: info.duration_s for file, info in infos.items() if info and not isinstance(info, DecodeError)
        }
        report.durations_s = sorted(durations_s.values())
    for sample in report.samples:
        report.findings += check_sample(sample, _duration_s(sample, media_root, durations_s))
    return report


def check_sample(sample: VideoSample, duration_s: float | None = None) -> Iterator[Finding]:
    """Check what a row says against itself, and against its video's real duration in seconds where that is known."""
    gold = score_answer(sample.answer, sample)
    if gold.value != 1.0:
        rule = "it must be one of the options" if sample.options else "it must be readable by that type's rule"
        yield _finding(sample, "error", f"the gold {sample.answer!r} is no {sample.problem_type} answer: {rule}")
    if sample.problem_type == "multiple choice" and not sample.options:
        yield _finding(sample, "warning", "multiple choice without options: any letter counts as an answer")
    if duration_s is not None and sample.duration_s and abs(duration_s - sample.duration_s) > TIME_TOLERANCE_S:
        yield _finding(
            sample, "warning", f"the row says {sample.duration_s:g} s, the video lasts {duration_s:.2f} s; fix the row"
        )
    length_s = duration_s if duration_s is not None else sample.duration_s
    for index, segment in enumerate(sample.segments, start=1):
        if length_s is not None and (segment.start_s >= length_s or segment.end_s > length_s + TIME_TOLERANCE_S):
            span = f"{segment.start_s:g}-{segment.end_s:g} s"
            yield _finding(
                sample, "error", f"segment {index}, {span}, is outside the video of {length_s:.2f} s; fix or drop it"
            )
    if sample.process is not None and not sample.only_stills:
        for violation in format_violations(build_target(sample), length_s):
            yield _finding(sample, "warning", f"the trace in `process` breaks the format: {violation}")


def render(report: Report, console: Console, max_findings: int = 50) -> None:
    """Print the findings, the coverage and the durations as tables, and a verdict."""
    if report.findings:
        console.print(_findings_table(report, max_findings))
    hidden = len(report.findings) - max_findings
    if hidden > 0:
        console.print(f"… and {hidden} more findings (raise --max-findings to see them)")
    console.print(_coverage_table(report))
    if not report.media_checked:
        console.print("Media files were NOT checked (--skip-media): segments are compared with stated durations only.")
    errors, warnings = report.count("error"), report.count("warning")
    console.print(f"{'FAILED' if errors else 'OK'}: {errors} errors, {warnings} warnings in {report.num_rows} rows.")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 1 if there are errors."""
    parser = argparse.ArgumentParser(prog="video-thinker validate", description="Check annotation and media files.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="annotation files, JSON lists or JSONL")
    parser.add_argument("--media-root", help="folder that the paths in the files start from")
    parser.add_argument("--skip-media", action="store_true", help="check the rows only, open no media file")
    parser.add_argument("--workers", type=int, default=4, help="media files opened at a time (default 4)")
    parser.add_argument("--max-findings", type=int, default=50, help="findings shown (default 50; all are counted)")
    keys = ("video_backend", "media_timeout_s", *SAMPLING_KEYS)
    add_video_flags(parser.add_argument_group("video keys, as in the config of the run to come"), keys)
    args = parser.parse_args(argv)
    if args.media_root is None and not args.skip_media:
        parser.error("give --media-root DIR, or --skip-media to check the rows only")
    report = validate(
        args.files,
        args.media_root or "",
        skip_media=args.skip_media,
        video=VideoArguments(**{key: getattr(args, key) for key in keys}),
        workers=args.workers,
        progress=sys.stderr.isatty(),
    )
    # Piped output has no width of its own, and a file:line that is cut cannot be clicked or grepped.
    piped_width = 100 + max([60, *(len(finding.where) for finding in report.findings)])
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else piped_width
    render(report, Console(width=width, highlight=False), args.max_findings)
    return 1 if report.count("error") else 0


def _read_rows(path: str | Path, report: Report) -> None:
    try:
        for result in check_rows(path):
            report.num_rows += 1
            if isinstance(result, DataError):
                report.findings.append(_from_data_error(result))
            else:
                report.samples.append(result)
    except DataError as error:
        report.findings.append(_from_data_error(error))


def _from_data_error(error: DataError) -> Finding:
    where, _, message = str(error).partition(": ")
    return Finding(where, "error", message)


def _finding(sample: VideoSample, severity: Severity, message: str) -> Finding:
    return Finding(sample.location, severity, f"{message} (sample {sample.id!r})")


def _file(media: Media, media_root: str | Path) -> MediaFile:
    return media_path(media, media_root), media.kind


def _media_users(samples: Iterable[VideoSample], media_root: str | Path) -> dict[MediaFile, list[VideoSample]]:
    users: dict[MediaFile, list[VideoSample]] = {}
    for sample in samples:
        for media in sample.media:
            users.setdefault(_file(media, media_root), []).append(sample)
    return users


def _open_all(
    files: list[MediaFile], video: VideoArguments, workers: int, progress: bool
) -> dict[MediaFile, VideoInfo | DecodeError | None]:
    """Open each file once, several at a time. An image that decodes has no info: `None`."""
    from video_thinker.data.decoding.threads import map_files
    from video_thinker.data.images import load_image
    from video_thinker.data.video import VideoSampling, probe_video

    sampling = VideoSampling(**{key: getattr(video, key) for key in SAMPLING_KEYS})

    def open_one(file: MediaFile) -> VideoInfo | DecodeError | None:
        path, kind = file
        try:
            if kind == "video":
                return probe_video(path, backend=video.video_backend, timeout_s=video.media_timeout_s)
            load_image(path, sampling, timeout_s=video.media_timeout_s)
        except DecodeError as error:
            return error
        return None

    results = tqdm(map_files(open_one, files, workers), total=len(files), unit="file", disable=not progress)
    return dict(zip(files, results, strict=True))


def _media_findings(
    users: dict[MediaFile, list[VideoSample]],
    infos: dict[MediaFile, VideoInfo | DecodeError | None],
    video: VideoArguments,
) -> Iterator[Finding]:
    least = video.num_frames or video.min_frames
    option = "num_frames" if video.num_frames else "min_frames"
    for file, samples in users.items():
        info = infos[file]
        if isinstance(info, DecodeError):
            message = str(info)
        elif info is not None and info.num_frames < least:
            message = f"{file[0]}: too short: {info.num_frames} frames, a run takes at least {least} ({option})"
        else:
            continue
        yield from (_finding(sample, "error", message) for sample in samples)


def _duration_s(sample: VideoSample, media_root: str | Path, durations_s: dict[MediaFile, float]) -> float | None:
    """Duration of a sample's video; `None` with several, since its times say not which one they mean."""
    if len(sample.media) != 1:
        return None
    return durations_s.get(_file(sample.media[0], media_root))


def _findings_table(report: Report, max_findings: int) -> Table:
    table = Table("file:line", "severity", "finding", title="Findings", title_justify="left")
    table.columns[0].no_wrap = True
    for finding in sorted(report.findings, key=_order)[:max_findings]:
        color = "red" if finding.severity == "error" else "yellow"
        table.add_row(_escape(finding.where), f"[{color}]{finding.severity}[/]", _escape(finding.message))
    return table


def _order(finding: Finding) -> tuple[Severity, str, list[int]]:
    """Errors first, then by file, line and item."""
    file, *numbers = _LOCATION_NUMBERS.split(finding.where)
    return finding.severity, file, [int(number) for number in numbers if number]


def _coverage_table(report: Report) -> Table:
    table = Table("what", "count", title="Coverage", title_justify="left")
    samples = report.samples
    table.add_row("rows", str(report.num_rows))
    table.add_row("rows without errors", str(report.num_rows_ok))
    table.add_row("with segments", str(sum(bool(sample.segments) for sample in samples)))
    table.add_row("with process (a trace)", str(sum(sample.process is not None for sample in samples)))
    keys: dict[str, Callable[[VideoSample], str]] = {
        "problem_type": lambda sample: sample.problem_type,
        "data_type": lambda sample: " + ".join(sorted({media.kind for media in sample.media})) or "text",
        "data_source": lambda sample: sample.data_source or "(none)",
    }
    for name, key in keys.items():
        for value, count in sorted(Counter(map(key, samples)).items()):
            table.add_row(_escape(f"{name}: {value}"), str(count))
    table.add_row("media files", str(report.num_media) if report.media_checked else "not checked")
    if report.durations_s:
        shortest, middle, longest = (f(report.durations_s) for f in (min, statistics.median, max))
        table.add_row("video seconds (min / median / max)", f"{shortest:.1f} / {middle:.1f} / {longest:.1f}")
    return table


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    sys.exit(main())
