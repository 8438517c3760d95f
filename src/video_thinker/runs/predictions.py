"""What an evaluation leaves on disk, and how an interrupted one is taken up again.

    OUTPUT_DIR/
      manifest.json                  the settings the numbers depend on, data hashes, versions, commit, counts
      predictions/id.jsonl           one row per sample, appended and flushed batch by batch
      predictions/id.shuffled.jsonl  the same under a control
      predictions/parts/id.0.jsonl   what process 0 of several has added, until it is merged (`results.py`)
      metrics.json                   figures over all rows

One row (the fields from `answer` on are for the reader; figures are always computed from the completion):

    {"problem_id": "q7", "completion": "<time>00:03-00:04</time> … <answer>D</answer>", "num_tokens": 31,
     "finished": true, "duration_s": 4.0, "error": null, "answer": "D", "status": "correct", "score": 1.0,
     "valid_format": true, "segments": [[3.0, 4.0]]}
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_thinker.errors import ConfigError, DataError
from video_thinker.redaction import redact_values
from video_thinker.runs.files import append_text, check_folder, read_json, restore_kept, write_json, write_text
from video_thinker.runs.record import git_commit, package_versions
from video_thinker.schema import Score, TraceBlock, VideoSample

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came back for one sample.

    `completion` is the text, `num_tokens` its length; `finished` is false if it was cut off at the token limit.
    `duration_s` is that of the sample's only video, else `None`. `error` says why there is no completion.
    """

    problem_id: str
    completion: str = ""
    num_tokens: int = 0
    finished: bool = True
    duration_s: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Graded:
    """One prediction with all that is counted about it; `score` is `None` for a failed one."""

    prediction: Prediction
    sample: VideoSample
    score: Score | None = None
    answer: str | None = None
    valid_format: bool = False
    blocks: tuple[TraceBlock, ...] = ()


PREDICTION_FIELDS = tuple(field.name for field in dataclasses.fields(Prediction))
DECODER_PACKAGES = {"decord": "decord", "torchcodec": "torchcodec", "pyav": "av"}
"""Video backend -> package whose version says which decoder it is."""


def to_row(graded: Graded) -> dict[str, Any]:
    """Write one prediction as a row."""
    return {
        **dataclasses.asdict(graded.prediction),
        "answer": graded.answer,
        "status": graded.score.status if graded.score else "failed",
        "score": graded.score.value if graded.score else None,
        "valid_format": graded.valid_format,
        "segments": [[block.start_s, block.end_s] for block in graded.blocks],
    }


def to_lines(graded: Iterable[Graded]) -> str:
    """Write predictions as JSONL."""
    return "".join(json.dumps(to_row(one), ensure_ascii=False) + "\n" for one in graded)


