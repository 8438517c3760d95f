"""What both stages' configs have beyond TRL's."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from video_thinker.errors import ConfigError

REPORTER_MODULES = {"azure_ml": "azureml", "flyte": "flytekit", "neptune": "neptune"}
"""Modules of the reporters that are not called like their module."""


def check_report_to(names: Iterable[str]) -> None:
    """Refuse a reporter that is unknown or not installed, before a model is loaded for it.

    Raises:
        ConfigError: naming the package to install.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(
                f"report_to={name!r} is unknown; choose among none, all, {', '.join(sorted(INTEGRATION_TO_CALLBACK))}."
            )
        module = REPORTER_MODULES.get(name, name)
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"report_to={name!r} needs the package {module}, which is not installed; `pip install {module}`, or "
                "take report_to: tensorboard (the default) or none."
            )


@dataclass
class RunArguments:
    """What is logged, blind canary, continuing a run, and the watchdog."""

    report_to: None | str | list[str] = field(
        default="tensorboard",
        metadata={
            "help": "Where metrics go: tensorboard, wandb, trackio, … (one or a list), all that are installed, none."
        },
    )
    telemetry: bool = field(
        default=True, metadata={"help": "Log speed, seconds per phase and memory (perf/, time/, data/, memory/)."}
    )
    peak_tflops: float | None = field(
        default=None,
        metadata={"help": "The device's dense peak in TFLOP/s, for perf/mfu; by default looked up by the GPU's name."},
    )
    canary_steps: int = field(default=100, metadata={"help": "Blind canary every so many steps; 0 turns it off."})
    canary_min_gap: float = field(default=1e-6, metadata={"help": "Least log-prob gap in nats per token."})
    resume: str = field(
        default="auto",
        metadata={
            "help": "auto: continue from the last complete checkpoint in output_dir, if there is one; never: refuse an "
            "output_dir that holds checkpoints. `resume_from_checkpoint` names a folder instead."
        },
    )
    step_timeout_s: float = field(
        default=3600.0, metadata={"help": "Abort, saying where, when nothing moves for so many seconds; 0 is off."}
    )

    def __post_init__(self) -> None:
        """Check what TRL and transformers would say less clearly, then let them check the rest.

        Raises:
            ConfigError: the DeepSpeed file is missing, or a reporter of `report_to`.
        """
        deepspeed: Any = getattr(self, "deepspeed", None)
        if isinstance(deepspeed, str) and not Path(deepspeed).is_file():
            raise ConfigError(
                f"deepspeed={deepspeed!r}: no such file, seen from {Path.cwd()}; name one of configs/deepspeed/*.json, "
                "or start from the folder of the project."
            )
        super().__post_init__()  # type: ignore[misc]
        check_report_to(self.report_to or ())


def launched_world_size() -> int:
    """Number of processes the launcher started, before any process group is there."""
    return int(os.environ.get("WORLD_SIZE", "1"))
