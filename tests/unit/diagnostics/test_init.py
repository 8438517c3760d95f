"""`video-thinker init`: configs and scripts come with the package, and nothing is overwritten."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from pathlib import Path

import pytest
import setuptools

from video_thinker import cli
from video_thinker.diagnostics import init

ROOT = Path(__file__).resolve().parents[3]


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for name in ("configs", "scripts", "data/toy")
        for path in (root / name).rglob("*")
        if path.is_file()
    }


def test_all_configs_and_scripts_are_copied_once(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("stays")
    assert cli.main(["init", str(tmp_path / "mine")]) == 0
    assert files_of(tmp_path / "mine") == files_of(ROOT) and (tmp_path / "mine" / "notes.txt").is_file()
    assert os.access(tmp_path / "mine" / "scripts" / "launch.sh", os.X_OK)
    (tmp_path / "mine" / "configs" / "sft" / "toy.yaml").write_text("mine: 1\n")
    before = files_of(tmp_path / "mine")
    assert cli.main(["init", str(tmp_path / "mine")]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err and files_of(tmp_path / "mine") == before
    (tmp_path / "other" / "scripts").mkdir(parents=True)
    (tmp_path / "other" / "scripts" / "launch.sh").write_text("mine\n")
    assert cli.main(["init", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other" / "configs").exists()
    assert cli.main(["init", str(ROOT / "README.md")]) == 2


def test_a_wheel_holds_them(tmp_path, monkeypatch):
    """What setup.py adds to a build is what `init` looks for."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("project_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    command = module.BuildWithProjectFiles(setuptools.Distribution({"packages": []}))
    command.build_lib, command.editable_mode = str(tmp_path), False
    monkeypatch.setattr(module.build_py, "run", lambda self: None)
    command.run()
    monkeypatch.setattr(init.video_thinker, "__file__", str(tmp_path / "video_thinker" / "__init__.py"))
    assert init.find_project_files() == tmp_path / "video_thinker" / "project"
    assert files_of(tmp_path / "video_thinker" / "project") == files_of(ROOT)


def test_an_installation_without_them_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(init.video_thinker, "__file__", str(tmp_path / "a" / "b" / "__init__.py"))
    with pytest.raises(init.ConfigError, match="no configs, scripts and toy base"):
        init.find_project_files()


def test_the_documented_accelerate_commands_name_what_is_there():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^accelerate launch .*$", text, flags=re.MULTILINE)
    assert {shlex.split(command)[shlex.split(command).index("-m") + 2] for command in commands} == {"sft", "grpo"}
    for command in commands:
        words = shlex.split(command)
        module, stage, config = words[words.index("-m") + 1 :][:3]
        assert importlib.util.find_spec(module) is not None and stage in cli.COMMANDS
        files = [config, *(word.partition("=")[2] for word in words if word.startswith("deepspeed="))]
        assert len(files) == 2 and all((ROOT / file).is_file() for file in files)
