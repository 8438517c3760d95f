"""Score stored predictions again, without a model: `video-thinker score RUN … [--items SPLIT=FILE]`. Needs no torch.

Each RUN is the output_dir of `video-thinker eval`, finished or not: what its processes have written is brought
together, graded by the grader of today, and written back as `predictions/*.jsonl`, `metrics.json` and the counts in
`manifest.json`. A result without a prediction for every item gets no figures.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_thinker.errors import ConfigError
from video_thinker.evaluation.flags import score_parser
from video_thinker.evaluation.results import conclude, exit_code, read_result, stored_keys
from video_thinker.evaluation.tables import print_metrics
from video_thinker.runs.files import read_json
from video_thinker.runs.lock import run_lock
from video_thinker.runs.reading import EvalRun, load_items, parse_items, split_of
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)

MAX_FAILED = 0.01


def score_run(folder: Path, items: Mapping[str, Path]) -> tuple[dict[str, dict[str, Any]], bool]:
    """Score one evaluation.

    Args:
        folder: Its output folder.
        items: Split -> items file, where it is not at the path in the manifest.

    Returns:
        Result key -> figures of the complete results, and whether all are complete.

    Raises:
        ConfigError: it is no evaluation, is being written, or an items file is not where it was or has changed.
        DataError: a file is damaged.
    """
    keys = stored_keys(folder)
    manifest = read_json(folder / "manifest.json")
    if not keys or "splits" not in manifest:
        raise ConfigError(f"{folder}: holds no predictions with a manifest.json; give the output_dir of an evaluation.")
    with run_lock(folder):
        run = EvalRun(folder, folder.name, manifest, {}, {key: read_result(folder, key) for key in keys})
        samples = {
            name: loaded[: manifest["splits"][name]["num_samples"]] for name, loaded in load_items([run], items).items()
        }
        results: dict[str, Sequence[VideoSample]] = {key: samples[split_of(key)] for key in keys}
        metrics = conclude(folder, results)
    return metrics, len(metrics) == len(results)


def main(argv: list[str] | None = None) -> int:
    """Score runs; exit code 1 if one is not complete, or more of its items failed than its config allows."""
    args = score_parser().read(argv)
    items = parse_items(args.items)
    code = 0
    for folder in args.runs:
        metrics, complete = score_run(folder, items)
        print_metrics(metrics, title=str(folder))
        max_failed = read_json(folder / "manifest.json").get("config", {}).get("max_failed", MAX_FAILED)
        code = max(code, int(not complete), exit_code(metrics, max_failed))
    return code
