"""Packages, the two trainers, DeepSpeed."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from video_thinker.diagnostics.finding import Finding, Status, installed_version, num_gpus, try_import
from video_thinker.models.compat import missing_private_names

DISTRIBUTION = "video-thinker"
OPTIONAL = ("torchcodec", "flash-attn", "bitsandbytes", "wandb", "trackio")


@dataclass(frozen=True)
class KnownBad:
    """Versions of a package that install, import, and harm."""

    package: str
    versions: str
    harm: str
    fix: str
    only_on_gpu: bool = False


KNOWN_BAD = (
    KnownBad(
        "transformers",
        "==5.3.*",
        "temporal positions of Qwen2.5-VL are wrong (huggingface/transformers#45381)",
        "pip install -U transformers",
    ),
    KnownBad(
        "torch",
        "==2.9.*",
        "the vision patch embedding (Conv3d) is 10 to 20 times slower (pytorch/pytorch#174051, #166643)",
        "pip install -U 'torch>=2.10', or cuDNN 9.15 or newer beside torch 2.9.1",
        only_on_gpu=True,
    ),
)


def requirements() -> list[Requirement]:
    """What this project needs on this platform, from its own metadata; empty if it runs uninstalled."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    parsed = [Requirement(line) for line in lines]
    return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]


def check_packages() -> Iterator[Finding]:
    """Compare installed versions with the ones this project needs, and with those known to harm."""
    needed = requirements()
    if not needed:
        yield Finding("packages", "warning", f"{DISTRIBUTION} is not installed: versions unknown", "pip install -e .")
    fine = []
    for requirement in needed:
        version = installed_version(requirement.name)
        fix = f"pip install '{requirement.name}{requirement.specifier}'"
        if version is None:
            yield Finding(requirement.name, "bad", "not installed", fix)
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding(requirement.name, "bad", f"{version}, outside {requirement.specifier}", fix)
        else:
            fine.append(f"{requirement.name} {version}")
    shown = [item for item in fine if item.split()[0] in ("torch", "transformers", "trl", "deepspeed", "peft")]
    if fine:
        yield Finding("packages", "ok", f"{len(fine)} as needed: {', '.join(shown)}")
    for bad in KNOWN_BAD:
        version = installed_version(bad.package)
        if version is not None and SpecifierSet(bad.versions).contains(version, prereleases=True):
            status: Status = "warning" if bad.only_on_gpu and not num_gpus() else "bad"
            yield Finding(bad.package, status, f"{version}: {bad.harm}", bad.fix)
    extras = [f"{package} {version}" for package in OPTIONAL if (version := installed_version(package))]
    yield Finding("optional packages", "ok", ", ".join(extras) or "none of " + ", ".join(OPTIONAL))


def check_trainers() -> Iterator[Finding]:
    """Import both stages, and look for the methods of TRL that they override."""
    importlib.import_module("video_thinker.training.sft")
    importlib.import_module("video_thinker.training.grpo")
    missing = missing_private_names()
    if missing:
        found = f"the installed versions have no {', '.join(missing)} (video_thinker/models/compat.py)"
        yield Finding("trainers", "bad", found, "the versions of pyproject.toml and constraints.txt")
    else:
        yield Finding("trainers", "ok", "SFT and GRPO import, and every private name that they touch is there")


def check_deepspeed() -> Iterator[Finding]:
    """Ask DeepSpeed which of the ops that ZeRO uses it could build here; none is built."""
    if not num_gpus():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    finding = try_import("deepspeed", "deepspeed", "pip install -U deepspeed")
    if finding.status == "bad":
        yield finding
        return
    ops = importlib.import_module("deepspeed.ops.op_builder.all_ops").ALL_OPS
    wanted = [name for name in ("fused_adam", "cpu_adam", "async_io") if name in ops]
    usable = {name: bool(ops[name].is_compatible(verbose=False)) for name in wanted}
    listed = ", ".join(f"{name} {'yes' if fits else 'no'}" for name, fits in usable.items())
    tools = [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]
    if tools or not usable.get("cpu_adam", True):
        found = f"ZeRO works; offloading cannot build cpu_adam (missing: {', '.join(tools) or 'see ds_report'})"
        yield Finding("deepspeed", "warning", f"{found}; ops: {listed}", "install g++ and ninja for zero3_offload.json")
    else:
        yield Finding("deepspeed", "ok", f"ops that could be built: {listed}")
