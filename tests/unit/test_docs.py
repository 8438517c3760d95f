"""The README and the pages say what is true: links, commands, keys and metrics exist, and the site builds offline."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from video_thinker import cli
from video_thinker.training.metric_names import METRICS, is_documented

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "video_thinker"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "data" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def load_reference() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_reference"] = module
    spec.loader.exec_module(module)
    return module


reference = load_reference()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


# -- Links -------------------------------------------------------------------------------------------------------------


def links_of(page: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for match in re.finditer(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if "://" not in match.group(1):
            yield match.group(1).split("#")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_exist(page: Path) -> None:
    generated = {(ROOT / "docs" / name).resolve() for name in reference.generated_pages()}
    targets = [(page.parent / link).resolve() for link in links_of(page) if link]
    assert [t for t in targets if not t.exists() and t not in generated] == []


def test_links_are_rewritten_for_the_site() -> None:
    text = "[a](../data/README.md) [b](../configs/sft/toy.yaml) [c](../src/x.py) [d](toyworld.md#results) ![e](ask.png)"
    assert reference.rewrite_links(text, "docs/training.md", "training.md") == (
        "[a](data.md) [b](reference/configs.md#configs-sft-toy-yaml) c (`src/x.py`) "
        "[d](toyworld.md#results) ![e](ask.png)"
    )
    assert reference.rewrite_links("[s](../docs/synthesis.md)", "data/README.md", "data.md") == "[s](synthesis.md)"


# -- Commands ----------------------------------------------------------------------------------------------------------


def code_lines(page: Path) -> Iterator[tuple[int, str]]:
    """Commands of a page with their line numbers: fenced bash, prompts with `$`, and indented blocks."""
    language: str | None = None
    pending, start = "", 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            language = None if language is not None else line[3:].strip()
            continue
        if not pending:
            if language == "bash" or (
                language is None and re.match(r"    (python|pytest|video-thinker|scripts/)", line)
            ):
                start = number
            elif language is not None and line.startswith("$ "):
                start, line = number, line[2:]
            else:
                continue
        pending += line.removesuffix("\\") + " "
        if not line.endswith("\\"):
            yield start, pending
            pending = ""


def commands_of(page: Path) -> list[tuple[str, list[str]]]:
    found = []
    for number, line in code_lines(page):
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            found.append((f"{page.relative_to(ROOT)}:{number}", words))
    return found


ALL_COMMANDS = [pair for page in PAGES for pair in commands_of(page)]
CONFIG_FIRST = {"sft", "grpo", "eval", "synthesize", "difficulty"}
FOREIGN = {"source", "pip", "tensorboard", "transformers", "sbatch", "vllm", "export", ".venv/bin/pre-commit"}
SCRIPTS = {
    "scripts/run_sft_video.sh": "sft",
    "scripts/run_grpo_video.sh": "grpo",
    "scripts/run_eval_batch.sh": "eval",
}


class Parsed(Exception):
    """The arguments were accepted."""


def is_placeholder(word: str) -> bool:
    return bool(re.fullmatch(r"[A-Z_…]+", word.strip("[]")))


def check_config(command: str, words: list[str], where: str) -> None:
    config, *overrides = words
    if config.startswith("configs/"):
        assert (ROOT / config).is_file(), f"{where}: no {config}"
    else:
        assert is_placeholder(config) or config.endswith(".yaml"), f"{where}: {config} is no config"
    check_keys(command, overrides, where)


def check_keys(command: str, overrides: list[str], where: str) -> None:
    known = reference.effective_keys(reference.config_commands()[command])
    for override in overrides:
        if override.strip("[]") != "…":
            key, equals, _ = override.partition("=")
            assert equals and key in known, f"{where}: {command} has no key {key!r}"


def check_flags(command: str, module: str, words: list[str], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_after(parse: Any) -> Any:
        def parse_only(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
            self.allow_abbrev = False
            raise Parsed(parse(self, *args, **kwargs))

        return parse_only

    words = ["1" if re.fullmatch("[A-Z]", word) else word for word in words]  # --gpus N
    if command == "prepare" and words[0] == "NAME":
        words[0] = "video_holmes"
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name)))
    words = ["1" if word == "GIB" else word for word in words if word.strip("[]") != "…"]
    with pytest.raises(Parsed):
        try:
            importlib.import_module(module).main(words)
        except SystemExit as error:
            pytest.fail(f"{where}: {command} does not take {words} ({error})")


def check_video_thinker(words: list[str], where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if words == ["COMMAND", "--help"]:
        return
    found = cli.find_command(words)
    assert found is not None, f"{where}: no such command: {words[:2]}"
    command, rest = found
    if rest == ["--help"]:
        return
    if command in CONFIG_FIRST and not rest[0].startswith("--"):
        check_config(command, rest, where)
    elif command == "eval":
        check_flags(command, "video_thinker.evaluation.suite", rest, where, monkeypatch)
        check_keys(command, [word for word in rest if re.match(r"[a-z_]+=", word)], where)
    else:
        check_flags(command, cli.COMMANDS[command][0], rest, where, monkeypatch)
        if command == "plan":
            stage = "sft" if "/sft/" in rest[0] else "grpo"
            check_keys(stage, [word for word in rest if re.match(r"[a-z_]+=", word)], where)


def check_script(words: list[str], where: str) -> None:
    """A measurement: the file is there, and it has the flags."""
    assert (ROOT / words[0]).is_file(), f"{where}: no {words[0]}"
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    for word in words[1:]:
        assert not word.startswith("--") or f'"{word}"' in source, f"{where}: {words[0]} has no {word}"


@pytest.mark.parametrize(("where", "words"), ALL_COMMANDS, ids=[where for where, _ in ALL_COMMANDS])
def test_command_parses(where: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, *rest = words
    if program in SCRIPTS:
        check_video_thinker([SCRIPTS[program], *rest], where, monkeypatch)
    elif program.removeprefix(".venv/bin/") == "video-thinker":
        check_video_thinker(rest, where, monkeypatch)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert [word for word in rest if "=" not in word and word not in targets] == [], where
    elif program.removeprefix(".venv/bin/") in ("python", "pytest"):
        if rest[0].endswith(".py"):
            check_script([re.sub("::.*", "", rest[0]), *rest[1:]], where) if "python" in program else None
        for word in rest:
            assert not word.startswith("tests/") or (ROOT / word).exists(), f"{where}: no {word}"
    else:
        assert program in FOREIGN or program.startswith("scripts/"), f"{where}: what is {program}?"
        assert not program.startswith("scripts/") or (ROOT / program).is_file(), f"{where}: no {program}"


def test_commands_are_found() -> None:
    programs = {words[0] for _, words in ALL_COMMANDS}
    assert {"make", "video-thinker", "python", *SCRIPTS} <= programs
    assert len(ALL_COMMANDS) > 60


def test_a_wrong_command_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="no key 'learning_rat'"):
        check_video_thinker(["sft", "configs/sft/toy.yaml", "learning_rat=1"], "here", monkeypatch)
    with pytest.raises(AssertionError, match="no such command"):
        check_video_thinker(["trian"], "here", monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="does not take"):
        check_video_thinker(["validate", "a.jsonl", "--media-roo", "x"], "here", monkeypatch)


# -- Keys and metrics --------------------------------------------------------------------------------------------------


def parsed_types(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[type, ...]:
    """The dataclasses that a command really hands to `parse_config`."""

    def stop(types: tuple[type, ...], argv: list[str]) -> None:
        raise Parsed(types)

    module = sys.modules.get(reference.commands()[command][0]) or importlib.import_module(
        reference.commands()[command][0]
    )
    for name in [module.__name__, *(m for m in sys.modules if m.startswith("video_thinker."))]:
        if hasattr(sys.modules[name], "parse_config"):
            monkeypatch.setattr(sys.modules[name], "parse_config", stop)
    with pytest.raises(Parsed) as caught:
        module.main([str(ROOT / "configs" / "sft" / "toy.yaml")])
    types: tuple[type, ...] = caught.value.args[0]
    return types


@pytest.mark.parametrize("command", sorted(CONFIG_FIRST))
def test_page_has_every_key_with_its_default(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("video_thinker.evaluation.runner")
    page = reference.keys_page()
    documented = reference.effective_keys(reference.config_commands()[command])
    real = {f.name: f for kind in parsed_types(command, monkeypatch) for f in dataclasses.fields(kind) if f.init}
    assert set(documented) == set(real)
    for name, one in real.items():
        assert f"| `{name}` |" in page
        if one.default is not dataclasses.MISSING and isinstance(one.default, bool | int | float | str | None):
            assert reference.write_value(one.default) in documented[name].default.split(" or "), name
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            assert documented[name].default == reference.REQUIRED, name


def test_every_config_command_is_on_the_page() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    assert len([tree for tree in trees if reference.parsed_types(tree)]) == len(reference.config_commands())
    assert set(reference.config_commands()) >= CONFIG_FIRST


def metric_names_in(source: str) -> set[str]:
    """Names under which a trainer's source stores metrics; `{…}` of an f-string is NAME."""

    def text(node: ast.expr) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(str(v.value) if isinstance(v, ast.Constant) else "NAME" for v in node.values)
        return None

    names: set[str | None] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript) and re.match(r"self\._metrics\[|metrics$", ast.unparse(node.value)):
            names.add(text(node.slice))
        if isinstance(node, ast.DictComp):
            names.add(text(node.key))
    return {name for name in names if name and name != "eval_NAME"}


