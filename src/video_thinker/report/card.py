"""`video-thinker card MODEL [EVAL_DIR …]`: put results of evaluations into a model's card, or write the card anew.

    video-thinker card runs/grpo runs/eval/grpo

Only evaluations of just this checkpoint are taken: its files have the hash that the evaluation recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_thinker.errors import ConfigError
from video_thinker.evaluation.scored import Result, score_runs
from video_thinker.evaluation.tables import percent, with_interval
from video_thinker.report.flags import card_parser
from video_thinker.runs.card import RESULTS_BEGIN, Saved, put_results, write_card
from video_thinker.runs.card_texts import code, describe_frames, describe_pixels
from video_thinker.runs.files import read_json
from video_thinker.runs.manifest import CARD
from video_thinker.runs.reading import EvalRun, load_items, parse_items, read_runs, variant_of
from video_thinker.runs.record import STATE, find_run_file

logger = logging.getLogger(__name__)

SHOWN_INSTEAD = {
    "": "the video",
    "blank": "blank frames",
    "shuffled": "the frames in random order",
    "none": "no video",
}
"""What the model saw, by control."""

HEADERS = (
    "split (items' SHA-256)",
    "shown",
    "accuracy (95% interval)",
    "chance",
    "mIoU",
    "valid format",
    "samples",
    "no answer",
    "failed",
)


def write_results(model: Path, evaluations: Sequence[Path], items: Mapping[str, Path] | None = None) -> Path:
    """Complete the card of a model with evaluations, or write one that is missing.

    Args:
        model: Folder of a checkpoint or an adapter.
        evaluations: Output folders of `video-thinker eval`; they are only read.
        items: Split -> items file, where it is not at the path in the manifest.

    Raises:
        ConfigError: there is no model, a folder is no evaluation, or one of another model.
    """
    card = model / CARD
    if not any((model / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ConfigError(
            f"MODEL={str(model)!r}: no config.json and no adapter_config.json there; name a model's folder."
        )
    results = _read_results(model, evaluations, items or {}) if evaluations else []
    if not card.is_file() or RESULTS_BEGIN not in card.read_text(encoding="utf-8", errors="replace"):
        run_file = find_run_file(str(model))
        write_card(Saved(model, str(model), run_file.parent if run_file else model, read_json(model / STATE)))
    if results:
        put_results(card, render_results(results))
    return card


def _read_results(model: Path, evaluations: Sequence[Path], items: Mapping[str, Path]) -> list[Result]:
    from video_thinker.models.fingerprint import model_fingerprint  # imports torch, which --help does not need

    runs, others = read_runs(evaluations)
    if others:
        raise ConfigError(
            f"{others[0].folder}: a training run, not an evaluation; give the output_dir of an evaluation."
        )
    fingerprint = model_fingerprint(str(model))
    for run in runs:
        evaluated = run.manifest.get("settings", {}).get("model_sha256")
        if evaluated != fingerprint:
            name = run.manifest.get("config", {}).get("model_name_or_path", "unknown")
            raise ConfigError(
                f"{run.folder}: evaluates {name!r} with the hash {str(evaluated)[:12]}, and {model} has "
                f"{fingerprint[:12]}: another model, or one that was trained further; evaluate this one."
            )
    return score_runs(runs, load_items(runs, items))


def render_results(results: Sequence[Result]) -> str:
    """Write the results as Markdown: for each evaluation how it was made, and a table with a row for each control."""
    parts = []
    for run in {result.run.label: result.run for result in results}.values():
        parts.append(_how(run))
        rows = [
            "| split | shown | accuracy (95% interval) | chance | mIoU | valid format | samples | no answer | failed |"
        ]
        rows.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        rows += [_row(result) for result in results if result.run is run]
        parts.append("\n".join(rows))
    parts.append(
        "All shares in percent. Unanswered samples count as not correct; failed ones, whose media could not be read, "
        "are left out. The accuracy with blank frames or without the video is what the question alone gives away: the "
        "difference to it is what the model takes from the video."
    )
    return "\n\n".join(parts)


def _how(run: EvalRun) -> str:
    settings = run.manifest.get("settings", {})
    style = settings.get("prompt_style")
    drawn = f"temperature {settings.get('temperature')}, at most {settings.get('max_new_tokens')} tokens"
    return f"{describe_frames(settings)} {describe_pixels(settings)} Prompt style {code(style)}, {drawn}."


def _row(result: Result) -> str:
    figures: Mapping[str, Any] = result.figures
    variant = variant_of(result.key)
    cells = [
        f"{result.split} ({code(str(result.run.manifest['splits'][result.split]['sha256'])[:12])})",
        SHOWN_INSTEAD.get(variant, variant),
        with_interval(figures),
        *(percent(figures.get(name)) for name in ("chance", "miou", "format_rate")),
        *(str(figures.get(name)) for name in ("num_samples", "num_unanswered", "num_failed")),
    ]
    return f"| {' | '.join(cells)} |"


def main(argv: list[str]) -> int:
    """Write or complete a card."""
    args = card_parser().read(argv)
    logger.info("%s is written", write_results(args.model, args.evaluations, parse_items(args.items)))
    return 0
