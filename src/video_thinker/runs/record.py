"""What a run was: its resolved config, package versions and git commit, written beside its output."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import subprocess
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from video_thinker.errors import ConfigError
from video_thinker.redaction import is_secret_name, redact, redact_values
from video_thinker.runs.files import file_sha256, write_text

RUN_INFO = "run.yaml"
SAMPLES_FILE = "samples.jsonl"
STATE = "trainer_state.json"
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


@dataclasses.dataclass(frozen=True)
class Launch:
    """The command line that this process was started with: command, its arguments, and the keys that were set."""

    command: str
    argv: tuple[str, ...]
    keys: tuple[str, ...]


_launch: Launch | None = None
DATA_KEYS = ("train_file", "eval_file", "items_file")


def note_launch(command: str, argv: Sequence[str], keys: Iterable[str]) -> None:
    """Remember the command line for `run.yaml`; the command line calls this once it has checked the config."""
    global _launch
    _launch = Launch(command, tuple(argv), tuple(keys))


def without_secrets(value: Any) -> Any:
    """Leave out of a mapping, and of those in it, what its name says is secret: tokens, keys of servers, passwords."""
    if isinstance(value, dict):
        return {name: without_secrets(one) for name, one in value.items() if not is_secret_name(str(name))}
    return [without_secrets(one) for one in value] if isinstance(value, list) else value


def hide_secrets(argv: Iterable[str]) -> list[str]:
    """Give a command line without the values of words `key=value` that are secret, or hold a secret."""
    words = []
    for word in argv:
        name, equals, text = word.partition("=")
        try:
            value = yaml.safe_load(text) if equals and text[:1] in "{[" else None
        except yaml.YAMLError:
            value = None
        is_secret = bool(equals) and (is_secret_name(name) or without_secrets(value) != value)
        words.append(f"{name}=…" if is_secret else redact(word))
    return words


def write_run_info(output_dir: str | Path, config: dict[str, Any]) -> Path:
    """Write `run.yaml`: the settings of a run (`run_config`), those that were set first, and how it was started.

    It is a config itself: `video-thinker COMMAND run.yaml` sets what was set. It holds no keys to servers: values whose
    names say that they are secret are left out.
    """
    path = Path(output_dir) / RUN_INFO
    config = redact_values(without_secrets(config))
    keys = [] if _launch is None else [key for key in _launch.keys if key in config]
    write_text(path, "".join(_parts(config, keys)))
    return path


def read_run_info(path: Path) -> dict[str, Any]:
    """Read a `run.yaml`, which holds at least a mapping `config`.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        info = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: is damaged, or not a run's record ({' '.join(str(error).split())}); copy it again, or delete it."
        ) from error
    if not isinstance(info, dict) or not isinstance(info.get("config"), dict):
        raise ConfigError(
            f"{path}: is cut short, or not a run's record, which holds a mapping `config`; copy it again, or delete it."
        )
    return info


def find_run_file(model: str) -> Path | None:
    """Find the `run.yaml` a training run wrote for a checkpoint: beside it, or above a `checkpoint-*` folder."""
    folder = Path(model)
    folders = [folder, folder.parent] if folder.name.startswith("checkpoint-") else [folder]
    return next((path / RUN_INFO for path in folders if (path / RUN_INFO).is_file()), None)


def _parts(config: dict[str, Any], keys: Sequence[str]) -> Iterator[str]:
    def dump(value: Any) -> str:
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)

    def indent(value: dict[str, Any]) -> str:
        return textwrap.indent(dump(value), "  ") if value else ""

    if _launch is not None:
        yield f"# This file is a config: video-thinker {_launch.command} THIS_FILE sets what was set again.\n"
        yield dump(
            {
                "command": _launch.command,
                "command_line": shlex.join(["video-thinker", _launch.command, *hide_secrets(_launch.argv)]),
            }
        )
        yield dump({"set": list(keys)})
    yield "config:\n"
    yield "  # what was set\n" + indent({key: config[key] for key in keys}) if keys else ""
    yield "  # defaults\n" if keys else ""
    yield indent({key: value for key, value in config.items() if key not in keys})
    hashes = {key: file_sha256(config[key]) for key in DATA_KEYS if config.get(key) and Path(config[key]).is_file()}
    yield dump({"data_sha256": hashes, "date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine()})
    yield dump({"packages": package_versions(), "git_commit": git_commit()})


def _machine() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
