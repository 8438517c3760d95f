"""`video-thinker validate FILE … --media-root DIR [key=value …]`: check every row and every media file before a run.

Rows are checked by `annotations.check_rows` (their form) and `checks.check_sample` (what they say). A media file is
decoded, sampled and resized as a run with the same video keys would do it. Errors give exit code 1; see data/README.md
for the list. Findings of one kind are counted and shown together.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from video_thinker.config import (
    DataArguments,
    VideoArguments,
    make_arguments,
    read_overrides,
    read_part,
)
from video_thinker.data.annotations import check_rows
from video_thinker.data.checks import Finding, Severity, check_sample, finding_of
from video_thinker.data.headers import MediaFile
from video_thinker.data.media_checks import MediaState, length_findings, media_file, media_findings, media_users
from video_thinker.data.texts import SpecialTokens
from video_thinker.diagnostics.flags import VIDEO_KEYS, validate_parser
from video_thinker.errors import ConfigError, DataError, DecodeError
from video_thinker.schema import VideoSample

# "train.json:12 (item 3)" splits into "train.json", "12", …, "3", …
_LOCATION_NUMBERS = re.compile(r":(\d+)$|:(\d+) \(item (\d+)\)$")


@dataclass
class ValidateArguments(DataArguments):
    """The keys of a run that decide which rows it reads, and what it takes of their media."""

    model_name_or_path: str = field(
        default="", metadata={"help": "Checkpoint whose special tokens and patch size count; none: Qwen2.5-VL's."}
    )
    splits: dict[str, Any] | str | None = field(default=None, metadata={"help": "Name -> items file of an evaluation."})
    items_file: str = field(default="", metadata={"help": "Items of `difficulty`."})
    max_length: int | None = field(default=None, metadata={"help": "Longest prompt + trace in tokens, of SFT."})
    max_prompt_length: int | None = field(default=None, metadata={"help": "Longest prompt in tokens, of GRPO."})

    def files(self) -> list[str]:
        """List the annotation files that the run would read."""
        splits = list(self.splits.values()) if isinstance(self.splits, dict) else []
        return [str(file) for file in (self.train_file, self.eval_file, self.items_file, *splits) if file]


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """What the checks need of a model: its special tokens, and what both sides of a frame are multiples of."""

    tokens: SpecialTokens = SpecialTokens()
    resize_factor: int = 28
    check_length: Callable[[VideoSample, int], None] | None = None
    """Raises `DataError` if a sample with so many vision tokens is longer than a run allows."""


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
    model: ModelTraits | None = None,
    workers: int = 4,
    progress: bool = False,
) -> Report:
    """Check annotation files and, unless `skip_media`, each media file they name once.

    Args:
        paths: Annotation files.
        media_root: Folder that the rows' paths are relative to.
        skip_media: Open no media file.
        video: What the run takes of a video; default: what a run takes by default.
        model: The model's tokens and patch size; default: those of Qwen2.5-VL.
        workers: Media files opened at a time.
        progress: Show a progress bar.

    Raises:
        ConfigError: no video can meet the sampling, or the video backend is not there.
    """
    report = Report(media_checked=not skip_media)
    model = model or ModelTraits()
    for path in paths:
        _read_rows(path, report)
    durations_s: dict[MediaFile, float] = {}
    if not skip_media:
        users = media_users(report.samples, media_root)
        states = _open_all(list(users), video or VideoArguments(), model.resize_factor, workers, progress)
        report.num_media = len(users)
        report.findings += media_findings(users, states)
        if model.check_length is not None:
            report.findings += length_findings(report.samples, media_root, states, model.check_length)
        durations_s = {file: state.duration_s for file, state in states.items() if state.duration_s is not None}
        report.durations_s = sorted(durations_s.values())
    for sample in report.samples:
        report.findings += check_sample(sample, _duration_s(sample, media_root, durations_s), model.tokens)
    return report


def render(report: Report, console: Console, max_findings: int = 5) -> None:
    """Print the findings by kind with the first `max_findings` places of each, coverage and durations, a verdict."""
    if report.findings:
        console.print(_findings_table(report, max_findings))
    console.print(_coverage_table(report))
    if not report.media_checked:
        console.print("Media files were NOT checked (--skip-media): segments are compared with stated durations only.")
    errors, warnings = report.count("error"), report.count("warning")
    console.print(f"{'FAILED' if errors else 'OK'}: {errors} errors, {warnings} warnings in {report.num_rows} rows.")


def read_arguments(args: argparse.Namespace) -> tuple[list[str], ValidateArguments, bool]:
    """Combine the config, the overrides and the flags; the last win.

    Returns:
        The files to check, the keys, and whether a media root is given.

    Raises:
        ConfigError: a key is unknown, a value is wrong, or there is nothing to check.
    """
    overrides = [item for item in args.files if "=" in item and not Path(item).exists()]
    files = [item for item in args.files if item not in overrides]
    values = read_part([ValidateArguments], args.config) if args.config else {}
    values |= read_overrides([ValidateArguments], overrides)
    flags = {"media_root": args.media_root, "model_name_or_path": args.model}
    values |= {key: value for key, value in flags.items() if value is not None}
    values |= {key: value for key, value in vars(args).items() if key in VIDEO_KEYS}
    if "min_frames" in vars(args) and "max_frames" not in values:
        values["max_frames"] = max(args.min_frames, VideoArguments.max_frames)
    keys = ValidateArguments()
    if values:
        (keys,) = make_arguments([ValidateArguments], values, f"{args.config or 'validate'} with {overrides}")
    if not (files or keys.files()):
        raise ConfigError("name the annotation files to check, or give --config with a config that names them.")
    return files or keys.files(), keys, "media_root" in values


def read_model(keys: ValidateArguments) -> ModelTraits:
    """Read what the checks need of a checkpoint; nothing is loaded but its processor.

    Raises:
        ConfigError: there is no such checkpoint.
    """
    if not keys.model_name_or_path:
        return ModelTraits()
    from video_thinker.data.row_rules import RowRules
    from video_thinker.models.loading import load_encoder

    encoder = load_encoder(keys.model_name_or_path, keys)

    def check_length(sample: VideoSample, num_vision: int) -> None:
        for has_trace, limit, option in (
            (sample.process is not None, keys.max_length, "max_length"),
            (False, keys.max_prompt_length, "max_prompt_length"),
        ):
            RowRules(has_trace, limit, option).check_length(sample, encoder, num_vision)

    return ModelTraits(encoder.special_tokens, encoder.resize_factor, check_length)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 1 if there are errors."""
    args = validate_parser().read(argv)
    files, keys, has_media_root = read_arguments(args)
    if not has_media_root and not args.skip_media:
        raise ConfigError("give --media-root DIR, or --skip-media to check the rows only.")
    report = validate(
        files,
        keys.media_root,
        skip_media=args.skip_media,
        video=keys,
        model=read_model(keys),
        workers=args.workers,
        progress=sys.stderr.isatty(),
    )
    # Piped output has no width of its own, and a file:line that is cut cannot be clicked or grepped.
    piped_width = 140 + max([60, *(len(finding.where) for finding in report.findings)])
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else piped_width
    render(report, Console(width=width, highlight=False), args.max_findings)
    return 1 if report.count("error") else 0


