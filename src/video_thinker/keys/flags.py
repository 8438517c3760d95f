"""Flags of the commands that read no config: each value is checked against a type and a rule, as those of keys are.

Each room with such commands has a `flags.py` with one parser for each of them: `report/flags.py` has `ask_parser`. None
imports torch, so that `--help`, a misspelt flag and a missing file are answered at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from video_thinker.errors import ConfigError
from video_thinker.keys.check import Checked, check_value, describe, keys_of
from video_thinker.keys.commands import EXAMPLES
from video_thinker.keys.reading import COMMAND_LINE, read_value
from video_thinker.keys.rules import MOST
from video_thinker.keys.source import REQUIRED
from video_thinker.redaction import redact_random

UNKNOWN = "unrecognized arguments: "
MISSING = "the following arguments are required: "


class FlagParser(argparse.ArgumentParser):
    """A parser whose errors are one line, a `ConfigError`; flags may stand before and after the other arguments."""

    def __init__(self, *args: Any, check: Callable[[argparse.Namespace], None] | None = None, **kwargs: Any) -> None:
        """Make a parser.

        Args:
            *args: As of `argparse.ArgumentParser`.
            check: Called with what was read; raises `ConfigError` where flags contradict one another.
            **kwargs: As of `argparse.ArgumentParser`.
        """
        super().__init__(*args, **kwargs)
        self._check = check
        self._read = argparse.Namespace()
        self._needed: list[argparse.Action] = []

    def error(self, message: str) -> NoReturn:
        """Raise `ConfigError` with what argparse found, and the flag that may have been meant."""
        if message.startswith(UNKNOWN):
            word = message.removeprefix(UNKNOWN).split()[0].partition("=")[0]
            message = f"unknown argument {redact_random(word)!r}{self._meant(word)}"
        message = re.sub(r"^argument ", "", message)
        if message.startswith(MISSING):
            message = self._all_missing(message)
        raise ConfigError(f"{COMMAND_LINE}: {message}; see `{self.prog} --help`.")

    def _all_missing(self, message: str) -> str:
        """Name what is missing of positional arguments and of flags at once, a file that is not there, an example."""
        flags = [one.option_strings[0] for one in self._needed if getattr(self._read, one.dest, None) is None]
        names = [name for name in message.removeprefix(MISSING).split(", ") if name]
        paths = [value for value in vars(self._read).values() if isinstance(value, Path)]
        also = "".join(f"; {str(path)[:200]!r} is not there" for path in paths if not path.exists())
        example = EXAMPLES.get(self.prog.removeprefix("video-thinker "))
        return f"{MISSING}{', '.join([*names, *flags])}{also}{f'; e.g. `{example}`' if example else ''}"

    def _meant(self, word: str) -> str:
        flags = [flag for action in self._actions for flag in action.option_strings]
        close = difflib.get_close_matches(word.replace("_", "-"), flags, n=1)
        return f" (did you mean {close[0]}?)" if close else ""

    def read(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Read a command line.

        Raises:
            ConfigError: a flag is unknown or missing, a value breaks a rule, or a file is not there.
        """
        self._read = argparse.Namespace()
        self._needed = needed = [one for one in self._actions if one.required and one.option_strings]
        for one in needed:  # argparse would name missing flags before it looks for missing words
            one.required = False
        try:
            args = self.parse_intermixed_args(argv, self._read)
        finally:
            for one in needed:
                one.required = True
        if any(getattr(args, one.dest) is None for one in needed):
            self.error(MISSING)
        if self._check is not None:
            self._check(args)
        return args


def value_of(annotation: Any) -> Callable[[str], Any]:
    """Make the `type` of a flag from the type of a key: `value_of(Count)`. Where null is a value, "none" is it, too."""
    key = Checked("flag", annotation, REQUIRED)

    def convert(text: str) -> Any:
        if key.may_be_null and text.lower() in ("none", "null"):
            return None
        try:
            if not text.strip():
                raise ConfigError("empty")
            return check_value(key, read_value("flag", text))
        except ConfigError:
            words = describe(annotation).replace(" or null", " or none")
            words += f" and at most {MOST}" if re.fullmatch(r"[-+]?\d{10,}(\.\d*)?", text.strip()) else ""
            raise argparse.ArgumentTypeError(f"{redact_random(text[:80])!r}: must be {words}") from None

    return convert


def folder_there(text: str) -> Path:
    """Take the path of a folder that must be there."""
    path = Path(text)
    if not path.is_dir():
        found = "is a file, not a folder" if path.exists() else f"no such folder, seen from {Path.cwd()}"
        raise argparse.ArgumentTypeError(f"{text[:200]!r}: {found}")
    return path


def path_there(text: str) -> Path:
    """Take the path of a file or a folder that must be there."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text[:200]!r}: no such file or folder, seen from {Path.cwd()}")
    return path


def file_to_write(text: str) -> Path:
    """Take the path of a file that will be written: no folder may be there."""
    path = Path(text)
    if not text.strip() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text[:200]!r}: is {'a folder' if text.strip() else 'empty'}; name a file")
    if (above := nearest_there(path)) and not above.is_dir():
        raise argparse.ArgumentTypeError(f"{text[:200]!r}: {above} is a file, so nothing can be written below it")
    return path


def folder_to_write(text: str) -> Path:
    """Take the path of a folder that will be written: no file may be there."""
    path = Path(text)
    if not text.strip() or path.is_file():
        raise argparse.ArgumentTypeError(f"{text[:200]!r}: is {'a file' if text.strip() else 'empty'}; name a folder")
    if (above := nearest_there(path)) and not above.is_dir():
        raise argparse.ArgumentTypeError(f"{text[:200]!r}: {above} is a file, so nothing can be written below it")
    return path


def nearest_there(path: Path) -> Path | None:
    """Give the nearest folder above a path, or the file in its way, that is there."""
    return next((above for above in path.absolute().parents if above.exists()), None)


def add_key_flags(
    parser: argparse._ActionsContainer, kind: type, names: Sequence[str], *, given_only: bool = False
) -> None:
    """Add keys of a dataclass as flags, `fps` as `--fps`; with `given_only`, one that is not given is left out."""
    keys, fields = keys_of(kind), {one.name: one for one in dataclasses.fields(kind)}
    for name in names:
        default = argparse.SUPPRESS if given_only else fields[name].default
        words = fields[name].metadata["help"].replace("null:", "none:")
        if default not in (None, argparse.SUPPRESS):
            words += f" Default {default:g}." if isinstance(default, float) else f" Default {default}."
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=value_of(keys[name].annotation),
            default=default,
            metavar=name.upper(),
            help=words,
        )
