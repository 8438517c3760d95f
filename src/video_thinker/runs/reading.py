"""RUN folders, as `video-thinker eval`, `sft` and `grpo` leave them, read and never written."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_thinker.data.annotations import load_samples
from video_thinker.errors import ConfigError, DataError
from video_thinker.runs.files import file_sha256, read_json
from video_thinker.runs.predictions import Prediction
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)

_FIELDS = dataclasses.fields(Prediction)
_KNOWN = {field.name for field in _FIELDS}


@dataclass(frozen=True)
class EvalRun:
    """One evaluation folder. `metrics` and `predictions` are by result key: "id", or "id.blank" under a control.

    `predictions[key]` maps sample ids to what the model gave; a later row of a sample replaces an earlier one.
    """

    folder: Path
    label: str
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    predictions: Mapping[str, Mapping[str, Prediction]]


@dataclass(frozen=True)
class TrainingRun:
    """The log of one SFT or GRPO run: one mapping of figures per logged step."""

    folder: Path
    label: str
    history: Sequence[Mapping[str, Any]]


def read_runs(folders: Sequence[Path]) -> tuple[list[EvalRun], list[TrainingRun]]:
    """Read evaluation and training folders, in the order given.

    Raises:
        ConfigError: a folder is neither, or none was given.
        DataError: a file in one of them is damaged.
    """
    if not folders:
        raise ConfigError("no RUN was given; give the output folders of evaluations, and of SFT or GRPO runs.")
    evaluated = [folder for folder in folders if any((folder / "predictions").glob("*.jsonl"))]
    trained = [folder for folder in folders if folder not in evaluated]
    evaluations = [read_eval_run(*pair) for pair in zip(evaluated, make_labels(evaluated), strict=True)]
    trainings = [
        TrainingRun(folder, label, read_history(find_trainer_state(folder)))
        for folder, label in zip(trained, make_labels(trained), strict=True)
    ]
    return evaluations, trainings


def make_labels(folders: Sequence[Path]) -> list[str]:
    """Name each folder by the fewest last parts of its path that tell all of them apart.

    `[runs/a/eval, runs/b/eval]` gives `["a/eval", "b/eval"]`.

    Raises:
        ConfigError: a folder was given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        labels = ["/".join(names[-depth:]) for names in parts]
        if len(set(labels)) == len(labels):
            return labels
    twice = next(folder for folder in folders if [f.resolve() for f in folders].count(folder.resolve()) > 1)
    raise ConfigError(f"{twice}: was given twice; give each RUN once.")


