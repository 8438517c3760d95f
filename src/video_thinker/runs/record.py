"""What a run was: its resolved config, package versions and git commit, written beside its output."""

from __future__ import annotations

import dataclasses
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from video_thinker.redaction import redact_values
from video_thinker.runs.files import write_text

RUN_INFO = "run.yaml"
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "deepspeed",
    "peft",
    "datasets",
    "flash-attn",
    "bitsandbytes",
    "openai",
    "qwen-vl-utils",
    "decord",
    "torchcodec",
    "av",
    "nltk",
    "rouge-score",
    "jiwer",
    "math-verify",
    "latex2sympy2_extended",
    "scipy",
)


def package_versions() -> dict[str, str]:
    """Versions of the packages a result depends on; "not installed" where one is missing."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def git_commit() -> str:
    """The commit of the source tree this package was loaded from, "unknown" outside a repository."""
    try:
        shown = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return shown.stdout.strip()


def run_config(*arguments: Any, **values: Any) -> dict[str, Any]:
    """Flatten the resolved arguments of a run (dataclass instances), and further values, as they read in `run.yaml`."""
    config: dict[str, Any] = {}
    for argument in arguments:
        config.update(argument.to_dict() if hasattr(argument, "to_dict") else dataclasses.asdict(argument))
    read_back: dict[str, Any] = yaml.safe_load(yaml.safe_dump({**config, **values}))
    return read_back


def write_run_info(output_dir: str | Path, config: dict[str, Any]) -> Path:
    """Write `run.yaml`: the settings of a run (`run_config`), package versions and git commit."""
    path = Path(output_dir) / RUN_INFO
    info = {"config": redact_values(config), "packages": package_versions(), "git_commit": git_commit()}
    write_text(path, yaml.safe_dump(info, sort_keys=False, allow_unicode=True))
    return path
