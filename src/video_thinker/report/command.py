"""`video-thinker report RUN … --out report.html`: one page about evaluations and training runs, to open from disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.evaluation.scored import score_runs
from video_thinker.report.flags import report_parser
from video_thinker.report.page import render_page
from video_thinker.report.samples import Place, Shown, choose_samples
from video_thinker.report.strips import Strip, make_strip
from video_thinker.report.synthesized import is_synthesis, read_synthesis
from video_thinker.runs.files import check_place, write_text
from video_thinker.runs.reading import EvalRun, load_items, make_labels, parse_items, read_runs, split_of

logger = logging.getLogger(__name__)

MIB = 2**20


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    title: str = "Video-Thinker report",
    items: Mapping[str, Path] | None = None,
    media_root: Path | None = None,
    frames_per_sample: int = 8,
    max_samples: int = 1000,
    media_timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S,
) -> Path:
    """Write the page.

    Args:
        folders: Output folders of evaluations, of SFT and GRPO runs, and of syntheses. They are only read.
        out: The HTML file.
        title: Its title.
        items: Split -> items file, where it is not at the path in the manifest.
        media_root: Folder of the media, instead of the one in the manifest.
        frames_per_sample: Most frames in the strip of a video.
        max_samples: Most samples shown of each split; the figures are over all.
        media_timeout_s: Seconds that decoding one media file may take; `None` for no limit.

    Raises:
        ConfigError: a folder is no run, runs do not go together, or a file is not where it was.
        DataError: a file is damaged.
    """
    check_place(out, "--out")
    made = [folder for folder in folders if is_synthesis(folder)]
    others = [folder for folder in folders if folder not in made]
    runs, trainings = read_runs(others) if others or not made else ([], [])
    runs += [read_synthesis(folder, label) for folder, label in zip(made, make_labels(made), strict=True)]
    samples = load_items(runs, items or {})
    results = score_runs(runs, samples)
    shown = choose_samples(samples, media_roots(runs, media_root), max_samples)
    strips = make_strips(shown, frames_per_sample, media_timeout_s)
    html = render_page(title, results, trainings, shown, strips, out.parent)
    write_text(out, html)
    return out


def media_roots(runs: Sequence[EvalRun], override: Path | None) -> dict[str, Path]:
    """Say for each split where its media are: as overridden, else as in the manifest of the first run that has it."""
    roots: dict[str, Path] = {}
    for run in runs:
        recorded = Path(run.manifest.get("config", {}).get("media_root", "."))
        for key in run.predictions:
            roots.setdefault(split_of(key), override or recorded)
    return roots


def make_strips(
    shown: Sequence[Shown], num_frames: int, timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S
) -> dict[Place, Strip]:
    """Read the frames of every media file once; those that cannot be read are named in the log."""
    places = dict.fromkeys(place for one in shown for sample in one.samples for place in one.places(sample))
    strips = {}
    for root, media in tqdm(places, desc="frames", unit="file", disable=not places):
        strip = strips[root, media] = make_strip(media, root, num_frames, timeout_s=timeout_s)
        if strip.error:
            logger.warning("no frames: %s", strip.error)
    return strips


def main(argv: list[str] | None = None) -> int:
    """Write a report."""
    args = report_parser().read(argv)
    out = write_report(
        args.runs,
        args.out,
        title=args.title,
        items=parse_items(args.items),
        media_root=args.media_root,
        frames_per_sample=args.frames_per_sample,
        max_samples=args.max_samples,
        media_timeout_s=args.media_timeout_s,
    )
    logger.info("%s: %.1f MiB, open it in a browser", out, out.stat().st_size / MIB)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
