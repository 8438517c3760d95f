"""What both stages' configs have beyond TRL's."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field

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
        """Check what Trainer would only find after the model is loaded."""
        super().__post_init__()  # type: ignore[misc]
        check_report_to(self.report_to or ())
