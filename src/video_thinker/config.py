"""Arguments of the commands: dataclass defaults < YAML file < `key=value` on the command line."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from video_thinker.errors import ConfigError


@dataclass
class ModelArguments:
    """Which model, and how it is loaded."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint folder or hub name."})
    dtype: str = field(default="auto", metadata={"help": "Weights' type: auto, float32, bfloat16 or float16."})
    attn_implementation: str = field(
        default="auto", metadata={"help": "auto: FlashAttention-2 if importable on a GPU, else SDPA."}
    )
    freeze: list[str] = field(
        default_factory=list, metadata={"help": "Parts without gradients: vision_tower, merger, language_model."}
    )


@dataclass
class VideoArguments:
    """How prompts are written and videos are sampled; the same for training, evaluation and `ask`."""

    media_root: str = field(default=".", metadata={"help": "Folder that the items' paths are relative to."})
    prompt_style: str = field(default="trace", metadata={"help": "A key of video_thinker.prompts.PROMPT_STYLES."})
    fps: float = field(default=2.0, metadata={"help": "Sampled frames per second of video."})
    num_frames: int | None = field(default=None, metadata={"help": "Fixed number of frames; wins over fps."})
    min_frames: int = field(default=4, metadata={"help": "Least frames per video; a shorter one is an error."})
    max_frames: int = field(default=16, metadata={"help": "Most frames per video when sampling by fps."})
    min_pixels: int = field(default=28 * 28, metadata={"help": "Least height x width of a frame."})
    max_pixels: int = field(default=128 * 28 * 28, metadata={"help": "Most height x width of a frame."})
    video_backend: str = field(default="auto", metadata={"help": "auto, decord, torchcodec or pyav."})
    media_cache_mib: int = field(default=256, metadata={"help": "In-memory cache of sampled frames; 0 is off."})


@dataclass
class DataArguments(VideoArguments):
    """Which items a training run reads, and what happens to those whose media cannot be read."""

    train_file: str = field(default="", metadata={"help": "Items to train on, JSON or JSONL."})
    eval_file: str | None = field(default=None, metadata={"help": "Items to evaluate on during training."})
    on_decode_error: str = field(
        default="raise", metadata={"help": "raise, or skip: drop unreadable items before the run and list them."}
    )
    max_decode_errors: float = field(
        default=0.01, metadata={"help": "Largest share of items that `skip` may drop before the run is refused."}
    )


def _known_keys(dataclass_types: Sequence[type]) -> list[str]:
    return [f.name for kind in dataclass_types for f in dataclasses.fields(kind) if f.init]


def _check_keys(keys: Sequence[str], dataclass_types: Sequence[type], where: str) -> None:
    known = _known_keys(dataclass_types)
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see the configs folder for the keys there are."
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")


def read_config(dataclass_types: Sequence[type], argv: Sequence[str]) -> dict[str, Any]:
    """Read a YAML file and its overrides: the values that are given, by key, without defaults.

    Args:
        dataclass_types: One or more dataclasses; a key may belong to any of them.
        argv: `[CONFIG.yaml, key=value, …]`; a value is read as YAML (`reward_weights=[1.0,0.5]`).

    Raises:
        ConfigError: the file is missing or no mapping, or a key is misspelt.
    """
    if not argv or "=" in argv[0]:
        raise ConfigError("the first argument must be a YAML config file, e.g. configs/sft/toy.yaml.")
    path = Path(argv[0])
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file.")
    config = yaml.safe_load(path.read_text())
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: must hold a YAML mapping of keys to values.")
    _check_keys(list(config), dataclass_types, str(path))
    for item in argv[1:]:
        key, equals, text = item.removeprefix("--").partition("=")
        if not equals:
            raise ConfigError(f"override {item!r}: write key=value.")
        _check_keys([key], dataclass_types, f"override {item!r}")
        config[key] = yaml.safe_load(text)
        if config[key] is None:
            raise ConfigError(f"override {item!r}: the value is empty.")
    return config


def parse_config(dataclass_types: Sequence[type], argv: Sequence[str]) -> tuple[Any, ...]:
    """Read a YAML file and its overrides into dataclasses; arguments as in `read_config`.

    Raises:
        ConfigError: see `read_config`, or a value has the wrong type.
    """
    from trl import TrlParser

    config = read_config(dataclass_types, argv)
    parser = TrlParser(dataclass_types)
    parser.set_defaults_with_config(**config)
    try:
        return parser.parse_args_into_dataclasses(args=[])
    except SystemExit as error:  # argparse prints the cause and exits
        raise ConfigError(f"{argv[0]} with {list(argv[1:])}: a value has the wrong type or is missing.") from error


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `ConfigError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}.")
