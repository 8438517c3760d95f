"""Flags of `ask`, `report` and `card`."""

from __future__ import annotations

import argparse
import dataclasses
import string
from pathlib import Path
from typing import Annotated

from video_thinker.config import SAMPLING_KEYS, ServerArguments, VideoArguments
from video_thinker.data.decoding.failures import check_file
from video_thinker.errors import ConfigError
from video_thinker.evaluation.flags import check_items
from video_thinker.generation.arguments import AnswerArguments, EngineArguments
from video_thinker.keys.flags import FlagParser, add_key_flags, file_to_write, folder_there, value_of
from video_thinker.keys.rules import (
    DTYPES,
    Attention,
    Count,
    Dtype,
    NotNegative,
    Seed,
    above_to,
    at_least,
)
from video_thinker.models.flags import check_model
from video_thinker.runs.reading import make_labels

SAMPLING_FIELDS = ("prompt_style", *SAMPLING_KEYS)
"""Keys of `VideoArguments` that are flags of `ask` and are taken over from a training run."""

ANSWER_KEYS = tuple(one.name for one in dataclasses.fields(AnswerArguments))
"""Keys that say who answers; all are flags of `ask`."""


def ask_parser() -> FlagParser:
    """Make the parser of `ask`; a sampling flag that is not given is left out."""
    parser = FlagParser(
        prog="video-thinker ask",
        description="Ask a model about one video: print its trace, draw the timeline.",
        check=_check_ask,
    )
    parser.add_argument("video", type=Path, help="video file")
    parser.add_argument("question")
    parser.add_argument(
        "--model", required=True, help="checkpoint or adapter, a folder or hub name; its name on the server of base_url"
    )
    parser.add_argument("--options", nargs="+", default=[], help='answers to choose from, "A. red" or just "red"')
    parser.add_argument("--no-letters", action="store_true", help="leave options as words, without letters")
    parser.add_argument(
        "--out", type=file_to_write, help="timeline PNG (default: VIDEO's name + .timeline.png, here)", metavar="FILE"
    )
    parser.add_argument("--no-picture", action="store_true", help="print only")
    sampling = parser.add_argument_group("sampling (default: as the model was trained, else the project's defaults)")
    add_key_flags(sampling, VideoArguments, SAMPLING_FIELDS, given_only=True)
    add_key_flags(sampling, VideoArguments, ("video_backend", "media_timeout_s"))
    generation = parser.add_argument_group("generation")
    generation.add_argument("--max-new-tokens", type=value_of(Count), default=1024, metavar="N")
    generation.add_argument(
        "--temperature", type=value_of(NotNegative), default=0.0, help="0 (the default) is greedy", metavar="T"
    )
    generation.add_argument("--top-p", type=value_of(Annotated[float, above_to(0, 1)]), default=1.0, metavar="P")
    generation.add_argument("--seed", type=value_of(Seed), default=0)
    generation.add_argument("--dtype", type=value_of(Dtype), default="auto", help=", ".join(DTYPES))
    generation.add_argument("--attn-implementation", type=value_of(Attention), default="auto", help="see the key")
    for title, kind in (("engine", EngineArguments), ("server (docs/evaluation_server.md)", ServerArguments)):
        names = [one.name for one in dataclasses.fields(kind)]
        add_key_flags(parser.add_argument_group(title), kind, names, given_only=True)
    return parser


def _check_ask(args: argparse.Namespace) -> None:
    check_file(args.video, "")
    if args.options and not 2 <= len(args.options) <= len(string.ascii_uppercase):
        raise ConfigError(f"--options: {len(args.options)} given; give 2 to {len(string.ascii_uppercase)}, or none.")
    keys = AnswerArguments(**{name: value for name, value in vars(args).items() if name in ANSWER_KEYS})
    if keys.backend == "local":
        check_model("--model", args.model)


def report_parser() -> FlagParser:
    """Make the parser of `report`."""
    parser = FlagParser(
        prog="video-thinker report",
        description="Write one self-contained HTML page about evaluations, training runs and synthesized traces.",
        check=_check_report,
    )
    parser.add_argument(
        "runs", nargs="+", type=folder_there, metavar="RUN", help="output_dir of `eval`, `sft`, `grpo` or `synthesize`"
    )
    parser.add_argument("--out", type=file_to_write, required=True, help="the HTML file to write", metavar="FILE")
    parser.add_argument("--title", default="Video-Thinker report")
    parser.add_argument(
        "--items", action="append", default=[], metavar="SPLIT=FILE", help="items, if not where they were evaluated"
    )
    parser.add_argument(
        "--media-root", type=folder_there, help="folder of the media, if not where it was evaluated", metavar="DIR"
    )
    parser.add_argument(
        "--frames-per-sample",
        type=value_of(Annotated[int, at_least(2)]),
        default=8,
        metavar="N",
        help="most frames per video (8)",
    )
    parser.add_argument(
        "--max-samples", type=value_of(Count), default=1000, metavar="N", help="most samples shown of each split (1000)"
    )
    add_key_flags(parser, VideoArguments, ("media_timeout_s",))
    return parser


def _check_report(args: argparse.Namespace) -> None:
    check_items(args.items)
    make_labels(args.runs)


def card_parser() -> FlagParser:
    """Make the parser of `card`."""
    parser = FlagParser(
        prog="video-thinker card",
        description="Put results of evaluations into a model's card (README.md).",
        check=lambda args: check_items(args.items),
    )
    parser.add_argument("model", type=folder_there, metavar="MODEL", help="folder of a checkpoint or an adapter")
    parser.add_argument(
        "evaluations",
        nargs="*",
        default=[],
        type=folder_there,
        metavar="EVAL_DIR",
        help="output_dir of evaluations",
    )
    parser.add_argument(
        "--items", action="append", default=[], metavar="SPLIT=FILE", help="items, if not where they were evaluated"
    )
    return parser
