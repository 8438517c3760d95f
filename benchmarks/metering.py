"""Trainers that measure themselves: seconds and largest memory of each phase of a step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from transformers import TrainerCallback

from video_thinker.diagnostics.activations import LiveBytes
from video_thinker.training.grpo import VideoGRPOTrainer
from video_thinker.training.sft import VideoSFTTrainer


class Meter:
    """Adds up seconds and keeps the largest memory of each phase; phases inside a phase are not part of it.

    Attributes:
        seconds: Of each phase, one entry per step.
        peaks: Bytes of each phase; on a CPU, without the parameters.
        live: Counter of live tensors, on a CPU.
    """

    def __init__(self, live: LiveBytes | None) -> None:
        """Start outside of all phases."""
        self.live = live
        self.seconds: list[dict[str, float]] = [defaultdict(float)]
        self.peaks: dict[str, int] = defaultdict(int)
        self._stack = ["other"]
        self._since = time.perf_counter()

    def _close(self) -> None:
        phase = self._stack[-1]
        if self.live is None:
            torch.cuda.synchronize()
            self.peaks[phase] = max(self.peaks[phase], torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
        else:
            self.peaks[phase] = max(self.peaks[phase], self.live.peak)
            self.live.peak = self.live.now
        now = time.perf_counter()
        self.seconds[-1][phase] += now - self._since
        self._since = now

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self._close()
        self._stack.append(phase)

    def leave(self) -> None:
        """End the phase that began last."""
        self._close()
        self._stack.pop()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def next_step(self) -> None:
        """Begin the seconds of a new step."""
        self._close()
        self.seconds.append(defaultdict(float))


class StepCallback(TrainerCallback):
    """Tells the meter when a step ends and when the optimizer works."""

    def __init__(self, meter: Meter) -> None:
        """See the class."""
        self.meter = meter

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """See the class."""
        self.meter.enter("optimizer")

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """See the class."""
        self.meter.leave()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """See the class."""
        self.meter.next_step()


class MeteredSFTTrainer(VideoSFTTrainer):
    """The project's trainer, with a meter."""

    meter: Meter

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward."""
        with self.meter.phase("backward"):
            return super().training_step(*args, **kwargs)


class MeteredGRPOTrainer(VideoGRPOTrainer):
    """The project's trainer, with a meter."""

    meter: Meter

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward, around the phases below."""
        with self.meter.phase("backward"):
            return super().training_step(*args, **kwargs)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with self.meter.phase("rollout"):
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        with nullcontext() if torch.is_grad_enabled() else self.meter.phase("scoring"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.meter.phase("rewards"):
            return super()._calculate_rewards(*args, **kwargs)


def parameters(trainer: Any) -> list[torch.nn.Parameter]:
    """List the parameters of the policy and of the reference policy."""
    models = [trainer.model, getattr(trainer, "ref_model", None)]
    return [parameter for model in models if model is not None for parameter in model.parameters()]


def parameter_bytes(trainer: Any) -> int:
    """Count the bytes of all parameters, tied ones once."""
    return sum({p.untyped_storage()._cdata: p.nbytes for p in parameters(trainer)}.values())


def measure(trainer: Any, device: str) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Train: seconds by phase of each step, and the largest memory of each phase in bytes."""
    live = LiveBytes(parameters(trainer)) if device == "cpu" else None
    trainer.meter = Meter(live)
    trainer.add_callback(StepCallback(trainer.meter))
    with live or nullcontext():
        trainer.train()
    weights = parameter_bytes(trainer) if device == "cpu" else 0
    peaks = {phase: peak + weights for phase, peak in trainer.meter.peaks.items() if phase != "other"}
    return trainer.meter.seconds[:-1], peaks
