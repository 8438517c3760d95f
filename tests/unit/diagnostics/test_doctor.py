from __future__ import annotations

import builtins
import importlib
import json
import shutil
import sys
import tomllib
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from transformers import GenerationMixin

from video_thinker.cli import main as cli
from video_thinker.data import readers, video
from video_thinker.data.decoding import videos
from video_thinker.diagnostics import decoders as media
from video_thinker.diagnostics import doctor, hardware, positions, software
from video_thinker.diagnostics.finding import Finding, try_import
from video_thinker.errors import DecodeError
from video_thinker.models import positions as released

REPO = Path(__file__).parents[3]


def only(findings, status: str) -> list[Finding]:
    return [finding for finding in findings if finding.status == status]


@pytest.fixture
def versions(monkeypatch):
    """Packages as if they were installed in these versions; all others as they are."""
    fake: dict[str, str | None] = {}
    real = software.installed_version
    for module in (software, hardware):
        monkeypatch.setattr(module, "installed_version", lambda name: fake[name] if name in fake else real(name))
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    lines = [Requirement(line) for line in project["dependencies"]]
    monkeypatch.setattr(software, "requirements", lambda: lines)
    return fake


def test_the_packages_here_are_fine(versions):
    assert only(software.check_packages(), "bad") == []


@pytest.mark.parametrize(
    ("package", "version", "found", "fix"),
    [
        ("trl", "1.17.0", "1.17.0, outside <1.17,>=1.16", "pip install 'trl<1.17,>=1.16'"),
        ("peft", None, "not installed", "pip install 'peft>="),
        ("transformers", "5.3.0", "45381", "pip install -U transformers"),
    ],
)
def test_a_package_that_is_missing_or_wrong_is_bad(versions, package, version, found, fix):
    versions[package] = version
    bad = only(software.check_packages(), "bad")
    assert {finding.check for finding in bad} == {package}
    assert any(found in finding.found and fix in finding.fix for finding in bad)


def test_torch_2_9_is_bad_where_there_is_a_gpu(versions, monkeypatch):
    versions["torch"] = "2.9.1+cu128"
    assert [f.check for f in only(software.check_packages(), "warning")] == ["torch"]
    monkeypatch.setattr(software, "num_gpus", lambda: 1)
    (bad,) = only(software.check_packages(), "bad")
    assert bad.check == "torch" and "174051" in bad.found
    versions["torch"] = "2.10.0"
    assert only(software.check_packages(), "bad") == []


def test_an_uninstalled_project_is_said(monkeypatch):
    monkeypatch.setattr(software, "requirements", list)
    assert any("not installed" in finding.found for finding in only(software.check_packages(), "warning"))


def test_requirements_leave_out_extras_and_other_platforms(monkeypatch):
    lines = ["torch>=2.9", "torchcodec>=0.8; extra == 'torchcodec'", "decord; sys_platform == 'none'"]
    monkeypatch.setattr(software.metadata, "requires", lambda _: lines)
    assert [requirement.name for requirement in software.requirements()] == ["torch"]


def test_a_trl_without_a_seam_is_bad(monkeypatch):
    from trl import GRPOTrainer

    (good,) = software.check_trainers()
    assert good.status == "ok"
    monkeypatch.delattr(GRPOTrainer, "_tokenize_prompts")
    (bad,) = software.check_trainers()
    assert bad.status == "bad" and "_tokenize_prompts" in bad.found


GPU = {"name": "NVIDIA H200", "total_memory": 141 * 2**30}


