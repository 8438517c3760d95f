"""What identifies a checkpoint: a hash over its files, or its commit on the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from video_thinker.errors import ConfigError
from video_thinker.models.adapters import adapter_base
from video_thinker.runs.files import file_sha256

MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")
ADAPTER_CONFIG = "adapter_config.json"
MIB = 2**20
NOT_MODEL_FILES = ("trainer_state.json", "training_args.bin", "optimizer.bin", "scheduler.bin")


def model_fingerprint(path: str) -> str:
    """SHA-256 over the weights, configuration and tokenizer of a checkpoint folder; for a hub name, its commit.

    That of an adapter covers its base.

    Raises:
        ConfigError: a hub name that is neither cached nor reachable.
    """
    return _with_base(path, _fingerprint)


def _fingerprint(path: str, config_name: str) -> str:
    folder = Path(path)
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in _model_files(folder):
            digest.update(f"{file.name} {file_sha256(file)}\n".encode())
        return digest.hexdigest()
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        config_file = cached_file(path, config_name)
    except OSError as error:
        raise ConfigError(f"model_name_or_path={path!r}: {error}") from error
    return extract_commit_hash(config_file, None) or "unknown"


def quick_fingerprint(path: str) -> str:
    """Identify a checkpoint in a moment: names and sizes of its files, and their first and last MiB.

    It covers an adapter's base, and finds another training's weights; it does not find a single changed weight.

    Raises:
        ConfigError: a hub name that is neither cached nor reachable.
    """
    return _with_base(path, _quick)


def _with_base(path: str, identify: Callable[[str, str], str]) -> str:
    """Identify a checkpoint by path and name of its config; an adapter together with its base."""
    base = adapter_base(path)
    if base is None:
        return identify(path, "config.json")
    return hashlib.sha256(f"{identify(path, ADAPTER_CONFIG)} on {_with_base(base, identify)}".encode()).hexdigest()


def _quick(path: str, config_name: str) -> str:
    folder = Path(path)
    if not folder.is_dir():
        return _fingerprint(path, config_name)
    digest = hashlib.sha256()
    for file in _model_files(folder):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(MIB))
            opened.seek(max(0, size - MIB))
            digest.update(opened.read(MIB))
    return digest.hexdigest()


def _model_files(folder: Path) -> list[Path]:
    files = {file for pattern in MODEL_FILES for file in folder.glob(pattern) if file.name not in NOT_MODEL_FILES}
    return sorted(files)
