"""YAML with places: each value of a config file or of the command line, and where it was set.

Booleans are read as YAML 1.1 does (`no` is false), numbers as YAML 1.2 does: `1e-5` is a number, `010` is ten, and
`12:30` and `2026-01-31` are texts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from video_thinker.errors import ConfigError
from video_thinker.redaction import register_text

MAX_CONFIG_BYTES = 4 << 20
COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Given:
    """A value that was given: as YAML reads it, as text if it is a plain scalar, and where: "a.yaml:3"."""

    value: Any
    text: str | None
    where: str


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as PyYAML declares it

    def construct_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node).replace("_", "")
        return int(text, 16 if "x" in text else 8 if "o" in text else 10)


_WORDS = re.compile("^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_INT = re.compile("^(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
for _tag, _pattern, _first in (
    ("bool", _WORDS, "yYnNtTfFoO"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("merge", re.compile("^<<$"), "<"),
    ("null", re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


def read_text(path: Path) -> str:
    """Read a config file as UTF-8, whatever the locale is.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is not UTF-8.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a YAML config file in it.")
    try:
        data = _read_pipe(path) if path.is_fifo() or path.is_char_device() else _read_bounded(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path}: no such config file; see configs/ for those that are shipped.") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8."
        ) from error
    register_text(text)
    return text


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{path}: has more than {MAX_CONFIG_BYTES} bytes, so it is no config; name a YAML config file."
        )
    return data


@functools.cache
def _read_pipe(path: Path) -> bytes:
    """Read what a shell gives (`video-thinker sft <(sed …)`): only once, since it is gone then."""
    return _read_bounded(path)


def read_file(path: Path) -> dict[str, Given]:
    """Read a config file: its values by key.

    Raises:
        ConfigError: see `read_text`; or it is no YAML, no mapping, or holds a key twice.
    """
    return mapping_values(path, compose(read_text(path), str(path), with_lines=True))


def mapping_values(path: Path, node: yaml.Node | None) -> dict[str, Given]:
    """Take a mapping of keys to values apart. Raises `ConfigError`."""
    if node is None:
        raise ConfigError(f"{path}: is empty; it must hold a YAML mapping of keys to values.")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"{path}:{node.start_mark.line + 1}: holds {_kind(node)}; it must hold a YAML mapping of keys to values "
            "(key: value, one a line)."
        )
    try:
        _Loader("").flatten_mapping(node)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark or node.start_mark).line + 1
        raise ConfigError(f"{path}:{line}: << must name a mapping (an alias: *name); {error.problem}.") from error
    found: dict[str, Given] = {}
    for key_node, value_node in node.value:
        where = f"{path}:{key_node.start_mark.line + 1}"
        key = key_node.value
        if not isinstance(key, str) or key_node.tag.endswith((":null", ":int", ":float")):
            raise ConfigError(f"{where}: a key must be a name, as in 'learning_rate: 1e-5'.")
        found.pop(key, None)  # a key of a merge (<<) that the mapping itself has, too
        found[key] = Given(_construct(value_node, key, str(path)), _plain_text(value_node), where)
    return found


def read_value(key: str, text: str) -> Given:
    """Read the value of `key=value` on the command line.

    Raises:
        ConfigError: it is no YAML. The value is not repeated: it may be a secret.
    """
    node = compose(text, f"{COMMAND_LINE}: {key}", with_lines=False)
    if node is None:
        return Given(None, None, COMMAND_LINE)
    plain = _plain_text(node)
    return Given(_construct(node, key), None if plain is None else text.strip(), COMMAND_LINE)


def compose(text: str, name: str, *, with_lines: bool) -> yaml.Node | None:
    """Read YAML into nodes, which know their lines.

    Raises:
        ConfigError: with `name` and, if `with_lines`, the line.
    """

    def place(line: int) -> str:
        return f"{name}:{line + 1}" if with_lines else name

    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n")
        raise ConfigError(f"{place(line)}: holds the control character {error.character!r}; remove it.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark is not None else 0
        raise ConfigError(f"{place(line)}: is not YAML: {_explain(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: is nested too deeply to be read; a config has a few levels only.") from error
    if node is not None:
        _check_node(node, place, set(), [])
    return node


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it cannot be read"
    if "'\\t'" in problem:
        return "a tab stands where spaces must stand; indent with spaces."
    if "undefined alias" in problem:
        return f"{problem}; a text that begins with * needs quotes, an alias needs its anchor (&name) above."
    if "single document" in str(error.context):
        return "it holds several documents (---); a config is one."
    if "mapping values are not allowed" in problem:
        return "a text that holds ': ' needs quotes, and each key a line of its own."
    return f"{problem}; see whether a bracket or a quote is open, and whether a text needs quotes."


def _check_node(node: yaml.Node, place: Any, seen: set[int], path: list[int]) -> None:
    """Refuse keys that are given twice, and aliases that hold themselves."""
    if id(node) in path:
        raise ConfigError(f"{place(node.start_mark.line)}: an alias (*name) holds itself; write the value out.")
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    path.append(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in lines and key.value != "<<":
                raise ConfigError(
                    f"{place(key.start_mark.line)}: the key {key.value!r} is given twice, first in line "
                    f"{lines[key.value]}; keep one of them."
                )
            if isinstance(key.value, str):
                lines[key.value] = key.start_mark.line + 1
    for child in _children(node):
        _check_node(child, place, seen, path)
    path.pop()


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _construct(node: yaml.Node, key: str, path: str = "") -> Any:
    """Make the value of a key; `path` is that of its file, "" for the command line."""
    try:
        return _Loader("").construct_document(node)
    except (yaml.MarkedYAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None) or node.start_mark
        place = f"{path}:{mark.line + 1}" if path else COMMAND_LINE
        problem = getattr(error, "problem", None) or "it is too long or too deep"
        raise ConfigError(f"{place}: {key}: the value cannot be read ({problem}); write a plain YAML value.") from error


def _plain_text(node: yaml.Node) -> str | None:
    if isinstance(node, yaml.ScalarNode) and node.style is None and not node.tag.endswith(":null"):
        return str(node.value)
    return None


def _kind(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