def find_trainer_state(folder: Path) -> Path:
    """Find a training run's log: in the folder, or for an unfinished run in its last checkpoint.

    Raises:
        ConfigError: there is none.
    """
    if (folder / "trainer_state.json").is_file():
        return folder / "trainer_state.json"
    if any((folder / "predictions" / "parts").glob("*.jsonl")):
        raise ConfigError(f"{folder}: the shares of its processes are not merged yet; `video-thinker score {folder}`.")
    checkpoints = [path for path in folder.glob("checkpoint-*/trainer_state.json") if _step(path.parent) >= 0]
    if not checkpoints:
        raise ConfigError(
            f"{folder}: holds neither predictions/*.jsonl of an evaluation nor trainer_state.json of a training run; "
            "give the output_dir of `video-thinker eval`, `sft`, `grpo` or `synthesize`."
        )
    return max(checkpoints, key=lambda path: _step(path.parent))


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def read_eval_run(folder: Path, label: str) -> EvalRun:
    """Read one evaluation folder.

    Raises:
        ConfigError: it has no manifest.json, which says what was asked.
        DataError: a file in it is damaged.
    """
    manifest = read_json(folder / "manifest.json")
    if "splits" not in manifest:
        raise ConfigError(f"{folder}: has predictions but no manifest.json with their splits; evaluate again.")
    files = sorted((folder / "predictions").glob("*.jsonl"))
    predictions = {file.stem: read_predictions(file) for file in files}
    return EvalRun(folder, label, manifest, read_json(folder / "metrics.json"), predictions)


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Read the rows of one file by sample id, leaving the file as it is.

    Fields that `Prediction` does not know are left out. A last line without an end belongs to a run that is being
    written, or was killed: it is left out with a warning.

    Raises:
        DataError: another line is not a prediction.
    """
    whole, newline, rest = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    if rest:
        logger.warning("%s: left out a half-written last line; its sample has no prediction yet", path)
    predictions = {}
    for number, line in enumerate(whole.split("\n") if newline else [], start=1):
        try:
            row = json.loads(line)
            prediction = Prediction(**{name: value for name, value in row.items() if name in _KNOWN})
        except (json.JSONDecodeError, AttributeError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: not a prediction ({type(error).__name__}: {error}); a row is a JSON object with "
                "problem_id and completion; remove the line and continue the evaluation."
            ) from error
        predictions[prediction.problem_id] = prediction
    return predictions


def load_items(runs: Sequence[EvalRun], overrides: Mapping[str, Path]) -> dict[str, list[VideoSample]]:
    """Load the items of every split that has predictions.

    Args:
        runs: Evaluations; a split of the same name must have the same items in all of them.
        overrides: Split -> items file, instead of the path in the manifest.

    Raises:
        ConfigError: an items file is not where it was, is not the one that was evaluated, or differs between runs.
    """
    sources: dict[str, tuple[EvalRun, Mapping[str, Any]]] = {}
    for run in runs:
        for name in dict.fromkeys(split_of(key) for key in run.predictions):
            if name not in run.manifest["splits"]:
                raise ConfigError(f"{run.folder}: has predictions of {name!r}, which its manifest.json does not name.")
            split = run.manifest["splits"][name]
            first, source = sources.setdefault(name, (run, split))
            if source["sha256"] != split["sha256"]:
                raise ConfigError(
                    f"{first.folder} and {run.folder} have other items under the name {name!r} (sha256 "
                    f"{source['sha256'][:12]} and {split['sha256'][:12]}); give them a report each."
                )
    if unknown := overrides.keys() - sources.keys():
        raise ConfigError(f"--items {min(unknown)}=…: no RUN has such a split; there are {', '.join(sources)}.")
    loaded = {name: _load_split(name, split, overrides.get(name)) for name, (_, split) in sources.items()}
    return {name: samples[: _most_asked(runs, name)] for name, samples in loaded.items()}


def _most_asked(runs: Sequence[EvalRun], name: str) -> int | None:
    """Most items that a run asked of a split: its `num_samples` takes the first ones only."""
    counts = [run.manifest["splits"][name].get("num_samples") for run in runs if name in run.manifest["splits"]]
    return None if None in counts else max(counts, default=None)


def _load_split(name: str, split: Mapping[str, Any], override: Path | None) -> list[VideoSample]:
    path = override or Path(split["file"])
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; it holds the items of {name!r}. Run from the folder the evaluation was started in, "
            f"or say where they are: --items {name}=FILE."
        )
    if file_sha256(path) != split["sha256"]:
        raise ConfigError(
            f"{path}: has changed since it was evaluated (or is another file); give the items that the predictions "
            f"answer: --items {name}=FILE."
        )
    return load_samples(path)


def parse_items(texts: Sequence[str]) -> dict[str, Path]:
    """Read `--items SPLIT=FILE` options.

    Raises:
        ConfigError: one has no "=".
    """
    pairs = [text.partition("=") for text in texts]
    for name, equals, path in pairs:
        if not (name and equals and path):
            raise ConfigError(f"--items {name}{equals}{path}: write SPLIT=FILE, e.g. id=data/eval/id/toy_id.jsonl.")
    return {name: Path(path) for name, _, path in pairs}


def split_of(key: str) -> str:
    """Name the split of a result: "id" for "id" and "id.blank"."""
    return key.partition(".")[0]


def variant_of(key: str) -> str:
    """Name what was changed for a result: "" for "id", "blank" for "id.blank"."""
    return key.partition(".")[2]


def require_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that must be there.

    Raises:
        DataError: it is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; has this stage been run?")
    return read_json(path)


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the log of a Transformers or TRL trainer: one mapping of figures per logged step.

    Raises:
        DataError: there is no such file, or no log in it.
    """
    history: list[dict[str, float]] | None = require_json(path).get("log_history")
    if not history:
        raise DataError(f"{path}: has no log_history; was the run saved with `save_state`?")
    return history