class PredictionFile:
    """The rows of one result, or of one process's part of it. A later row of a sample replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self.path = path

    def read(self) -> dict[str, Prediction]:
        """Read what is there, by sample id, leaving the file as it is.

        A last line cut off by a killed run is left out; the next `append` removes it.

        Raises:
            DataError: another line is not a prediction.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        whole, _, half = content.rpartition(b"\n")
        if half:
            logger.warning("%s: a half-written last line (%d bytes); its sample is run again", self.path, len(half))
        predictions = {}
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            prediction = self._parse(line, number)
            predictions[prediction.problem_id] = prediction
        return predictions

    def _parse(self, line: bytes, number: int) -> Prediction:
        try:
            row = json.loads(line)
            return Prediction(**{name: row[name] for name in PREDICTION_FIELDS})
        except (ValueError, KeyError, TypeError) as error:  # no JSON, no UTF-8, no prediction
            raise DataError(
                f"{self.path}:{number}: not a prediction ({type(error).__name__}: {error}); a row has the fields "
                f"{', '.join(PREDICTION_FIELDS)}; remove the line, and its sample is run again."
            ) from error

    def append(self, graded: Iterable[Graded]) -> None:
        """Add rows; they are on the disk when this returns.

        Raises:
            WriteError: they cannot be written. They are kept, and `open_output_dir` takes them up.
        """
        self._remove_half_line()
        append_text(self.path, to_lines(graded))

    def replace(self, graded: Iterable[Graded]) -> None:
        """Write these rows in place of all that is there; a kill leaves either the old rows or the new ones."""
        text = to_lines(graded)
        if not self.path.exists() or self.path.read_bytes() != text.encode("utf-8", "replace"):
            write_text(self.path, text)

    def _remove_half_line(self) -> None:
        """Remove what a killed run has left without an end; only the last byte is read where there is no such thing."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return
        with self.path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


def has_answers(output_dir: Path) -> bool:
    """Say whether a folder has a completion."""
    files = (output_dir / "predictions").rglob("*.jsonl")
    return any(prediction.error is None for file in files for prediction in PredictionFile(file).read().values())


def open_output_dir(
    output_dir: Path,
    settings: Mapping[str, Any],
    splits: Mapping[str, Mapping[str, Any]],
    config: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Start an evaluation's folder, or take it up again.

    Args:
        output_dir: The folder.
        settings: What every number depends on, flat; must equal that of the rows already there.
        splits: For each split its `file`, `sha256` and `num_samples`; must equal that of the rows already there. More
            splits may be added to a folder.
        config: The resolved configuration, recorded only.
        overwrite: Remove the predictions and figures that are there.

    Raises:
        ConfigError: the folder holds predictions made with other settings or data.
        WriteError: nothing can be written there.
    """
    check_folder(output_dir)
    restore_kept(output_dir, drop=overwrite)
    manifest_file = output_dir / "manifest.json"
    if overwrite:
        for file in [manifest_file, output_dir / "metrics.json", *(output_dir / "predictions").rglob("*.jsonl")]:
            file.unlink(missing_ok=True)
    has_predictions = any(file.stat().st_size for file in (output_dir / "predictions").rglob("*.jsonl"))
    manifest = read_json(manifest_file) if has_predictions else {}
    if manifest:
        if not all(isinstance(manifest.get(key), dict) for key in ("settings", "splits", "packages")):
            raise DataError(
                f"{manifest_file}: is damaged: it must hold settings, splits and packages; choose another output_dir, "
                "or overwrite=true to start over."
            )
        _check_equal(output_dir, manifest["settings"], settings)
        for name in manifest["splits"].keys() & splits.keys():
            there, now = (_without_file(split) for split in (manifest["splits"][name], splits[name]))
            _check_equal(output_dir, there, now, prefix=f"splits.{name}.")
    elif has_predictions:
        raise ConfigError(
            f"{output_dir}: holds predictions but no manifest.json that says how they were made; "
            "choose another output_dir, or overwrite=true to start over."
        )
    packages = package_versions()
    if manifest and manifest["packages"] != packages:
        logger.warning("%s: continued with other package versions than it was begun with", output_dir)
    first = {"settings": dict(settings), "packages": packages, "git_commit": git_commit()}
    if "video_backend" in settings:
        name = settings["video_backend"]
        first["decoder"] = {"name": name, "version": packages[DECODER_PACKAGES[name]]}
    all_splits = {**manifest.get("splits", {}), **{name: dict(split) for name, split in splits.items()}}
    everything = {**first, **manifest, "splits": all_splits, "config": redact_values(config)}
    if everything != manifest:
        write_json(manifest_file, everything)


def _without_file(split: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in split.items() if key != "file"}


def _check_equal(output_dir: Path, there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> None:
    differences = [
        f"{prefix}{key} was {there.get(key)!r}, is now {now.get(key)!r}"
        for key in sorted(there.keys() | now.keys())
        if there.get(key) != now.get(key)
    ]
    if differences:
        raise ConfigError(
            f"{output_dir}: holds predictions made with other settings: {'; '.join(differences)}. Numbers of both must "
            "not be mixed: choose another output_dir, or overwrite=true to start over."
        )