def test_gpus(monkeypatch):
    monkeypatch.setattr(hardware, "num_gpus", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    (none,) = hardware.check_gpus()
    assert none.status == "warning" and "toy world" in none.found
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert "nvidia-smi is there" in next(hardware.check_gpus()).found
    monkeypatch.setattr(hardware, "num_gpus", lambda: 1)
    monkeypatch.setattr(hardware, "_driver_version", lambda: "570.1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(**GPU, major=9, minor=0))
    (good,) = hardware.check_gpus()
    assert good == Finding("GPU 0", "ok", "NVIDIA H200, 141 GiB, driver 570.1, bf16")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(**GPU, major=7, minor=5))
    (old,) = hardware.check_gpus()
    assert old.status == "bad" and "no bf16" in old.found and "float16" in old.fix


def test_decoders_here_are_fine():
    findings = list(media.check_decoders())
    assert [finding.check for finding in findings] == ["decoder pyav", "decoder torchcodec", "decoder decord"]
    assert only(findings, "bad") == only(findings, "warning") == []
    assert sum("used by default" in finding.found for finding in findings) == 1


@pytest.mark.parametrize(
    ("reader", "modules", "found"),
    [
        ("LateVideo", {}, "timestamp"),
        ("NeighborVideo", {}, "another one"),
        ("RefusingVideo", {}, "libavcodec"),
        ("CrashingVideo", {}, "crashed (SIGSEGV)"),
        ("LateVideo", {"decord": "no_such_decoder", "pyav": "no_such_decoder"}, "cannot be loaded"),
    ],
)
def test_a_decoder_that_is_wrong_is_found(monkeypatch, reader, modules, found):
    monkeypatch.setattr(videos, "READER", f"tests.fake_readers:{reader}")
    monkeypatch.setattr(videos, "PACKAGES", {**videos.PACKAGES, **modules})
    monkeypatch.delitem(readers.BACKENDS, "torchcodec")
    default, other = media.check_decoders()
    assert (default.check, default.status) == ("decoder pyav", "bad") and "used by default" in default.found
    assert (other.check, other.status) == ("decoder decord", "warning")  # another one is used
    assert found in other.found and "video_backend" in other.fix


def test_an_undecodable_clip_is_a_text(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError):
        video.load_video(tmp_path / "clip.mp4", video.VideoSampling(), backend="pyav")
    assert "cannot decode" in (media.try_decoder("pyav", tmp_path / "clip.mp4") or "")


def test_attention(monkeypatch, versions):
    versions["flash-attn"] = None
    assert [finding.status for finding in hardware.check_attention()] == ["ok"] * 3
    versions["flash-attn"] = "2.8.3"
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # its import fails
    found = {f.check: f for f in hardware.check_attention()}["attention flash_attention_2"]
    assert found.status == "warning" and "import fails" in found.found  # not used without a GPU
    nan = torch.full((1, 2, 16, 64), float("nan"))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *_, **__: nan)
    assert next(hardware.check_attention()).status == "bad"


@pytest.mark.parametrize("error", [ImportError("undefined symbol: _ZN3c10"), OSError("libcudart.so.12")])
def test_a_package_for_another_torch_is_bad(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    finding = try_import("attention flash_attention_2", "flash_attn", "build it again")
    assert finding.status == "bad" and str(error) in finding.found and finding.fix == "build it again"


def test_deepspeed(monkeypatch):
    ops = {"cpu_adam": SimpleNamespace(is_compatible=lambda verbose: True)}
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "deepspeed.ops.op_builder.all_ops", SimpleNamespace(ALL_OPS=ops))
    assert next(software.check_deepspeed()) == Finding("deepspeed", "ok", "ops that could be built: cpu_adam yes")
    ops["cpu_adam"].is_compatible = lambda verbose: False
    assert next(software.check_deepspeed()).status == "warning"
    ops["cpu_adam"].is_compatible = lambda verbose: True
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    finding = next(software.check_deepspeed())
    assert finding.status == "warning" and "g++, ninja" in finding.found
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # import fails
    assert next(software.check_deepspeed()).status == "bad"


