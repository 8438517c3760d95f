"""Run a stage and die of SIGKILL at a chosen point: `python -m tests.killing sft|grpo POINT CONFIG [key=value …]`.

POINT is `step:N` (as step N + 1 begins) or `saving:N` (inside `checkpoint-N`, its model and optimizer written, its
random state not).
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

from transformers import Trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(stage: str, point: str, argv: list[str]) -> int:
    where, _, step = point.partition(":")
    name = {"step": "get_batch_samples", "saving": "_save_rng_state"}[where]
    original = getattr(Trainer, name)

    def dying(self, *args, **kwargs):
        if self.state.global_step == int(step):
            die()
        return original(self, *args, **kwargs)

    setattr(Trainer, name, dying)
    return importlib.import_module(f"video_thinker.training.{stage}").main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
