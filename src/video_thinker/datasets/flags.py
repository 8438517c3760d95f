"""Flags of `prepare`."""

from __future__ import annotations

import argparse
import difflib

from video_thinker.datasets import BENCHMARKS
from video_thinker.errors import ConfigError
from video_thinker.keys.flags import FlagParser, file_to_write, folder_there, path_there, value_of
from video_thinker.keys.rules import CountOrZero


def prepare_parser() -> FlagParser:
    """Make the parser of `prepare`."""
    parser = FlagParser(
        prog="video-thinker prepare",
        description="Turn a benchmark's official annotation file into items for `video-thinker eval`.",
        check=_check_prepare,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(sorted(BENCHMARKS)))
    parser.add_argument("--list", action="store_true", help="name the benchmarks, their subsets and official files")
    parser.add_argument(
        "--raw",
        type=path_there,
        metavar="FILE",
        help="the official annotation file (JSON, JSONL, parquet), or the folder of its tasks",
    )
    parser.add_argument(
        "--media-root",
        type=folder_there,
        metavar="DIR",
        help="folder of the videos, the media_root of the evaluation; looks for each one",
    )
    parser.add_argument(
        "--out", type=file_to_write, metavar="FILE", help="items file to write; JSON, or JSONL if it ends in .jsonl"
    )
    parser.add_argument("--subset", help="write a named part only, e.g. reasoning of cg_bench")
    parser.add_argument(
        "--strict", action="store_const", const=0, dest="allow_errors", help="write nothing if a question is refused"
    )
    parser.add_argument(
        "--allow-errors", type=value_of(CountOrZero), metavar="N", help="write nothing if more than N are refused"
    )
    parser.add_argument(
        "--max-findings",
        type=value_of(CountOrZero),
        default=50,
        metavar="N",
        help="findings shown of a kind (default 50)",
    )
    return parser


def _check_prepare(args: argparse.Namespace) -> None:
    known = ", ".join(sorted(BENCHMARKS))
    if args.list or args.name is None:
        if args.name is None and (args.raw or args.out) and not args.list:
            raise ConfigError(f"command line: which benchmark is it? Give its NAME: {known}")
        return
    if args.name not in BENCHMARKS:
        raise ConfigError(f"command line: there is no benchmark {args.name!r}{_meant(args.name)}; there are {known}")
    subsets = BENCHMARKS[args.name].subsets
    if args.subset is not None and args.subset not in subsets:
        has = ", ".join(subsets) or "none"
        raise ConfigError(f"--subset: {args.name} has no subset {args.subset!r}; it has {has}")
    if absent := [f"--{key}" for key in ("raw", "out") if getattr(args, key) is None]:
        raise ConfigError(f"{' and '.join(absent)} missing; {args.name} is made from {BENCHMARKS[args.name].file}")
    if args.out.absolute() == args.raw.absolute() or args.out.exists() and args.out.samefile(args.raw):
        raise ConfigError(f"--out {args.out}: is the file of --raw, which would be overwritten; name another file")


def _meant(name: str) -> str:
    plain = name.lower().replace("-", "_")
    close = difflib.get_close_matches(plain, BENCHMARKS, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