def test_disk_and_shared_memory(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 200 * 2**30))
    assert [f.status for f in hardware.check_space(tmp_path, tmp_path)] == ["ok", "ok"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 64 * 2**20))  # Docker's default
    disk, shm = hardware.check_space(tmp_path, tmp_path)
    assert (disk.status, shm.status) == ("warning", "warning") and "--shm-size" in shm.fix
    assert list(hardware.check_space(tmp_path, tmp_path / "none"))[1].fix == "dataloader_num_workers: 0"


def test_the_patch_embedding_is_timed_and_compared(monkeypatch):
    conv_s, matmul_s = hardware.time_patch_embedding()
    assert conv_s > 0 and matmul_s > 0
    for ratio, gpus, status in [(4.9, 0, "ok"), (5.1, 0, "warning"), (5.1, 1, "bad")]:
        monkeypatch.setattr(hardware, "time_patch_embedding", lambda ratio=ratio: (ratio, 1.0))
        monkeypatch.setattr(hardware, "num_gpus", lambda gpus=gpus: gpus)
        (finding,) = hardware.check_patch_embedding()
        assert finding.status == status and f"ratio {ratio}" in finding.found


def test_a_wrong_patch_embedding_is_bad(monkeypatch):
    conv = torch.nn.Conv3d.forward
    monkeypatch.setattr(torch.nn.Conv3d, "forward", lambda self, x: 1.1 * conv(self, x))
    (finding,) = hardware.check_patch_embedding()
    assert finding.status == "bad" and "differ by" in finding.found


def test_the_table_of_positions_follows_the_rule():
    for seconds, steps in positions.TEMPORAL_POSITIONS.items():
        assert steps == [int(pair * seconds * 2 + 1e-9) for pair in range(positions.NUM_PAIRS)]
    assert positions.expected_positions(1.25) == [0, 1, 2, 4, 7, 9, 12, 14, 15, 16, 17, 18]


def test_positions_here_are_fine():
    (finding,) = positions.check_positions()
    assert finding.status == "ok"


def keep_transformers_rule(model):
    """Leave a model as transformers 5 loads it."""


def stand_still(self, outputs, model_kwargs, *args, **kwargs):
    """Decode with a cache at the last position of the prompt."""
    model_kwargs = GROW(self, outputs, model_kwargs, *args, **kwargs)
    model_kwargs["position_ids"][..., -1] -= 1
    return model_kwargs


GROW = GenerationMixin._update_model_kwargs_for_generation


@pytest.mark.parametrize(
    ("place", "wrong", "found"),
    [
        ((released, "use_released_positions"), keep_transformers_rule, "asked for its positions"),
        ((released.PositionRule, "_block"), lambda *_: torch.arange(6).expand(3, -1), "0.25 s"),
        ((GenerationMixin, "_update_model_kwargs_for_generation"), stand_still, "given its positions"),
    ],
)
def test_wrong_positions_are_bad(monkeypatch, place, wrong, found):
    monkeypatch.setattr(*place, wrong)
    (finding,) = positions.check_positions()
    assert finding.status == "bad" and found in finding.found and "transformers" in finding.fix


def test_a_check_that_cannot_import_is_a_finding(monkeypatch):
    real = builtins.__import__

    def refuse_av(name, *args, **kwargs):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse_av)
    monkeypatch.setattr(doctor, "CHECKS", (media.check_decoders,))
    (finding,) = doctor.examine()
    assert finding.status == "bad" and finding.check == "decoders" and "av" in finding.found


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("bad", 1)])
def test_the_exit_code_is_1_only_when_something_is_broken(monkeypatch, capsys, tmp_path, status, code):
    monkeypatch.setenv("COLUMNS", "80")
    findings = [Finding("a [check]", "ok", "fine"), Finding("b", status, "x " * 80, "pip install 'trl[x]'")]
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter(findings),))
    assert cli(["doctor", "--json", str(tmp_path / "page.json")]) == code
    text = capsys.readouterr().out
    assert "a [check]" in text and "'trl[x]'" in text
    assert ("BROKEN" if code else "READY") in text
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads((tmp_path / "page.json").read_text())[1]["status"] == status
