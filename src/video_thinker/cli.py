"""`video-thinker COMMAND …`: one line per command, each imported only when it is called."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from importlib import metadata

from video_thinker.disk import WORDS, say, shorten
from video_thinker.errors import VideoThinkerError
from video_thinker.keys.commands import CONFIG_CLASSES
from video_thinker.keys.environment import check_environment
from video_thinker.keys.flags import FlagParser
from video_thinker.keys.help import help_text
from video_thinker.keys.settings import check_command_line
from video_thinker.memory import memory_errors
from video_thinker.redaction import STDOUT, RedactingFormatter, redact_random, redacted_output
from video_thinker.runs.record import note_launch

COMMANDS = {
    "sft": ("video_thinker.training.sft", "CONFIG [key=value …]: supervised fine-tuning on traces"),
    "grpo": ("video_thinker.training.grpo", "CONFIG [key=value …]: GRPO on outcome and format rewards"),
    "eval": (
        "video_thinker.evaluation.command",
        "CONFIG [key=value …], or --model A --suite CONFIG …: evaluate",
    ),
    "score": ("video_thinker.evaluation.score", "RUN …: score stored predictions again, without a model"),
    "compare": ("video_thinker.evaluation.compare", "RUN RUN …: evaluations side by side, with paired tests"),
    "report": ("video_thinker.report.command", "RUN … --out FILE: one page about evaluations and training"),
    "prepare": ("video_thinker.datasets.prepare", "NAME --raw FILE --out FILE: turn a benchmark's file into items"),
    "ask": ("video_thinker.report.ask", 'VIDEO "question" --model DIR: print the trace, draw the timeline'),
    "synthesize": ("video_thinker.synthesis.run", "CONFIG [key=value …]: raw annotations -> items with curated traces"),
    "difficulty": ("video_thinker.evaluation.difficulty", "CONFIG [key=value …]: keep items answered right sometimes"),
    "completions": (
        "video_thinker.runs.completions",
        "FILE [--step N] [--sample ID] [--wrong]: read what GRPO sampled",
    ),
    "merge": ("video_thinker.models.merge", "ADAPTER OUT: merge a LoRA adapter into its base, a plain checkpoint"),
    "card": (
        "video_thinker.report.card",
        "MODEL EVAL_DIR …: put results of evaluations into the model card that training wrote",
    ),
    "plan": (
        "video_thinker.diagnostics.plan",
        "CONFIG --gpus N [--gpu-memory GIB]: will it fit GPUs and host, and what to change if not",
    ),
    "init": (
        "video_thinker.diagnostics.init",
        "DIR: copy configs, scripts and the toy base into a folder",
    ),
    "doctor": (
        "video_thinker.diagnostics.doctor",
        "check this machine: packages, GPUs, decoders, positions, patch embedding",
    ),
    "validate": ("video_thinker.diagnostics.validate", "FILE … --media-root DIR: check every row and every media file"),
    "toy teacher": (
        "video_thinker.toyworld.serve",
        "--seed S --port P: the toy world as an OpenAI-like server",
    ),
    "toy build": ("video_thinker.toyworld.build", "--out DIR --seed S: make the clips and items of the toy world"),
    "toy summary": ("video_thinker.toyworld.summary", "RUN_DIR --seed S: the quickstart's table and picture"),
    "toy base": ("video_thinker.toyworld.base", "--out DIR: train the toy world's base checkpoint from scratch"),
}


TOPICS = {
    "train": ("sft", "grpo", "difficulty", "merge", "card", "plan", "init"),
    "data": ("validate", "prepare", "synthesize"),
    "look": ("eval", "score", "compare", "ask", "report", "completions", "doctor"),
    "toy world": ("toy build", "toy base", "toy teacher", "toy summary"),
}
"""The commands in the order in which the usage shows them."""


EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_PIPE_CLOSED = 128 + signal.SIGPIPE
AGAIN = dict.fromkeys(
    ("sft", "grpo", "eval", "synthesize", "difficulty"), "The same command continues where this one ended."
)
"""Commands that take up their own work again."""


def usage() -> str:
    """List the commands by topic."""
    width = max(map(len, COMMANDS))
    lines = ["usage: video-thinker COMMAND …", "       video-thinker COMMAND --help | --version"]
    for topic, names in TOPICS.items():
        lines += ["", topic, *(f"  {name:<{width}}  {COMMANDS[name][1]}" for name in names)]
    return "\n".join(lines) + "\n"


def find_command(argv: list[str]) -> tuple[str, list[str]] | None:
    """Split off the command's name, of one or two words; `None` if there is no such command."""
    for words in (2, 1):
        name = " ".join(argv[:words])
        if name in COMMANDS:
            return name, argv[words:]
    return None


