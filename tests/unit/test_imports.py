from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "video_thinker"
SOURCE = Path(__file__).resolve().parents[2] / "src" / PACKAGE

# Bottom to top: a module imports from its own layer and from those below. A package's name stands for all its modules.
LAYERS = [
    ["schema", "errors", "redaction", "disk", "memory"],
    ["times", "prompts", "trace", "scoring", "grounding", "keys", "config"],
    ["data", "datasets", "rewards", "runs"],
    ["models"],
    ["generation", "spotlight"],
    ["training", "evaluation", "synthesis"],
    ["report", "diagnostics", "toyworld"],
    ["cli"],
]
NUMBERS_ONLY = {"models.positions"}
"""Modules of plain tensors and numbers, which every layer but the first two may import."""

RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

TORCH_FREE = [
    "schema",
    "errors",
    "redaction",
    "disk",
    "memory",
    "times",
    "trace",
    "scoring",
    "grounding",
    "prompts",
    "generation.arguments",
    "generation.faults",
    "generation.images",
    "generation.server",
    "runs.completions",
    "runs.files",
    "runs.predictions",
    "runs.reading",
    "runs.record",
    "spotlight.actions",
    "spotlight.episode",
    "spotlight.frames",
    "spotlight.texts",
    "spotlight.verify",
    "rewards",
    "data",
    "data.annotations",
    "data.conversation",
    "data.decoding.child",
    "data.decoding.process",
    "data.decoding.served",
    "data.decoding.threads",
    "data.decoding.videos",
    "data.image_reader",
    "data.readers",
    "diagnostics.validate",
    "cli",
    "datasets",
    "datasets.prepare",
    "datasets.published",
    "evaluation.schedule",
    "evaluation.command",
    "evaluation.results",
    "evaluation.score",
    "evaluation.suite",
    "config",
    "keys",
    "keys.check",
    "keys.help",
]


def imports_of(tree: ast.AST, package: str) -> set[str]:
    """Names below the package that a module imports, anywhere in it (also inside functions): "data.video", "trace"."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return {name.removeprefix(PACKAGE + ".") for name in names if name.startswith(PACKAGE + ".")}


def modules() -> dict[str, set[str]]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        package = ".".join([PACKAGE, *parts[:-1]])
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = imports_of(ast.parse(path.read_text(encoding="utf-8")), package)
    return found


def wrong_imports(imports: dict[str, set[str]]) -> list[str]:
    wrong = []
    for name, targets in imports.items():
        top = name.split(".")[0]
        for target in targets:
            other = target.split(".")[0]
            if not top or other not in RANKS:
                continue
            if RANKS[top] >= RANKS["data"] and any(target.startswith(allowed) for allowed in NUMBERS_ONLY):
                continue
            if target == "models" and f"{target}.positions" in targets:  # `from video_thinker.models import positions`
                continue
            if RANKS[other] > RANKS[top] or {top, other} == {"training", "evaluation"}:
                wrong.append(f"{name} imports {target}")
    return sorted(wrong)


def test_every_module_has_a_layer():
    tops = {name.split(".")[0] for name in modules()} - {""}
    assert tops <= set(RANKS), f"add to LAYERS: {sorted(tops - set(RANKS))}"


def test_imports_point_one_way_and_training_and_evaluation_never_meet():
    assert wrong_imports(modules()) == []


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Names that import one another in a circle; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_by_way_of_others():
    found = modules()
    graph = {name: {t for t in targets if t in found and t != name} for name, targets in found.items() if name}
    packages = {name for name in found if any(other.startswith(f"{name}.") for other in found)}
    assert circle({name: targets - packages for name, targets in graph.items() if name not in packages}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


def test_no_room_imports_itself_by_way_of_others():
    rooms: dict[str, set[str]] = {}
    for name, targets in modules().items():
        top = name.split(".")[0]
        others = {t.split(".")[0] for t in targets if not any(t.startswith(allowed) for allowed in NUMBERS_ONLY)}
        rooms.setdefault(top, set()).update(others - {top, *(["models"] if top == "data" else [])})
    assert circle({room: targets & set(rooms) for room, targets in rooms.items() if room}) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("schema", "from video_thinker.trace import parse_trace"),
        ("trace", "import video_thinker.data.annotations"),
        ("rewards.format", "def f():\n    from video_thinker.evaluation import runner"),
        ("data.video", "from video_thinker import training"),
        ("training.sft", "from video_thinker.evaluation.metrics import mean"),
        ("evaluation.runner", "from ..training import sft"),
        ("evaluation", "from video_thinker.training import sft"),
    ],
)
def test_the_rule_sees_a_wrong_import(name, code):
    package = ".".join([PACKAGE, *name.split(".")[:-1]])
    assert len(wrong_imports({name: imports_of(ast.parse(code), package)})) >= 1


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("trace", "from video_thinker.schema import Trace"),
        ("prompts", "from video_thinker.scoring import option_letters"),
        ("training.sft", "from video_thinker.data.collate import SampleEncoder"),
        ("training.grpo", "from .prefix import forward"),
        ("cli", "import video_thinker.training.sft, os"),
    ],
)
def test_the_rule_lets_right_imports_pass(name, code):
    package = ".".join([PACKAGE, *name.split(".")[:-1]])
    assert wrong_imports({name: imports_of(ast.parse(code), package)}) == []


def test_the_core_runs_without_torch():
    names = ", ".join(f"{PACKAGE}.{name}" for name in TORCH_FREE)
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"torch", "transformers", "trl"}}:
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Refuse())
import {names}
from video_thinker.rewards import load_reward_funcs
from video_thinker.schema import PROBLEM_TYPES, VideoSample
golds = {{"grounding": "3-4"}}
samples = [
    VideoSample("v", "?", kind, golds.get(kind, "3"), ("3", "4") if kind == "multiple choice" else ())
    for kind in PROBLEM_TYPES
]
(reward,) = load_reward_funcs(["accuracy"])
completions = [f"<answer>{{sample.answer}}</answer>" for sample in samples]
assert reward(completions=completions, sample=samples) == [1.0] * len(PROBLEM_TYPES)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_data_init_stays_empty_of_imports():
    assert modules()["data"] == set()
