"""What a check finds, and what several checks need. Imports nothing heavy: a broken package must not break the page."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

Status = Literal["ok", "warning", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line of the page: what was checked, how it is, what was found, and what to do about it."""

    check: str
    status: Status
    found: str
    fix: str = ""


def num_gpus() -> int:
    """Count the GPUs that torch sees."""
    import torch

    return torch.cuda.device_count()


def installed_version(package: str) -> str | None:
    """Version of an installed package, or `None`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def try_import(check: str, module: str, fix: str) -> Finding:
    """Import a module that is installed."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # a binary for another torch fails in its own way
        return Finding(check, "bad", f"installed, but import fails: {' '.join(str(error).split())[:200]}", fix)
    return Finding(check, "ok", "imports")
