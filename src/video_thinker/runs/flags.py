"""Flags of `completions`."""

from __future__ import annotations

from pathlib import Path

from video_thinker.keys.flags import FlagParser, value_of
from video_thinker.keys.rules import CountOrZero


def completions_parser() -> FlagParser:
    """Make the parser of `completions`."""
    parser = FlagParser(prog="video-thinker completions", description="Page through sampled completions.")
    parser.add_argument("file", type=Path, metavar="FILE", help="completions.jsonl in a GRPO run's output_dir")
    parser.add_argument("--step", type=value_of(CountOrZero), help="only those sampled for this step")
    parser.add_argument("--sample", metavar="ID", help="only those of this problem_id")
    parser.add_argument("--wrong", action="store_true", help="only those whose accuracy reward is 0")
    return parser