def matches(name: str, pattern: str) -> bool:
    """Tell whether a name is one that the source `f"groups/{name}"` can log."""
    return name == pattern or bool(re.fullmatch(re.escape(pattern).replace("NAME", r"\w+"), name))


def test_table_has_every_metric_that_is_logged_and_no_other() -> None:
    site = Path(importlib.util.find_spec("trl").submodule_search_locations[0]).parent  # type: ignore[union-attr,index]
    sources = {
        "video_thinker": list((PACKAGE / "training").rglob("*.py")),
        "trl": [site / "trl/trainer/grpo_trainer.py", site / "trl/trainer/sft_trainer.py"],
    }
    for origin, paths in sources.items():
        found = set().union(*(metric_names_in(path.read_text(encoding="utf-8")) for path in paths))
        logged = {name for name in found if origin == "trl" or "/" in name}
        table = {metric.name for metric in METRICS if metric.origin == origin}
        assert [name for name in table if not any(matches(name, one) for one in logged)] == []
        assert [one for one in logged if not any(matches(name, one) for name in table)] == []
    telemetry = importlib.import_module("video_thinker.training.telemetry")
    phases = {f"time/{phase}" for phase in (*telemetry.PHASES, "step")}
    assert phases == {metric.name for metric in METRICS if metric.name.startswith("time/")}