def unknown_command(argv: list[str]) -> str:
    """Name the command that is nearest, or list all."""
    for words in (2, 1):
        close = difflib.get_close_matches(" ".join(argv[:words]), COMMANDS, n=1)
        if close:
            return f"video-thinker: unknown command {' '.join(argv[:words])!r}; did you mean {close[0]!r}?\n"
    return f"video-thinker: unknown command {redact_random(argv[0])!r}\n\n{usage()}"


def flag_parser(name: str) -> FlagParser:
    """Make the parser of a command that reads no config: of `ask` it is `ask_parser` in the `flags.py` of its room."""
    room = COMMANDS[name][0].rpartition(".")[0]
    parser: FlagParser = getattr(importlib.import_module(f"{room}.flags"), f"{name.split()[-1]}_parser")()
    return parser


def check_first(name: str, argv: list[str]) -> bool:
    """Answer `--help` and check keys, values and paths before the command imports torch; false if all is said.

    Raises:
        ConfigError: the config or an override is wrong.
    """
    if name not in CONFIG_CLASSES:
        flag_parser(name).read(argv)
        return True
    wants_help = argv[:1] in (["-h"], ["--help"])
    if name == "eval" and argv[:1] and (wants_help or argv[0].startswith("--")):
        return True
    if wants_help:
        sys.stdout.write(help_text(name, CONFIG_CLASSES[name], *argv[1:2]))
        return False
    check_environment(os.environ)
    note_launch(name, argv, check_command_line(name, argv))
    return True


def main(argv: list[str] | None = None) -> int:
    """Run one command; an error the user can act on is printed without a traceback and gives exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    with redacted_output(argv, keeps_files=bool(AGAIN.keys() & argv[:1])):
        return _dispatch(argv)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        sys.stdout.write(f"video-thinker {metadata.version('video-thinker')}\n")
        return 0
    found = find_command(argv)
    if found is None:
        sys.stderr.write(unknown_command(argv))
        return 2
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # on names of a version to come
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx", "httpx2", "openai", "datasets", "filelock", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return _run(*found)


def _run(name: str, argv: list[str]) -> int:
    try:
        if not check_first(name, argv):
            return 0
        command: Callable[[list[str]], int] = importlib.import_module(COMMANDS[name][0]).main
        with memory_errors(name):
            code = command(argv)
        sys.stdout.flush()
        return code
    except VideoThinkerError as error:
        sys.stderr.write(f"\n{type(error).__name__}: {error}\n")
        return 2
    except BrokenPipeError as error:
        if error.filename != STDOUT:
            raise
        return EXIT_PIPE_CLOSED  # `video-thinker score … | head`: who reads has seen enough
    except OSError as error:  # a file that a command reads or writes; what it computed is kept as its errors say
        if error.errno not in WORDS:
            raise
        place = f"{shorten(error.filename)}: " if error.filename is not None else ""
        sys.stderr.write(f"\n{type(error).__name__}: {place}{say(error)}\n")
        return 2
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends what Python still waits for
        sys.stderr.write(f"\n{name}: interrupted by Ctrl-C; what was written is complete. {AGAIN.get(name, '')}\n")
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