def _read_rows(path: str | Path, report: Report) -> None:
    try:
        for result in check_rows(path):
            report.num_rows += 1
            if isinstance(result, DataError):
                report.findings.append(finding_of(result))
            else:
                report.samples.append(result)
    except DataError as error:
        report.findings.append(finding_of(error))


def _open_all(
    files: list[MediaFile], args: VideoArguments, resize_factor: int, workers: int, progress: bool
) -> dict[MediaFile, MediaState]:
    """Decode each file once, as a run would, several at a time."""
    from video_thinker.data.decoding.threads import map_files
    from video_thinker.data.images import load_image
    from video_thinker.data.media import video_sampling
    from video_thinker.data.readers import resolve_backend
    from video_thinker.data.video import load_video

    sampling, backend, timeout_s = video_sampling(args), resolve_backend(args.video_backend), args.media_timeout_s

    def open_one(file: MediaFile) -> MediaState:
        path, kind = file
        try:
            if kind == "image":
                image = load_image(path, sampling, factor=resize_factor, timeout_s=timeout_s)
                return MediaState(num_tokens=image[0].numel() // resize_factor**2)
            video = load_video(path, sampling, backend=backend, factor=resize_factor, timeout_s=timeout_s)
            return MediaState(video.duration_s, video.frames[::2, 0].numel() // resize_factor**2)
        except DecodeError as error:
            return _cut_off(path, backend, timeout_s) or MediaState(error=str(error))

    results = tqdm(map_files(open_one, files, workers), total=len(files), unit="file", disable=not progress)
    return dict(zip(files, results, strict=True))


def _cut_off(path: Path, backend: str, timeout_s: float | None) -> MediaState | None:
    """Say how much of half a Matroska download can be read; `None` if `path` is none.

    What is there of the file may be all that is wanted, so this is a warning, though a run refuses the file as it is.
    """
    from video_thinker.data.video import probe_video

    if path.suffix.lower() not in (".mkv", ".webm"):
        return None
    try:
        info = probe_video(path, backend=backend, timeout_s=timeout_s)
    except DecodeError:
        return None  # the error of the run's own reading is told
    if not info.difference:
        return None
    return MediaState(info.duration_s, warning=f"{path}: {info.difference}; a run refuses it as it is")


def _duration_s(sample: VideoSample, media_root: str | Path, durations_s: dict[MediaFile, float]) -> float | None:
    """Duration of a sample's video; `None` with several, since its times say not which one they mean."""
    if len(sample.media) != 1:
        return None
    return durations_s.get(media_file(sample.media[0], media_root))


def _findings_table(report: Report, max_places: int) -> Table:
    """List the kinds of findings, errors first, each with its number of rows and its first places."""
    kinds: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in sorted(report.findings, key=_order):
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    table = Table("severity", "rows", "file:line", "finding", title="Findings", title_justify="left")
    table.columns[2].no_wrap = True
    for (severity, kind), findings in kinds.items():
        color = "red" if severity == "error" else "yellow"
        num_rows = len({finding.where for finding in findings})
        table.add_section()
        table.add_row(f"[{color}]{severity}[/]", str(num_rows), "", f"[bold]{_escape(kind)}[/]")
        for finding in findings[: max(1, max_places)]:
            table.add_row("", "", _escape(finding.where), _escape(finding.message))
        if len(findings) > max(1, max_places):
            more = len(findings) - max(1, max_places)
            table.add_row("", "", f"… and {more} more", "[dim](raise --max-findings to see them)[/]")
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
