"""What both stages' configs have beyond TRL's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from video_thinker.errors import ConfigError


@dataclass
class RunArguments:
    """Blind canary, continuing a run, and the watchdog."""

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
            ConfigError: the DeepSpeed file is missing.
        """
        deepspeed: Any = getattr(self, "deepspeed", None)
        if isinstance(deepspeed, str) and not Path(deepspeed).is_file():
            raise ConfigError(
                f"deepspeed={deepspeed!r}: no such file, seen from {Path.cwd()}; name one of configs/deepspeed/*.json, "
                "or start from the folder of the project."
            )
        super().__post_init__()  # type: ignore[misc]


def launched_world_size() -> int:
    """Number of processes the launcher started, before any process group is there."""
    return int(os.environ.get("WORLD_SIZE", "1"))
