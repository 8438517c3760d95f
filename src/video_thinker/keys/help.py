"""`video-thinker COMMAND --help`: the keys of a config by topic; `--help all`, `--help KEY`."""

from __future__ import annotations

import difflib
import re
import shutil
import textwrap
from collections.abc import Sequence

from video_thinker.errors import ConfigError
from video_thinker.keys.check import OURS, Checked, accepts, keys_in_source
from video_thinker.keys.commands import EXAMPLES
from video_thinker.keys.source import REQUIRED, Key, KeyGroup, key_groups

COLUMN = 34
MAX_WIDTH = 110


def group_title(name: str) -> str:
    """Name a class of this package in words: `TokenBudgetArguments` is "Token budget"."""
    name = name.removesuffix("Arguments")
    if name.endswith("Config"):
        name = name.removesuffix("Config").removeprefix("Video")
    first, *rest = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", name)
    first = {"Peft": "LoRA", "Run": "Every run", "Eval": "Evaluation"}.get(first, first)
    return " ".join([first, *(word.lower() for word in rest)])


def help_text(command: str, classes: Sequence[str], wanted: str = "") -> str:
    """Write the help of a command that reads a config.

    Args:
        command: The command.
        classes: Its classes of keys, as `CONFIG_CLASSES` has them.
        wanted: Nothing: our keys; "all": those of TRL and Transformers, too; else the name of one key.

    Raises:
        ConfigError: there is no key of this name.
    """
    groups = [group for one in classes for group in key_groups(*one.rsplit(".", 1))]
    if wanted and wanted != "all":
        return _one_key(classes, groups, wanted.lstrip("-"))
    return "\n".join([*_head(command, wanted), *_all_groups(groups, wanted == "all"), ""])


def _head(command: str, wanted: str) -> list[str]:
    lines = [
        f"usage: video-thinker {command} CONFIG.yaml [key=value …]",
        "",
        "Defaults < CONFIG.yaml < key=value; a value is read as YAML, and null unsets what may be unset.",
        f"e.g.   {EXAMPLES[command]}",
    ]
    more = "" if wanted == "all" else "`--help all`: the keys of TRL and Transformers, too.  "
    return [*lines, f"{more}`--help KEY`: one key in full."]


def _all_groups(groups: list[KeyGroup], with_libraries: bool) -> list[str]:
    width = max(60, min(MAX_WIDTH, shutil.get_terminal_size().columns))
    lines: list[str] = []
    seen: set[str] = set()
    for group in sorted(groups, key=lambda one: not one.origin.startswith(OURS)):
        ours = group.origin.startswith(OURS)
        keys = [key for key in group.keys if key.name not in seen]
        seen |= {key.name for key in keys}
        if not keys or not (ours or with_libraries):
            continue
        title = group_title(group.name) if ours else f"{group.name.lstrip('_')} ({group.origin.split('.')[0]})"
        lines += ["", *textwrap.wrap(f"{title}: {group.summary}" if ours else title, width)]
        for key in keys:
            lines += _entry(key, width)
    return lines


def _entry(key: Key, width: int) -> list[str]:
    name = f"  {key.name}" + (" (required)" if key.default == REQUIRED else f"={key.default}")
    text = " ".join(key.help.split())
    if len(name) >= COLUMN:
        return [name, *textwrap.wrap(text, width, initial_indent=" " * COLUMN, subsequent_indent=" " * COLUMN)]
    return textwrap.wrap(text, width, initial_indent=name.ljust(COLUMN), subsequent_indent=" " * COLUMN) or [name]


def _one_key(classes: Sequence[str], groups: list[KeyGroup], name: str) -> str:
    checked: dict[str, Checked] = {}
    for one in reversed(classes):
        checked |= keys_in_source(*one.rsplit(".", 1))
    if name not in checked:
        close = difflib.get_close_matches(name, list(checked), n=1)
        raise ConfigError(
            f"--help {name}: no such key; " + (f"did you mean {close[0]!r}?" if close else "see `--help`.")
        )
    found = [(group, key) for group in groups for key in group.keys if key.name == name]
    texts = [key.help for _, key in found if key.help]
    origin = found[0][0].origin.split(".")[0]
    key = checked[name]
    lines = [
        f"{name}: {' '.join(texts[0].split()) if texts else ''}",
        f"  value    {key.words}",
        f"  default  {key.default}",
        f"  from     {'this project' if origin == OURS else origin}",
        f"  e.g.     {name}={example_value(key)}",
    ]
    width = max(60, min(MAX_WIDTH, shutil.get_terminal_size().columns))
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width, subsequent_indent=" " * 11)) + "\n"


def example_value(key: Checked) -> str:
    """Give a value as one writes it: the default, or where that says nothing one of the right kind."""
    if key.default not in (REQUIRED, "null", "[]", "{}", '""') and " or " not in key.default:
        return f"'{key.default}'" if " " in key.default else key.default
    for kind, text in ((bool, "true"), (int, "16"), (float, "0.5"), (list, "'[a, b]'"), (dict, "'{name: value}'")):
        if accepts(key.annotation, kind):
            return text
    return "NAME"