def test_metrics_that_are_shown_are_documented() -> None:
    console = importlib.import_module("video_thinker.training.console")
    curves = importlib.import_module("video_thinker.evaluation.report.curves")
    shown = [*console.SHOWN, *(name for _, lines in curves.PANELS for name in lines if not name.endswith("/*"))]
    assert [name for name in shown if not is_documented(name)] == []
    assert not is_documented("rewards/accuracy_reward/median")


def test_metric_names_are_unique_and_on_the_page() -> None:
    page = reference.keys_page()
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert [metric.name for metric in METRICS if f"| `{metric.name}` |" not in page] == []


def test_every_error_class_is_in_the_faq() -> None:
    headings = re.findall(r"^### (\w+)", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    names = {one.name for one in ast.parse((PACKAGE / "errors.py").read_text()).body if isinstance(one, ast.ClassDef)}
    assert names - {"VideoThinkerError"} <= set(headings)


# -- The site ----------------------------------------------------------------------------------------------------------

BUILD = """
import socket, sys
def refuse(*args):
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
from mkdocs.__main__ import cli
try:
    cli(["build", "--strict", "--site-dir", sys.argv[1]])  # --quiet would silence the warnings that --strict counts
finally:
    print("torch" in sys.modules)
"""


def test_site_builds_strictly_and_offline(tmp_path: Path) -> None:
    """Also: torch is not imported, and no page loads anything from elsewhere."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (extra `docs`)")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(site)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "False"
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert {"index.html", "data.html", "reference/keys.html", "reference/api/rewards.html"} <= pages.keys()
    loaded = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?https?:|<link[^>]*stylesheet[^>]*https?:")
    assert [name for name, html in pages.items() if loaded.search(html)] == []
