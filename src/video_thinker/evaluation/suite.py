"""Several models, and several numbers of frames, on one suite: one evaluation for each, then one table.

    scripts/run_eval_batch.sh --model runs/a --model runs/b --suite configs/eval/id_ood.yaml --num-frames 16 32 \
      --video real blank --output-dir outputs/eval [key=value …]

Every evaluation is a run folder of its own, OUTPUT_DIR/MODEL or OUTPUT_DIR/MODEL-framesN, made by a process of its own:
one that fails does not stop the others, and the same command takes all of them up again. MODEL is the last part of the
model's path; where two models share it, as many parts as tell them apart, as nested folders.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from video_thinker.config import read_config
from video_thinker.errors import ConfigError
from video_thinker.evaluation.flags import split_pairs, suite_parser
from video_thinker.evaluation.processes import eval_command, failed_code, run_processes
from video_thinker.evaluation.tables import print_suite
from video_thinker.keys.commands import CONFIG_CLASSES
from video_thinker.runs.files import read_json
from video_thinker.runs.reading import make_labels

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SubRun:
    """One evaluation of a suite: its name, which is its folder in the output folder, and its `key=value` pairs."""

    name: str
    pairs: tuple[str, ...]


def plan_suite(models: Sequence[str], frame_counts: Sequence[int | None], output_dir: Path) -> list[SubRun]:
    """List the evaluations of models x numbers of frames; `None` leaves the frames to the config.

    Raises:
        ConfigError: a model or a number of frames was given twice.
    """
    if len(set(frame_counts)) < len(frame_counts):
        raise ConfigError(f"--num-frames {' '.join(map(str, frame_counts))}: give each number once.")
    runs = []
    for model, label in zip(models, make_labels([Path(model) for model in models]), strict=True):
        for num_frames in frame_counts:
            name = label if num_frames is None else f"{label}-frames{num_frames}"
            pairs = [f"model_name_or_path={model}", f"output_dir={output_dir / name}"]
            pairs += [] if num_frames is None else [f"num_frames={num_frames}"]
            runs.append(SubRun(name, tuple(pairs)))
    return runs


def main(argv: list[str]) -> int:
    """Run a suite; the exit code is 0 only if all evaluations end with 0."""
    flags, pairs = split_pairs(argv)
    args = suite_parser().read(flags)
    if owned := [pair for pair in pairs if pair.startswith(("model_name_or_path=", "output_dir=", "process="))]:
        raise ConfigError(f"{owned[0]}: with flags, models and folders are given as --model and --output-dir.")
    shared = [*pairs, *([f"video=[{','.join(args.video)}]"] if args.video else [])]
    read_config(CONFIG_CLASSES["eval"], [str(args.suite), *pairs])
    runs = plan_suite(args.model, args.num_frames or [None], args.output_dir)
    codes = {}
    for number, run in enumerate(runs, start=1):
        logger.info("evaluation %d of %d: %s", number, len(runs), run.name)
        (codes[run.name],) = run_processes([eval_command([str(args.suite), *shared, *run.pairs])], [os.environ])
        if codes[run.name]:
            logger.error("%s: ended with exit code %d", run.name, codes[run.name])
    settings = {name: read_json(args.output_dir / name / "manifest.json").get("settings", {}) for name in codes}
    metrics = {name: read_json(args.output_dir / name / "metrics.json") for name in codes}
    print_suite({name: (code, metrics[name]) for name, code in codes.items()}, settings=settings)
    return failed_code(list(codes.values()))
