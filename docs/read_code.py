"""Read keys, flags and metrics out of the code without running it: for the pages that `make_reference.py` writes."""

from __future__ import annotations

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
REQUIRED = "required"


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a config: `default` is the default as one writes it, or `required`."""

    name: str
    default: str
    help: str


@dataclasses.dataclass(frozen=True)
class KeyGroup:
    """A dataclass whose fields are keys; `keys` are those that its own body declares."""

    name: str
    origin: str
    summary: str
    keys: tuple[Key, ...]


@functools.cache
def read_tree(path: Path) -> ast.Module:
    """Parse a file, once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_path(module: str) -> Path:
    """Find a module's file without importing it: `importlib` runs a package's `__init__` for its submodules only."""
    top, *rest = module.split(".")
    if top == PACKAGE.name:
        base = PACKAGE
    else:
        spec = importlib.util.find_spec(top)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{top} is not installed: its keys cannot be listed; install the project first.")
        base = Path(spec.submodule_search_locations[0])
    path = base.joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported_from(tree: ast.Module, module: str, name: str) -> str | None:
    """Name the module that a name comes from, or `None` if it is defined here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            if node.level:
                parents = module.split(".")
                return ".".join([*parents[: len(parents) - node.level], *([node.module] if node.module else [])])
            return node.module
    return None


KNOWN_HOMES = {
    ("trl", "GRPOConfig"): "trl.trainer.grpo_config",
    ("trl", "SFTConfig"): "trl.trainer.sft_config",
    ("transformers", "TrainingArguments"): "transformers.training_args",
}
"""Where names live that a package imports lazily, so that its `__init__` does not say it."""


def _find_class(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """Find a class definition, following imports."""
    module = KNOWN_HOMES.get((module, name), module)
    tree = read_tree(module_path(module))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
    home = _imported_from(tree, module, name)
    if home is None:
        raise LookupError(f"class {name} is neither defined nor imported in {module}")
    return _find_class(home, name)


def _evaluate(node: ast.expr) -> str:
    """Write a default as one writes it in a config: `28 * 28` is 784, `lambda: ["real"]` is [real]."""
    if isinstance(node, ast.Lambda):
        node = node.body
    if isinstance(node, ast.Name) and node.id in ("dict", "list"):
        return "{}" if node.id == "dict" else "[]"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if left.isdigit() and right.isdigit():
            return str(int(left) * int(right))
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    return write_value(value)


def _constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def write_value(value: object) -> str:
    """Write a value as in YAML: `null`, `true`, `[real]`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return '""'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(write_value, value)) + "]"
    return str(value)


def _text(node: ast.expr | None) -> str:
    """Join the pieces of a help text; what is computed stands as its expression in braces."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            f"{{{ast.unparse(part.value)}}}" if isinstance(part, ast.FormattedValue) else _text(part)
            for part in node.values
        )
    return ast.unparse(node)


def _constants(body: list[ast.stmt]) -> dict[str, str]:
    """Texts that a class body assigns to plain names, also inside `if`; "a or b" where there are several."""
    found: dict[str, list[str]] = {}
    for node in (one for statement in body for one in ast.walk(statement)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found.setdefault(ast.unparse(node.targets[0]), []).append(write_value(node.value.value))
    return {name: " or ".join(values) for name, values in found.items()}


def _global_constant(module: str, name: str) -> str:
    """Write the literal that a module, or the one it imports the name from, binds to a name; else the name itself."""
    tree = read_tree(module_path(module))
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if ast.unparse(target) == name:
                return _evaluate(node.value)
    home = _imported_from(tree, module, name)
    return _global_constant(home, name) if home and home.split(".")[0] == PACKAGE.name else name


def _read_key(node: ast.AnnAssign, constants: dict[str, str], module: str) -> Key | None:
    if not isinstance(node.target, ast.Name) or "ClassVar" in ast.unparse(node.annotation):
        return None
    name, value = node.target.id, node.value
    if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] == "field":
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if _constant(given.get("init")) is False:
            return None
        default = given.get("default", given.get("default_factory"))
        metadata = given.get("metadata")
        texts = dict(zip(metadata.keys, metadata.values, strict=True)) if isinstance(metadata, ast.Dict) else {}
        helps = [v for k, v in texts.items() if isinstance(k, ast.Constant) and k.value == "help"]
        text = " ".join(_text(helps[0]).split()) if helps else ""
        written = _evaluate(default) if default is not None else REQUIRED
        if isinstance(default, ast.Name):
            written = constants.get(written) or _global_constant(module, written)
        return Key(name, written, text)
    return Key(name, _evaluate(value) if value is not None else REQUIRED, "")


def key_groups(module: str, name: str) -> list[KeyGroup]:
    """List the dataclass and those that it inherits from, the nearest first; each with the keys of its own body."""
    home, node = _find_class(module, name)
    constants = _constants(node.body)
    keys = [_read_key(one, constants, home) for one in node.body if isinstance(one, ast.AnnAssign)]
    summary = (ast.get_docstring(node) or "").strip().split("\n\n")[0]
    groups = [KeyGroup(name, home, " ".join(summary.split()), tuple(key for key in keys if key is not None))]
    for base in node.bases:
        base_name = ast.unparse(base)
        if base_name[0].isupper() or base_name.startswith("_"):
            groups += key_groups(_imported_from(read_tree(module_path(home)), home, base_name) or home, base_name)
    return groups


def effective_keys(groups: list[KeyGroup]) -> dict[str, Key]:
    """Keys of a command with the defaults that hold: those of the nearest class that declares them."""
    keys: dict[str, Key] = {}
    for group in groups:
        for key in group.keys:
            keys.setdefault(key.name, key)
    return keys


@functools.cache
def commands() -> dict[str, tuple[str, str]]:
    """Command -> (module, one line), as `video_thinker.cli.COMMANDS` has them."""
    for node in read_tree(PACKAGE / "cli.py").body:
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
    return {module: types for module, path in all_modules() if (types := parsed_types(read_tree(path)))}


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
    """Arguments that the module of a command adds to its parser."""
    module = commands()[command][0]
    modules = [module]
    if command in config_commands():  # `eval` also has flags, in a module beside its own
        modules += [
            m for m, _ in all_modules() if m in _imports(module) and m.rpartition(".")[0] == module.rpartition(".")[0]
        ]
    return [flag for one in modules for flag in _flags(read_tree(module_path(one)))]


def _imports(module: str) -> set[str]:
    """Name the modules that a module imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(read_tree(module_path(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


SAMPLING_FLAGS = "--max-frames …"


def _flags(tree: ast.Module) -> list[Flag]:
    flags = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func).split(".")[-1]
        names = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if function == "add_argument" and names:
            default = _evaluate(given["default"]) if "default" in given else ""
            optional = _constant(given.get("nargs")) in ("*", "?")
            if "required" in given or not (names[0].startswith("-") or optional):
                default = REQUIRED
            flags.append(Flag(" ".join(names), default, " ".join(_text(given.get("help")).split())))
        elif function in ("add_argument", "add_video_flags") and SAMPLING_FLAGS not in [one.names for one in flags]:
            text = "Keys of the group Video are flags, too: `max_frames` is `--max-frames`."
            flags.append(Flag(SAMPLING_FLAGS, "", text))
    return flags


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
