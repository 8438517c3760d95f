"""Read keys, flags and metrics out of the code without running it: for the pages that `make_reference.py` writes."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "video_thinker"
sys.path.insert(0, str(PACKAGE.parent))  # MkDocs runs without the package's own path

from video_thinker.cli import flag_parser  # noqa: E402
from video_thinker.evaluation.flags import suite_parser  # noqa: E402
from video_thinker.keys.source import (  # noqa: E402
    REQUIRED,
    Key,
    KeyGroup,
    effective_keys,
    key_groups,
    module_path,
    parse_file,
    write_value,
)

__all__ = ["Key", "KeyGroup", "effective_keys", "write_value"]


@functools.cache
def commands() -> dict[str, tuple[str, str]]:
    """Command -> (module, one line), as `video_thinker.cli.COMMANDS` has them."""
    for node in parse_file(PACKAGE / "cli.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMMANDS":
            found: dict[str, tuple[str, str]] = ast.literal_eval(node.value)
            return found
    raise LookupError("video_thinker/cli.py has no COMMANDS")


def all_modules() -> Iterator[tuple[str, Path]]:
    """Give the name and file of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@functools.cache
def callers() -> dict[str, tuple[str, ...]]:
    """Module that reads a config -> names of the dataclasses that it reads into."""
    return {module: types for module, path in all_modules() if (types := parsed_types(parse_file(path)))}


@functools.cache
def config_commands() -> dict[str, list[KeyGroup]]:
    """Command that reads a config -> the dataclasses of its keys, with those they inherit from."""
    found = {}
    for command, (module, _) in commands().items():
        near = {name for name in _imports(module) if name.rpartition(".")[0] == module.rpartition(".")[0]}
        homes = [home for home in callers() if home == module] or [home for home in callers() if home in near]
        if homes:
            home = homes[0]
            found[command] = [group for name in callers()[home] for group in key_groups(home, name)]
    return found


READERS = ("parse_config", "make_arguments")
"""Functions of `config.py` that make dataclasses of keys; the first argument names them."""


def parsed_types(tree: ast.Module) -> tuple[str, ...]:
    """Names of the dataclasses in the call `parse_config((A, B), argv)` of a module, if there is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in READERS and node.args:
            types = node.args[0]
            if isinstance(types, ast.Tuple | ast.List) and all(isinstance(one, ast.Name) for one in types.elts):
                return tuple(ast.unparse(one) for one in types.elts)
    return ()


@dataclasses.dataclass(frozen=True)
class Flag:
    """An argument of a command that reads no config."""

    names: str
    default: str
    help: str


def command_flags(command: str) -> list[Flag]:
    """Arguments of a command's parser; of a command that reads a config there are none."""
    if command in config_commands() and command != "eval":
        return []
    parser = suite_parser() if command == "eval" else flag_parser(command)
    flags = []
    for action in (action for action in parser._actions if action.default != argparse.SUPPRESS or action.type):
        names = " ".join(action.option_strings) or str(action.metavar or action.dest)
        shown = "" if action.default in (None, argparse.SUPPRESS, [], "", False) else write_value(action.default)
        flags.append(Flag(names, REQUIRED if action.required else shown, " ".join((action.help or "").split())))
    return flags


def _imports(module: str) -> set[str]:
    """Name the modules that a module imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(parse_file(module_path(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def load_metrics() -> tuple[Any, ...]:
    """Read the table of `metric_names.py`, wherever in the package that module lies; it imports nothing."""
    (path,) = PACKAGE.rglob("metric_names.py")
    spec = importlib.util.spec_from_file_location("metric_names", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["metric_names"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    metrics: tuple[Any, ...] = module.METRICS
    return metrics
