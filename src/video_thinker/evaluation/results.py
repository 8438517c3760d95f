"""The predictions of a run folder, brought together from all processes and scored. Runs without torch.

    OUTPUT_DIR/predictions/id.jsonl            the result "id"
    OUTPUT_DIR/predictions/parts/id.0.jsonl    what process 0 of several has added, until it is merged into id.jsonl

Merging writes the rows in the order of the items, one for each sample, so that a finished run leaves the same bytes
however often it was interrupted and by however many processes it was done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_thinker.errors import DataError
from video_thinker.evaluation.metrics import compute_metrics, grade
from video_thinker.generation.controls import CONTROLS
from video_thinker.runs.files import read_json, write_json
from video_thinker.runs.predictions import Graded, Prediction, PredictionFile
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)


def result_key(split: str, control: str) -> str:
    """Name of a result in metrics.json and of its predictions file: "id", or "id.blank" under a control."""
    return split if control == "real" else f"{split}.{control}"


def prediction_file(output_dir: Path, key: str, process: int | None = None) -> PredictionFile:
    """Give the file of a result, or the part of it that one of several processes writes."""
    folder = output_dir / "predictions"
    return PredictionFile(folder / f"{key}.jsonl" if process is None else folder / "parts" / f"{key}.{process}.jsonl")


def part_files(output_dir: Path, key: str) -> list[PredictionFile]:
    """List the parts of a result that are not merged yet."""
    paths = (output_dir / "predictions" / "parts").glob("*.jsonl")
    return [PredictionFile(path) for path in sorted(paths) if path.stem.rpartition(".")[0] == key]


def stored_keys(output_dir: Path) -> list[str]:
    """Name all results with predictions."""
    folder = output_dir / "predictions"
    parts = {path.stem.rpartition(".")[0] for path in (folder / "parts").glob("*.jsonl")}
    return sorted({path.stem for path in folder.glob("*.jsonl")} | parts)


def read_result(output_dir: Path, key: str) -> dict[str, Prediction]:
    """Read the predictions of all processes by sample id; a completion wins over a failure, then the later row.

    Raises:
        DataError: a line is not a prediction.
    """
    predictions: dict[str, Prediction] = {}
    for file in [prediction_file(output_dir, key), *part_files(output_dir, key)]:
        for name, prediction in file.read().items():
            there = predictions.get(name)
            if there is None or there.error is not None or prediction.error is None:
                predictions[name] = prediction
    return predictions


def merge_result(output_dir: Path, key: str, samples: Sequence[VideoSample]) -> list[Graded]:
    """Grade what is there of a result and write it as one file in the order of `samples`; its parts are gone then.

    Raises:
        DataError: a line is not a prediction, or belongs to none of `samples`.
    """
    predictions = read_result(output_dir, key)
    if unknown := sorted(predictions.keys() - {sample.id for sample in samples}):
        raise DataError(
            f"{output_dir}/predictions/{key}.jsonl has sample {unknown[0]!r} ({len(unknown)} such), which is none of "
            "its items; remove these lines, or give overwrite=true to evaluate again."
        )
    graded = [grade(predictions[sample.id], sample) for sample in samples if sample.id in predictions]
    prediction_file(output_dir, key).replace(graded)
    for part in part_files(output_dir, key):
        part.path.unlink()
    return graded


def conclude(output_dir: Path, results: Mapping[str, Sequence[VideoSample]]) -> dict[str, dict[str, Any]]:
    """Merge and score results, and write metrics.json and the counts in manifest.json.

    Only results with a prediction for every item get figures; of one that is not complete, older figures are removed.

    Args:
        output_dir: The run folder.
        results: Result key -> its items.

    Returns:
        Result key -> figures of the complete ones.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for key, samples in results.items():
        graded = merge_result(output_dir, key, samples)
        if len(graded) == len(samples):
            metrics[key] = compute_metrics(graded)
        else:
            logger.error(
                "%s: %s: %d of %d items have a prediction; no figures before it is complete: run the evaluation again",
                output_dir,
                key,
                len(graded),
                len(samples),
            )
    manifest = read_json(output_dir / "manifest.json")
    order = {name: number for number, name in enumerate(manifest.get("splits", {}))}

    def place(key: str) -> tuple[int, str, int]:
        split, _, control = key.partition(".")
        return order.get(split, len(order)), split, CONTROLS.index(control) if control in CONTROLS else 0

    stored = {k: v for k, v in _read_figures(output_dir / "metrics.json").items() if k not in results}
    everything = {key: (stored | metrics)[key] for key in sorted(stored | metrics, key=place)}
    write_json(output_dir / "metrics.json", everything)
    counts = ("num_samples", "num_scored", "num_failed")
    manifest["results"] = {key: {name: m.get(name) for name in counts} for key, m in everything.items()}
    write_json(output_dir / "manifest.json", manifest)
    return metrics


def _read_figures(path: Path) -> dict[str, dict[str, Any]]:
    """Read metrics.json; what is damaged is made again, since it all comes from the predictions."""
    try:
        figures = read_json(path)
    except DataError as error:
        logger.warning("%s It is written anew from the predictions; results of other splits are left out", error)
        return {}
    return {key: one for key, one in figures.items() if isinstance(one, dict)}


def exit_code(metrics: Mapping[str, Mapping[str, Any]], max_failed: float) -> int:
    """1 if more than `max_failed` of a result's items have no completion, and say so; else 0."""
    bad = {key: m for key, m in metrics.items() if m["num_failed"] > max_failed * m["num_samples"]}
    for key, figures in bad.items():
        logger.error(
            "%s: %d of %d items failed, more than max_failed=%g; the rows with an `error` in its predictions say why",
            key,
            figures["num_failed"],
            figures["num_samples"],
            max_failed,
        )
    return 1 if bad else 0
