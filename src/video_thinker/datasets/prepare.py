"""`video-thinker prepare NAME --raw FILE [--media-root DIR] --out FILE`: a benchmark's official file -> items.

What the official scorer can grade is kept, and what is odd about it is noted. A question that nobody can grade is
refused: it is printed with its reason, counted, and listed with all notes beside the items (items.notes.txt for
items.json); the others are written and the exit code is 0. `--strict` writes nothing if a question is refused,
`--allow-errors N` if more than N are. `video-thinker prepare --list` names the benchmarks.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from video_thinker.data.annotations import to_row
from video_thinker.data.conversation import media_path
from video_thinker.datasets import BENCHMARKS
from video_thinker.datasets.conversion import Conversion, convert_file
from video_thinker.datasets.flags import prepare_parser
from video_thinker.datasets.published import NUM_ITEMS
from video_thinker.errors import ConfigError
from video_thinker.runs.files import write_text
from video_thinker.schema import VideoSample

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg")


@dataclass(frozen=True)
class MediaSearch:
    """Items with the paths of the files that are there, and what was looked for in vain, by path."""

    samples: list[VideoSample]
    missing: dict[str, str]


def find_media(samples: Sequence[VideoSample], media_root: str | Path) -> MediaSearch:
    """Look for each item's video under the media root: at its path, else by its file name without suffix.

    Benchmarks name their videos by id and leave folders and suffixes to the user. Of several files of a name, the one
    whose folders are most like the path's counts ("videos/Art/0.mp4" for "Art/0.mp4"); where that does not tell them
    apart the video is missing: which one is meant is not guessed.
    """
    root = Path(media_root)
    if not root.is_dir():
        raise ConfigError(f"--media-root {root}: no such folder; give the folder of the videos, or leave it out.")
    by_stem: dict[str, list[str]] = defaultdict(list)
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            if name.lower().endswith(VIDEO_SUFFIXES):
                by_stem[Path(name).stem].append(Path(folder, name).relative_to(root).as_posix())
    missing: dict[str, str] = {}

    def locate(path: str) -> str:
        found = _most_alike(path, by_stem.get(PurePosixPath(path).stem, []))
        if len(found) != 1:
            missing[path] = (
                f"{len(found)} files have its name: {', '.join(sorted(found)[:3])}" if found else "not found"
            )
            return path
        return found[0]

    located = []
    for sample in samples:
        media = tuple(
            item
            if media_path(item, root).is_file() or item.kind != "video"
            else dataclasses.replace(item, path=locate(item.path))
            for item in sample.media
        )
        located.append(dataclasses.replace(sample, media=media))
    return MediaSearch(located, missing)


def _most_alike(path: str, found: Sequence[str]) -> list[str]:
    """Return the files that share the most folders with a path, counted from the file upwards."""

    def num_shared(file: str) -> int:
        pairs = zip(PurePosixPath(path).parts[-2::-1], PurePosixPath(file).parts[-2::-1], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(num_shared, found), default=0)
    return [file for file in found if num_shared(file) == most]


def write_items(samples: Sequence[VideoSample], path: str | Path) -> None:
    """Write items as JSONL if the name ends in .jsonl, else as a JSON list; a kill leaves no half file."""
    path = Path(path)
    rows = [to_row(sample) for sample in samples]
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    write_text(path, text)


def write_notes(conversion: Conversion, missing: dict[str, str], items_path: str | Path) -> Path | None:
    """List what was refused, noted and not found in ITEMS.notes.txt beside the items; return its path.

    Without any, there is no such file, and one of an earlier run is removed.
    """
    path = Path(items_path).with_suffix(".notes.txt")
    lines = [f"refused {error}" for error in conversion.errors] + [f"note {note}" for note in conversion.notes]
    lines += [f"missing {name}: {why}" for name, why in missing.items()]
    if not lines:
        path.unlink(missing_ok=True)
        return None
    counts = [f"{count} x {kind}" for kind, count in conversion.note_counts.most_common()]
    head = f"# {len(conversion.errors)} refused, {len(conversion.notes)} notes, {len(missing)} videos missing"
    write_text(path, "\n".join([head, *(f"# {count}" for count in counts), *lines]) + "\n")
    return path


def main(argv: list[str]) -> int:
    """Convert a file; exit code 1 if there is nothing to write, or more questions than allowed were refused."""
    args = prepare_parser().read(argv)
    if args.list or args.name is None:
        _console().print(_benchmarks_table())
        return 0
    conversion = convert_file(BENCHMARKS[args.name], args.raw, args.subset)
    media = find_media(conversion.samples, args.media_root) if args.media_root else None
    if media:
        conversion.samples = media.samples
    console = _console()
    _print_findings(console, conversion, media, args.max_findings)
    console.print(_summary(args, conversion, media))
    for remark in BENCHMARKS[args.name].remarks:
        console.print(f"Remark: {remark}")
    refused = len(conversion.errors)
    if args.allow_errors is not None and refused > args.allow_errors:
        console.print(
            f"FAILED: {refused} questions were refused and nothing was written. Repair the rows, or leave out "
            "--strict (--allow-errors) to write the others."
        )
        return 1
    if not conversion.samples:
        console.print("FAILED: there is nothing to write.")
        return 1
    if media and media.missing:
        console.print("Items whose video is missing are kept: an evaluation counts them as failed, never as wrong.")
    write_items(conversion.samples, args.out)
    notes = write_notes(conversion, media.missing if media else {}, args.out)
    written = f"Wrote {len(conversion.samples)} items to {args.out}" + (f"; see {notes}" if notes else "")
    console.print(escape(written), soft_wrap=True)
    root = args.media_root or "DIR"
    console.print(escape(f"Next: video-thinker validate {args.out} --media-root {root}"), soft_wrap=True)
    if refused:
        console.print(f"{refused} questions were refused: the figures are on the others.")
    return 0


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)


def _benchmarks_table() -> Table:
    table = Table("name", "subsets", "official file", title="Benchmarks", title_justify="left")
    for name, benchmark in sorted(BENCHMARKS.items()):
        table.add_row(name, ", ".join(benchmark.subsets), escape(benchmark.file))
    return table


def _print_findings(console: Console, conversion: Conversion, media: MediaSearch | None, max_findings: int) -> None:
    missing = [f"{path}: {why}" for path, why in media.missing.items()] if media else []
    for word, color, findings in (
        ("refused", "red", conversion.errors),
        ("note", "yellow", conversion.notes),
        ("missing", "yellow", missing),
    ):
        for finding in findings[:max_findings]:
            console.print(f"[{color}]{word}[/] {escape(finding)}", soft_wrap=True)
        if len(findings) > max_findings:
            console.print(f"… and {len(findings) - max_findings} more of these (--max-findings)")


def _summary(args: argparse.Namespace, conversion: Conversion, media: MediaSearch | None) -> Table:
    samples = conversion.samples
    name = f"{args.name}, {args.subset}" if args.subset else args.name
    table = Table("what", "count", title=name, title_justify="left")
    table.add_row("rows in the file", str(conversion.num_rows))
    table.add_row("questions refused", str(len(conversion.errors)))
    for kind, count in sorted(conversion.note_counts.items()):
        table.add_row(escape(f"noted: {kind}"), str(count))
    if args.subset:
        table.add_row("questions outside of the subset", str(conversion.num_left_out))
    table.add_row("items", str(len(samples)))
    official = BENCHMARKS[args.name].sizes.get(args.subset or "")
    if official is not None:
        table.add_row("questions in the official file", str(official))
    published = NUM_ITEMS.get(f"{args.name}_{args.subset}" if args.subset else args.name)
    if published is not None:
        table.add_row("questions in the published evaluation", str(published))
    table.add_row("with gold segments", str(sum(bool(sample.segments) for sample in samples)))
    for category, count in sorted(Counter(sample.category or "(none)" for sample in samples).items()):
        table.add_row(escape(f"category: {category}"), str(count))
    choices = [sample for sample in samples if sample.problem_type == "multiple choice"]
    if choices:
        letters = Counter(sample.answer if len(sample.answer) <= len("yes") else "a text" for sample in choices)
        table.add_row("right answers", "  ".join(f"{letter} {letters[letter]}" for letter in sorted(letters)))
    durations = sorted(sample.duration_s for sample in samples if sample.duration_s is not None)
    if durations:
        figures = (durations[0], statistics.median(durations), durations[-1])
        table.add_row("video seconds (min / median / max)", " / ".join(f"{value:.1f}" for value in figures))
    table.add_row("videos", str(len({item.path for sample in samples for item in sample.media})))
    table.add_row("videos missing", str(len(media.missing)) if media else "not checked (no --media-root)")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
