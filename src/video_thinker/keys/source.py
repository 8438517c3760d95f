"""Reading classes of keys from the source, without running it: importing TRL alone takes seconds.

A dataclass is found by its module's file, and so are those that it inherits from, in TRL and Transformers, too.
The documentation, `--help` and the check of a command line before its command is imported are made from it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
REQUIRED = "required"


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a config: `default` is the default as one writes it, or `required`; `annotation` is source text."""

    name: str
    default: str
    help: str
    annotation: str = ""


@dataclasses.dataclass(frozen=True)
class KeyGroup:
    """A dataclass whose fields are keys; `keys` are those that its own body declares."""

    name: str
    origin: str
    summary: str
    keys: tuple[Key, ...]


@functools.cache
def parse_file(path: Path) -> ast.Module:
    """Parse a source file, once."""
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
    tree = parse_file(module_path(module))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
    home = _imported_from(tree, module, name)
    if home is None:
        raise LookupError(f"class {name} is neither defined nor imported in {module}")
    return _find_class(home, name)


def evaluate(node: ast.expr) -> str:
    """Write a default as one writes it in a config: `28 * 28` is 784, `lambda: ["real"]` is [real]."""
    if isinstance(node, ast.Lambda):
        node = node.body
    if isinstance(node, ast.Name) and node.id in ("dict", "list"):
        return "{}" if node.id == "dict" else "[]"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = evaluate(node.left), evaluate(node.right)
        if left.isdigit() and right.isdigit():
            return str(int(left) * int(right))
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    return write_value(value)


def constant(node: ast.expr | None) -> object:
    """Give the value of a literal, `None` of anything else."""
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


def text_of(node: ast.expr | None) -> str:
    """Join the pieces of a help text; what is computed stands as its expression in braces."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            f"{{{ast.unparse(part.value)}}}" if isinstance(part, ast.FormattedValue) else text_of(part)
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
    tree = parse_file(module_path(module))
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if ast.unparse(target) == name:
                return evaluate(node.value)
    home = _imported_from(tree, module, name)
    return _global_constant(home, name) if home and home.split(".")[0] == PACKAGE.name else name


def _read_key(node: ast.AnnAssign, constants: dict[str, str], module: str) -> Key | None:
    if not isinstance(node.target, ast.Name) or "ClassVar" in ast.unparse(node.annotation):
        return None
    name, value = node.target.id, node.value
    if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] == "field":
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if constant(given.get("init")) is False:
            return None
        default = given.get("default", given.get("default_factory"))
        metadata = given.get("metadata")
        texts = dict(zip(metadata.keys, metadata.values, strict=True)) if isinstance(metadata, ast.Dict) else {}
        helps = [v for k, v in texts.items() if isinstance(k, ast.Constant) and k.value == "help"]
        text = " ".join(text_of(helps[0]).split()) if helps else ""
        written = evaluate(default) if default is not None else REQUIRED
        if isinstance(default, ast.Name):
            written = constants.get(written) or _global_constant(module, written)
        return Key(name, written, text, ast.unparse(node.annotation))
    return Key(name, evaluate(value) if value is not None else REQUIRED, "", ast.unparse(node.annotation))


@functools.cache
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
            groups += key_groups(_imported_from(parse_file(module_path(home)), home, base_name) or home, base_name)
    return groups


def find_choices(module: str, name: str) -> tuple[str, ...]:
    """Values of an enum that a module defines or imports; empty if the name is none."""
    try:
        _, node = _find_class(module, name)
    except (LookupError, OSError, ModuleNotFoundError):
        return ()
    if not any("Enum" in ast.unparse(base) for base in node.bases):
        return ()
    values = [one.value for one in node.body if isinstance(one, ast.Assign)]
    return tuple(one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str))


def effective_keys(groups: list[KeyGroup]) -> dict[str, Key]:
    """Keys of a command with the defaults that hold: those of the nearest class that declares them."""
    keys: dict[str, Key] = {}
    for group in groups:
        for key in group.keys:
            keys.setdefault(key.name, key)
    return keys
