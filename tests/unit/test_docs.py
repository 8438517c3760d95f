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
from video_thinker.errors import ConfigError
from video_thinker.keys.flags import folder_there, path_there

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
read_code = sys.modules["read_code"]
METRICS = read_code.load_metrics()


def module_that_defines(name: str, under: str = "") -> Any:
    """Import the module of the package that binds a name at its top level, wherever it lies."""
    found = [p for p in (PACKAGE / under).rglob("*.py") if re.search(rf"^{name}\b.* = ", p.read_text(), re.MULTILINE)]
    assert len(found) == 1, found
    return importlib.import_module(".".join(found[0].relative_to(PACKAGE.parent).with_suffix("").parts))


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
CONFIG_FIRST = {"sft", "grpo", "eval", "synthesize", "difficulty", "serve-engine"}
FOREIGN = {
    "source",
    "pip",
    "tensorboard",
    "transformers",
    "sbatch",
    "vllm",
    "export",
    ".venv/bin/pre-commit",
    ".venv-vllm/bin/python",
}
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
    known = read_code.effective_keys(read_code.config_commands()[command])
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
    get_value = argparse.ArgumentParser._get_value

    def without_files(self: argparse.ArgumentParser, action: argparse.Action, text: str) -> Any:
        return text if action.type in (folder_there, path_there) else get_value(self, action, text)

    monkeypatch.setattr(argparse.ArgumentParser, "_get_value", without_files)
    words = ["1" if word == "GIB" else word for word in words if word.strip("[]") != "…"]
    with pytest.raises(Parsed):
        try:
            importlib.import_module(module).main(words)
        except (SystemExit, ConfigError) as error:
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
        check_flags(command, cli.COMMANDS[command][0].rpartition(".")[0] + ".suite", rest, where, monkeypatch)
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
    elif program == "accelerate":  # … -m video_thinker.cli COMMAND …
        assert rest[rest.index("-m") + 1] == "video_thinker.cli", where
        check_video_thinker(rest[rest.index("-m") + 2 :], where, monkeypatch)
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

    for name in read_code.callers():
        monkeypatch.setattr(importlib.import_module(name), "parse_config", stop, raising=False)
    with pytest.raises(Parsed) as caught:
        importlib.import_module(cli.COMMANDS[command][0]).main([str(ROOT / "configs" / "sft" / "toy.yaml")])
    types: tuple[type, ...] = caught.value.args[0]
    return types


@pytest.mark.parametrize("command", sorted(CONFIG_FIRST))
def test_page_has_every_key_with_its_default(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = reference.keys_page()
    documented = read_code.effective_keys(read_code.config_commands()[command])
    real = {f.name: f for kind in parsed_types(command, monkeypatch) for f in dataclasses.fields(kind) if f.init}
    assert set(documented) == set(real)
    for name, one in real.items():
        assert f"| `{name}` |" in page
        if one.default is not dataclasses.MISSING and isinstance(one.default, bool | int | float | str | None):
            assert read_code.write_value(one.default) in documented[name].default.split(" or "), name
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            assert documented[name].default == read_code.REQUIRED, name


def test_every_config_command_is_on_the_page() -> None:
    assert len(read_code.callers()) == len(read_code.config_commands())
    assert set(read_code.config_commands()) >= CONFIG_FIRST


OURS = re.compile(r"(perf|time|data|memory|canary|engine|groups)/\w+")


def texts_in(source: str) -> Iterator[tuple[str, str]]:
    """Texts that a module uses as an index or as a key, with what they index; `{…}` of an f-string is NAME."""
    for node in ast.walk(ast.parse(source)):
        pairs: list[tuple[ast.expr | None, str]] = []
        if isinstance(node, ast.Subscript):
            pairs = [(node.slice, ast.unparse(node.value))]
        elif isinstance(node, ast.Dict):
            pairs = [(key, "") for key in node.keys]
        elif isinstance(node, ast.DictComp):
            pairs = [(node.key, "")]
        for key, container in pairs:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, container
            elif isinstance(key, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "NAME" for part in key.values]
                yield "".join(parts), container


def logged_by_us() -> set[str]:
    paths = [path for path in (PACKAGE / "training").rglob("*.py") if path.name != "console.py"]
    texts = [text for path in paths for text, _ in texts_in(path.read_text(encoding="utf-8"))]
    return {text for text in texts if OURS.fullmatch(text)}


def logged_by_trl() -> set[str]:
    folder = Path(importlib.util.find_spec("trl").submodule_search_locations[0])  # type: ignore[union-attr,index]
    sources = [(folder / "trainer" / name).read_text() for name in ("grpo_trainer.py", "sft_trainer.py")]
    return {
        text for source in sources for text, container in texts_in(source) if container.startswith("self._metrics[")
    }


def matches(name: str, pattern: str) -> bool:
    """Tell whether a name is one that the source `f"groups/{name}"` can log."""
    return name == pattern or bool(re.fullmatch(re.escape(pattern).replace("NAME", r"\w+"), name))


@pytest.mark.parametrize(("origin", "logged"), [("video_thinker", logged_by_us()), ("trl", logged_by_trl())])
def test_table_has_every_metric_that_is_logged_and_no_other(origin: str, logged: set[str]) -> None:
    table = {metric.name for metric in METRICS if metric.origin == origin}
    assert [name for name in table if not any(matches(name, one) for one in logged)] == []
    assert [one for one in logged if not any(matches(name, one) for name in table)] == []


def test_table_has_every_phase() -> None:
    phases = {f"time/{phase}" for phase in (*module_that_defines("PHASES").PHASES, "step")}
    assert phases == {metric.name for metric in METRICS if metric.name.startswith("time/")}


def test_metrics_that_are_shown_are_documented() -> None:
    is_documented = module_that_defines("METRICS").is_documented
    panels = module_that_defines("PANELS").PANELS
    shown = [*module_that_defines("SHOWN").SHOWN, *(name for _, lines in panels for name in lines)]
    shown = [name for name in shown if not name.endswith("/*")]
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
from material.plugins.search.plugin import SearchPlugin
from mkdocs.__main__ import cli
from mkdocstrings_handlers.python._internal import rendering
# More than half of the time, and neither can warn: 560 signatures set by `ruff format`, one process each, and the index
# of the search.
rendering._get_formatter = lambda: lambda code, line_length: code
SearchPlugin.on_page_context = lambda self, context, **kwargs: None
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
