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
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from video_thinker.errors import ConfigError, DataError
from video_thinker.evaluation.metrics import Graded, Prediction
from video_thinker.runs.record import git_commit, package_versions

logger = logging.getLogger(__name__)

PREDICTION_FIELDS = tuple(field.name for field in dataclasses.fields(Prediction))
MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")
DECODER_PACKAGES = {"decord": "decord", "torchcodec": "torchcodec", "pyav": "av"}
"""Video backend -> package whose version says which decoder it is."""

ADAPTER_CONFIG = "adapter_config.json"
NOT_MODEL_FILES = ("trainer_state.json", "training_args.bin", "optimizer.bin", "scheduler.bin")


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
        for number, line in enumerate(whole.decode().split("\n") if whole else [], start=1):
            prediction = self._parse(line, number)
            predictions[prediction.problem_id] = prediction
        return predictions

    def _parse(self, line: str, number: int) -> Prediction:
        try:
            row = json.loads(line)
            return Prediction(**{name: row[name] for name in PREDICTION_FIELDS})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path}:{number}: not a prediction ({type(error).__name__}: {error}); a row has the fields "
                f"{', '.join(PREDICTION_FIELDS)}; remove the line, and its sample is run again."
            ) from error

    def append(self, graded: Iterable[Graded]) -> None:
        """Add rows; they are with the operating system when this returns, and survive a kill of the process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._remove_half_line()
        with self.path.open(
            "a", encoding="utf-8", errors="replace"
        ) as file:  # half a surrogate pair is no reason to stop
            file.write(to_lines(graded))

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


def model_fingerprint(path: str) -> str:
    """SHA-256 over the weights, configuration and tokenizer of a checkpoint folder; for a hub name, its commit.

    That of an adapter covers its base.

    Raises:
        ConfigError: a hub name that is neither cached nor reachable.
    """
    from video_thinker.models.adapters import adapter_base  # brings torch, which stored predictions do not need

    base = adapter_base(path)
    if base is not None:
        return hashlib.sha256(f"{_fingerprint(path, ADAPTER_CONFIG)} on {model_fingerprint(base)}".encode()).hexdigest()
    return _fingerprint(path, "config.json")


def _fingerprint(path: str, config_name: str) -> str:
    folder = Path(path)
    if folder.is_dir():
        files = {file for pattern in MODEL_FILES for file in folder.glob(pattern) if file.name not in NOT_MODEL_FILES}
        digest = hashlib.sha256()
        for file in sorted(files):
            digest.update(f"{file.name} {file_sha256(file)}\n".encode())
        return digest.hexdigest()
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        config_file = cached_file(path, config_name)
    except OSError as error:
        raise ConfigError(f"model_name_or_path={path!r}: {error}") from error
    return extract_commit_hash(config_file, None) or "unknown"


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a kill leaves either the old file or the new one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a kill leaves either the old one or the new one, also if several processes write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # processes of several machines may write it
    draft.write_text(text, encoding="utf-8", errors="replace")
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; `{}` if there is no such file.

    Raises:
        DataError: it is not JSON.
    """
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: {error.msg}; the file is damaged; choose another output_dir."
        ) from error


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
    """
    manifest_file = output_dir / "manifest.json"
    if overwrite:
        for file in [manifest_file, output_dir / "metrics.json", *(output_dir / "predictions").rglob("*.jsonl")]:
            file.unlink(missing_ok=True)
    has_predictions = any(file.stat().st_size for file in (output_dir / "predictions").rglob("*.jsonl"))
    manifest = read_json(manifest_file) if has_predictions else {}
    if manifest:
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
    everything = {**first, **manifest, "splits": all_splits, "config": dict(config)}
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
