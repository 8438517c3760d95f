"""Flags of `score`, `compare`, and of `eval` for several models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from video_thinker.errors import ConfigError
from video_thinker.generation.controls import CONTROLS
from video_thinker.keys.flags import FlagParser, file_to_write, folder_there, folder_to_write, value_of
from video_thinker.keys.rules import Count, Seed
from video_thinker.runs.reading import parse_items

_PAIR = re.compile(r"[a-z]\w*=")
_TAKES_A_VALUE = ("--model", "--suite", "--output-dir")


def score_parser() -> FlagParser:
    """Make the parser of `score`."""
    parser = FlagParser(
        prog="video-thinker score",
        description="Score stored predictions again, without a model.",
        check=lambda args: check_items(args.items),
    )
    _add_runs_and_items(parser)
    return parser


def compare_parser() -> FlagParser:
    """Make the parser of `compare`."""
    parser = FlagParser(
        prog="video-thinker compare",
        description="Tabulate evaluations by benchmark, and test the first against each other on their common items.",
        check=lambda args: check_items(args.items),
    )
    _add_runs_and_items(parser)
    parser.add_argument("--force", action="store_true", help="compare runs of unlike settings or items, with a warning")
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--seed", type=value_of(Seed), default=0, help="of the bootstrap (0)")
    return parser


def _add_runs_and_items(parser: FlagParser) -> None:
    parser.add_argument("runs", nargs="+", type=folder_there, metavar="RUN", help="output_dir of `video-thinker eval`")
    parser.add_argument(
        "--items", action="append", default=[], metavar="SPLIT=FILE", help="items, if not where they were evaluated"
    )


def suite_parser() -> FlagParser:
    """Make the parser of `eval --model …`: several models, or several numbers of frames."""
    parser = FlagParser(
        prog="video-thinker eval",
        description="Evaluate models on a suite. (A config as first argument: one evaluation, CONFIG [key=value …])",
        epilog="key=value pairs are handed to every evaluation: media_root=data/media batch_size=16",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model", action="append", required=True, metavar="MODEL", help="checkpoint, adapter or hub name; repeat it"
    )
    parser.add_argument("--suite", type=Path, required=True, metavar="FILE", help="a config, e.g. configs/eval/id.yaml")
    parser.add_argument(
        "--output-dir", type=folder_to_write, required=True, metavar="DIR", help="gets a folder for each evaluation"
    )
    parser.add_argument(
        "--num-frames", type=value_of(Count), nargs="+", metavar="N", help="one evaluation for each number of frames"
    )
    parser.add_argument("--video", nargs="+", choices=CONTROLS, help="what the models see; default: as in the suite")
    return parser


def split_pairs(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the `key=value` pairs out of a command line, wherever they stand: (flags, pairs)."""
    flags: list[str] = []
    pairs: list[str] = []
    for before, text in zip(["", *argv], argv, strict=False):
        (pairs if _PAIR.match(text) and before not in _TAKES_A_VALUE else flags).append(text)
    return flags, pairs


def check_items(texts: Sequence[str]) -> None:
    """Check that the files of `--items SPLIT=FILE` are there. Raises `ConfigError`."""
    for split, path in parse_items(texts).items():
        if not path.is_file():
            raise ConfigError(f"--items {split}={path}: no such file, seen from {Path.cwd()}; correct the path.")
