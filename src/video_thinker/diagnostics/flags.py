"""Flags of `plan`, `doctor`, `validate` and `init`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from video_thinker.config import SAMPLING_KEYS, VideoArguments
from video_thinker.errors import ConfigError
from video_thinker.keys.commands import CONFIG_CLASSES
from video_thinker.keys.flags import (
    FlagParser,
    add_key_flags,
    file_to_write,
    value_of,
)
from video_thinker.keys.rules import Count, Positive
from video_thinker.keys.settings import known_keys, read_config, read_given

STAGES = ("sft", "grpo")
VIDEO_KEYS = ("video_backend", "media_timeout_s", *SAMPLING_KEYS)
"""Keys of a run that are flags of `validate`, too."""


def plan_parser() -> FlagParser:
    """Make the parser of `plan`."""
    parser = FlagParser(
        prog="video-thinker plan", description="Predict a run's memory on GPUs and host.", check=_check_plan
    )
    parser.add_argument("config", help="an sft or grpo config")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="as for the run itself")
    parser.add_argument(
        "--gpus", type=value_of(Count), default=1, metavar="N", help="number of GPUs, all in one machine (default 1)"
    )
    parser.add_argument(
        "--gpu-memory", type=value_of(Positive), metavar="GIB", help="memory of one GPU in GiB (default: this one's)"
    )
    parser.add_argument(
        "--host-memory",
        type=value_of(Positive),
        metavar="GIB",
        help="memory of the machine (default: this one's; with --gpu-memory alone it is not checked)",
    )
    parser.add_argument("--stage", choices=STAGES, default="", help="if the config's keys do not tell")
    parser.add_argument(
        "--shape", default="", metavar="MODEL", help="folder or known checkpoint to take the shape from"
    )
    parser.add_argument("--text-tokens", type=value_of(Count), metavar="N", help="text tokens of the longest prompt")
    parser.add_argument("--target-tokens", type=value_of(Count), metavar="N", help="tokens of the longest trace (sft)")
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write all numbers there, too")
    return parser


def init_parser() -> FlagParser:
    """Make the parser of `init`."""
    parser = FlagParser(
        prog="video-thinker init", description="Copy the configs, scripts and toy base of the package into a folder."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of your project; nothing in it is overwritten")
    return parser


def _check_plan(args: argparse.Namespace) -> None:
    argv = (args.config, *args.overrides)
    read_config(CONFIG_CLASSES[args.stage or find_stage(argv)], argv)


def find_stage(argv: Sequence[str]) -> str:
    """Tell a config's stage by a key that only one stage has, or else by its folder (`configs/grpo/…`).

    Raises:
        ConfigError: neither tells.
    """
    sft, grpo = (known_keys(CONFIG_CLASSES[stage]) for stage in STAGES)
    given = read_given((*CONFIG_CLASSES["sft"], *CONFIG_CLASSES["grpo"]), argv)
    only = {"sft": [k for k in given if k not in grpo], "grpo": [k for k in given if k not in sft]}
    if bool(only["sft"]) != bool(only["grpo"]):
        return "sft" if only["sft"] else "grpo"
    folder = Path(argv[0]).parent.name
    if folder in STAGES and not only["sft"]:
        return folder
    raise ConfigError(f"{argv[0]}: its keys do not tell whether it is an sft or a grpo config; give --stage.")


def doctor_parser() -> FlagParser:
    """Make the parser of `doctor`."""
    parser = FlagParser(prog="video-thinker doctor", description="Check whether this machine will train.")
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write the findings there, too")
    return parser


def validate_parser() -> FlagParser:
    """Make the parser of `validate`."""
    parser = FlagParser(
        prog="video-thinker validate",
        description="Check annotation and media files.",
        epilog="key=value gives a run's video keys, e.g. fps=1 max_frames=32 video_backend=pyav: files are then "
        "decoded as that run would. Without FILE the files that the config names are checked.",
    )
    parser.add_argument("files", nargs="*", metavar="FILE | key=value", help="annotation files, JSON lists or JSONL")
    parser.add_argument("--config", metavar="YAML", help="config of a run (sft, grpo, eval, difficulty) to check for")
    parser.add_argument("--model", help="checkpoint whose special tokens and patch size count")
    parser.add_argument("--media-root", metavar="DIR", help="folder that the paths in the files start from")
    parser.add_argument("--skip-media", action="store_true", help="check the rows only, open no media file")
    parser.add_argument(
        "--workers", type=value_of(Count), default=4, metavar="N", help="media files opened at a time (default 4)"
    )
    parser.add_argument(
        "--max-findings",
        type=value_of(Count),
        default=5,
        metavar="N",
        help="places shown of each kind of finding (default 5; all are counted)",
    )
    keys = parser.add_argument_group("video keys, as in the config of the run to come")
    add_key_flags(keys, VideoArguments, VIDEO_KEYS, given_only=True)
    return parser
