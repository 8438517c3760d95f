"""What identifies a checkpoint: a hash over its files, or its commit on the hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

from video_thinker.errors import ConfigError
from video_thinker.models.adapters import adapter_base
from video_thinker.runs.files import file_sha256

MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")
ADAPTER_CONFIG = "adapter_config.json"
NOT_MODEL_FILES = ("trainer_state.json", "training_args.bin", "optimizer.bin", "scheduler.bin")


def model_fingerprint(path: str) -> str:
    """SHA-256 over the weights, configuration and tokenizer of a checkpoint folder; for a hub name, its commit.

    That of an adapter covers its base.

    Raises:
        ConfigError: a hub name that is neither cached nor reachable.
    """
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
