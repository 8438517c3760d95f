"""Flags of `merge`."""

from __future__ import annotations

import argparse
from pathlib import Path

from video_thinker.errors import ConfigError
from video_thinker.keys.flags import FlagParser, folder_to_write
from video_thinker.models.names import check_model_name


def merge_parser() -> FlagParser:
    """Make the parser of `merge`."""
    parser = FlagParser(
        prog="video-thinker merge",
        description="Merge a LoRA adapter into its base: a plain checkpoint.",
        check=_check_merge,
    )
    parser.add_argument("adapter", help="adapter folder, as training wrote it, or hub name")
    parser.add_argument("out", type=folder_to_write, help="folder for the checkpoint; must be empty or not exist")
    return parser


def _check_merge(args: argparse.Namespace) -> None:
    check_new_folder(args.out)
    check_model("adapter", args.adapter)


def check_new_folder(out: Path) -> None:
    """Refuse a folder that holds something. Raises `ConfigError`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"OUT={str(out)!r} is there and not empty; nothing is overwritten: choose another folder.")


def check_model(name: str, value: str) -> None:
    """Check that a model is there, without loading it. Raises `ConfigError`, which begins with the flag."""
    try:
        check_model_name(value)
    except ConfigError as error:
        raise ConfigError(f"{name}={value!r}: {error}") from error
