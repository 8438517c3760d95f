"""Flags of `toy build`, `toy base`, `toy teacher` and `toy summary`."""

from __future__ import annotations

from typing import Annotated

from video_thinker.keys.flags import FlagParser, folder_there, folder_to_write, value_of
from video_thinker.keys.rules import Count, Seed, Share, above_to, between

SMALL_COUNT = Annotated[int, between(1, 1000)]


def build_parser() -> FlagParser:
    """Make the parser of `toy build`."""
    parser = FlagParser(prog="video-thinker toy build", description="Write a toy world to disk: mp4 clips and items.")
    parser.add_argument("--out", type=folder_to_write, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--seed", type=value_of(Seed), default=0, help="changes clips, questions and traces (default 0)"
    )
    parser.add_argument(
        "--p-wrong", type=value_of(Share), default=0.5, help="share of traces that look the wrong way (default 0.5)"
    )
    parser.add_argument(
        "--max-questions",
        type=value_of(Count),
        metavar="N",
        help="at most so many questions, and clips, per split, to try things out (default: the whole world, which is "
        "the only one that `toy teacher` knows)",
    )
    parser.add_argument("--clean", action="store_true", help="a teacher without errors: the same as --p-wrong 0")
    parser.add_argument(
        "--processes", type=value_of(SMALL_COUNT), default=2, help="processes that write clips (default 2)"
    )
    return parser


def base_parser() -> FlagParser:
    """Make the parser of `toy base`."""
    parser = FlagParser(
        prog="video-thinker toy base", description="Train the base checkpoint of the toy world from scratch."
    )
    parser.add_argument("--out", type=folder_to_write, required=True, metavar="DIR", help="folder for the checkpoint")
    parser.add_argument("--seed", type=value_of(Seed), default=0)
    parser.add_argument(
        "--clips", type=value_of(Count), default=800, help="mp4 files to learn seeing from (default 800)"
    )
    parser.add_argument("--vision-steps", type=value_of(Count), default=400)
    parser.add_argument(
        "--share",
        type=value_of(Annotated[float, above_to(0, 1)]),
        default=1.0,
        help="share of the steps of each round (default 1.0)",
    )
    return parser


def teacher_parser() -> FlagParser:
    """Make the parser of `toy teacher`."""
    parser = FlagParser(
        prog="video-thinker toy teacher",
        description="The toy world's teacher as an OpenAI-like server, until it is interrupted.",
    )
    parser.add_argument("--seed", type=value_of(Seed), default=0, help="that of `toy build` (default 0)")
    parser.add_argument(
        "--port",
        type=value_of(Annotated[int, between(0, 65535)]),
        default=8321,
        help="on 127.0.0.1 (default 8321; 0: one that is free)",
    )
    for flag, what in (
        ("--error-rate", "share of wrong questions, captions and traces"),
        ("--answer-error-rate", "share of wrong answers from notes"),
        ("--fault-rate", "share of requests at which the server fails"),
    ):
        parser.add_argument(flag, type=value_of(Share), default=0.0, metavar="SHARE", help=f"{what} (default 0)")
    return parser


def summary_parser() -> FlagParser:
    """Make the parser of `toy summary`."""
    parser = FlagParser(prog="video-thinker toy summary", description="Summarize a quickstart run.")
    parser.add_argument("run_dir", type=folder_there, help="folder that scripts/quickstart.sh wrote")
    parser.add_argument("--seed", type=value_of(Seed), required=True, help="that of the quickstart")
    return parser
