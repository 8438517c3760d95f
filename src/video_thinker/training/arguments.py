"""What both stages' configs have beyond TRL's."""

from __future__ import annotations

from dataclasses import dataclass, field


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
