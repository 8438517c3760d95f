"""The end of `make quickstart`: its figures in one file, one table and one picture.

    video-thinker toy summary runs/quickstart --seed 0

reads

    RUN_DIR/eval/{base,base_plain,sft,grpo}/metrics.json      `base_plain`, the base in its own wording, is optional
    RUN_DIR/eval/{base,base_plain,sft,grpo}/predictions/      their completions
    RUN_DIR/data/train_sft.jsonl                              the teacher's traces, for `thought_words_known`
    RUN_DIR/{sft,grpo}/trainer_state.json                     the trainers' logs
    RUN_DIR/seconds.yaml                                      stage: seconds, as scripts/quickstart.sh notes them

and writes `RUN_DIR/summary.json` and `RUN_DIR/learning.png`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from video_thinker.data.annotations import load_samples
from video_thinker.errors import DataError
from video_thinker.evaluation.results import read_result
from video_thinker.evaluation.tables import make_console, percent, with_interval
from video_thinker.evaluation.thoughts import TeacherWords
from video_thinker.runs.files import read_json, write_json
from video_thinker.runs.reading import read_history, require_json
from video_thinker.toyworld import flags
from video_thinker.toyworld.picture import draw_learning

STAGES = ("base", "sft", "grpo")
OPTIONAL_STAGES = ("base_plain",)
SPLITS = ("id", "ood")
CONTROLS = ("blank", "shuffled")
FIGURES = ("accuracy", "ci95", "format_rate", "miou", "recall@0.5", "num_samples", "num_unanswered", "num_failed")
STAGE_NAMES = {"base_plain": "base, own wording", "base": "base", "sft": "SFT", "grpo": "GRPO"}


def summarize(run_dir: str | Path, *, seed: int, console: Console | None = None) -> dict[str, Any]:
    """Write `summary.json` and `learning.png` of a quickstart run, and print its table.

    Args:
        run_dir: Folder of the run.
        seed: Its seed.
        console: Where to print; standard output by default.

    Returns:
        The summary: `results[stage][split]` and `controls[name]` as in `compute_metrics`, each with
        `thought_words_known` (see `TeacherWords`; `None` where no completion has a thought); `seconds`, `seed`,
        `chance`.

    Raises:
        DataError: an evaluation's figures or completions, the teacher's traces, or a trainer's log are not there.
    """
    run_dir = Path(run_dir)
    seconds = read_seconds(run_dir / "seconds.yaml")
    summary = build_summary(run_dir, seed, seconds)
    write_json(run_dir / "summary.json", summary)
    histories = {stage: read_history(run_dir / stage / "trainer_state.json") for stage in ("sft", "grpo")}
    draw_learning(run_dir / "learning.png", summary, histories["sft"], histories["grpo"])
    console = console or make_console()
    console.print(summary_table(summary))
    console.print("Seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()), soft_wrap=True)
    console.print(f"Figures: {run_dir / 'summary.json'}\nPicture: {run_dir / 'learning.png'}", soft_wrap=True)
    return summary


def build_summary(run_dir: Path, seed: int, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Collect the figures of all evaluations of a run."""
    metrics = {stage: require_json(run_dir / "eval" / stage / "metrics.json") for stage in STAGES}
    for stage in OPTIONAL_STAGES:
        if figures := read_json(run_dir / "eval" / stage / "metrics.json"):
            metrics[stage] = figures
    teacher = read_teacher(run_dir / "data" / "train_sft.jsonl")
    results = {
        stage: {split: _pick(figures, split, run_dir / "eval" / stage, teacher) for split in SPLITS}
        for stage, figures in metrics.items()
    }
    controls = {name: _pick(metrics["grpo"], f"id.{name}", run_dir / "eval" / "grpo", teacher) for name in CONTROLS}
    chance = {split: metrics["grpo"][split]["chance"] for split in SPLITS}
    return {
        "seed": seed,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "results": results,
        "controls": controls,
        "chance": chance,
    }


def read_teacher(path: Path) -> TeacherWords:
    """Read the words of the run's own teacher off its SFT traces.

    Raises:
        DataError: the file is missing, or has no traces.
    """
    traces = [sample.process for sample in load_samples(path) if sample.process]
    if not traces:
        raise DataError(f"{path}: no item has a trace (`process`); it must be the file that SFT was trained on.")
    return TeacherWords(traces)


def _pick(metrics: Mapping[str, Any], key: str, folder: Path, teacher: TeacherWords) -> dict[str, Any]:
    if key not in metrics:
        raise DataError(f"{folder / 'metrics.json'}: has no {key!r}, only {', '.join(metrics)}; run its evaluation.")
    predictions = read_result(folder, key)
    if not predictions:
        raise DataError(f"{folder}/predictions/{key}.jsonl: has no completions; run its evaluation.")
    answered = [prediction.completion for prediction in predictions.values() if prediction.error is None]
    figures = {name: metrics[key][name] for name in FIGURES}
    return {**figures, "thought_words_known": teacher.share_known(answered)}


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Tabulate a summary: a row for each model, and for each control of the last one."""
    chance = summary["chance"]
    sizes = {split: summary["results"]["grpo"][split]["num_samples"] for split in SPLITS}
    caption = (
        f"Percent with 95% intervals; {sizes['id']} test questions in distribution (ID), {sizes['ood']} out of it "
        f"(OOD). Guessing gives {percent(chance['id'])} and {percent(chance['ood'])}. "
        "words: thoughts made of the teacher's words."
    )
    table = Table(
        title=f"Quickstart, seed {summary['seed']}", caption=caption, title_justify="left", box=box.SIMPLE_HEAD
    )
    table.caption_justify = "left"
    table.add_column("model", no_wrap=True)
    for split in SPLITS:
        for name in ("accuracy", "format", "mIoU", "words"):
            table.add_column(f"{split.upper()}\n{name}", justify="right")
    for stage in (*OPTIONAL_STAGES, *STAGES):
        if stage in summary["results"]:
            figures = summary["results"][stage]
            table.add_row(STAGE_NAMES[stage], *(cell for split in SPLITS for cell in _cells(figures[split])))
    for name, figures in summary["controls"].items():
        table.add_row(f"GRPO, {name} video", *_cells(figures))
    return table


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [
        with_interval(figures),
        percent(figures["format_rate"]),
        percent(figures["miou"]),
        percent(figures["thought_words_known"]),
    ]


def read_seconds(path: Path) -> dict[str, float]:
    """Read the seconds each stage took, `stage: seconds` line by line.

    Raises:
        DataError: the file is missing, or not such a mapping.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; scripts/quickstart.sh notes the seconds of its stages there.")
    try:
        return {str(name): float(value) for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}; it must hold a line `stage: seconds` for each stage.") from error


def main(argv: list[str] | None = None) -> int:
    """Summarize a quickstart run."""
    args = flags.summary_parser().read(argv)
    summarize(args.run_dir, seed=args.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
