"""`video-thinker prepare NAME --raw FILE [--media-root DIR] --out FILE`: a benchmark's official file -> items.

What cannot be converted is reported row by row and makes the exit code 1; then nothing is written, since a benchmark
with rows missing gives figures that do not compare. `--allow-errors N` writes the others if at most N questions fail.
"""

from __future__ import annotations

import argparse
import dataclasses
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
from video_thinker.errors import ConfigError
from video_thinker.evaluation.benchmarks import BENCHMARKS
from video_thinker.evaluation.benchmarks.base import Conversion, convert_file
from video_thinker.evaluation.published import NUM_ITEMS
from video_thinker.schema import VideoSample

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg")


@dataclass(frozen=True)
class MediaSearch:
    """Items with the paths of the files that are there, and what was looked for in vain, by path."""

    samples: list[VideoSample]
    missing: dict[str, str]


def find_media(samples: Sequence[VideoSample], media_root: str | Path) -> MediaSearch:
    """Look for each item's video under the media root: at its path, else by its file name without suffix.

    Benchmarks name their videos by id and leave folders and suffixes to the user. A name that several files have is
    missing: which one is meant is not guessed.
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
        found = by_stem.get(PurePosixPath(path).stem, [])
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


def write_items(samples: Sequence[VideoSample], path: str | Path) -> None:
    """Write items as JSONL if the name ends in .jsonl, else as a JSON list; a kill leaves no half file."""
    path = Path(path)
    rows = [to_row(sample) for sample in samples]
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def main(argv: list[str]) -> int:
    """Convert a file; exit code 1 if more questions than allowed could not be converted."""
    args = _parse(argv)
    conversion = convert_file(BENCHMARKS[args.name], args.raw, args.subset)
    media = find_media(conversion.samples, args.media_root) if args.media_root else None
    if media:
        conversion.samples = media.samples
    console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
    _print_findings(console, conversion, media, args.max_findings)
    console.print(_summary(args, conversion, media))
    if len(conversion.errors) > args.allow_errors:
        console.print(
            f"FAILED: {len(conversion.errors)} could not be converted, nothing was written. Repair the rows, or pass "
            f"--allow-errors {len(conversion.errors)} to write the others."
        )
        return 1
    if not conversion.samples:
        console.print("FAILED: there is nothing to write.")
        return 1
    if media and media.missing:
        console.print("Items whose video is missing are kept: an evaluation counts them as failed, never as wrong.")
    write_items(conversion.samples, args.out)
    console.print(f"Wrote {len(conversion.samples)} items to {args.out}")
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="video-thinker prepare",
        description="Turn a benchmark's official annotation file into items for `video-thinker eval`.",
    )
    parser.add_argument("name", choices=sorted(BENCHMARKS), metavar="NAME", help=", ".join(sorted(BENCHMARKS)))
    parser.add_argument("--raw", required=True, help="the official annotation file")
    parser.add_argument(
        "--media-root", help="folder of the videos, the media_root of the evaluation; looks for each one"
    )
    parser.add_argument("--out", required=True, help="items file to write; JSON, or JSONL if it ends in .jsonl")
    parser.add_argument("--subset", help="write a named part only, e.g. reasoning of cg_bench")
    parser.add_argument("--allow-errors", type=int, default=0, metavar="N", help="write the others if at most N fail")
    parser.add_argument("--max-findings", type=int, default=50, help="findings shown of a kind (default 50)")
    args = parser.parse_args(argv)
    subsets = BENCHMARKS[args.name].subsets
    if args.subset is not None and args.subset not in subsets:
        parser.error(f"{args.name} has no subset {args.subset!r}; it has {', '.join(subsets) or 'none'}")
    return args


def _print_findings(console: Console, conversion: Conversion, media: MediaSearch | None, max_findings: int) -> None:
    missing = [f"{path}: {why}" for path, why in media.missing.items()] if media else []
    for word, color, findings in (
        ("error", "red", conversion.errors),
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
    table.add_row("questions that could not be converted", str(len(conversion.errors)))
    if args.subset:
        table.add_row("questions outside of the subset", str(conversion.num_left_out))
    table.add_row("items", str(len(samples)))
    published = NUM_ITEMS.get(f"{args.name}_{args.subset}" if args.subset else args.name)
    if published is not None:
        table.add_row("questions in the published evaluation", str(published))
    table.add_row("with gold segments", str(sum(bool(sample.segments) for sample in samples)))
    for category, count in sorted(Counter(sample.category or "(none)" for sample in samples).items()):
        table.add_row(escape(f"category: {category}"), str(count))
    choices = [sample for sample in samples if sample.problem_type == "multiple choice"]
    if choices:
        letters = Counter(sample.answer[:1] for sample in choices)
        table.add_row("right letters", "  ".join(f"{letter} {letters[letter]}" for letter in sorted(letters)))
    durations = sorted(sample.duration_s for sample in samples if sample.duration_s is not None)
    if durations:
        figures = (durations[0], statistics.median(durations), durations[-1])
        table.add_row("video seconds (min / median / max)", " / ".join(f"{value:.1f}" for value in figures))
    table.add_row("videos", str(len({item.path for sample in samples for item in sample.media})))
    table.add_row("videos missing", str(len(media.missing)) if media else "not checked (no --media-root)")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
