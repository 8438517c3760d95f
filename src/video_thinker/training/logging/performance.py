"""Speed, phases and memory of a training run, in the metrics of every logging step.

`perf/tokens_per_s`, `perf/samples_per_s`, `perf/tflops` and `perf/mfu`; seconds of an optimizer step by phase
(`time/forward`, …, `time/step`); `data/wait_share`; `memory/…`. While a training is watched, the methods at
which one phase becomes another are wrapped, and hooks on the model see what it is applied to; no number of the training
changes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from video_thinker.models.flops import (
    ModelCost,
    Work,
    model_cost,
    packed_work,
    peak_tflops,
    text_work,
    vision_work,
)
from video_thinker.models.tower_calls import find_vision_model
from video_thinker.training.logging.timeline import OTHER, Timeline

logger = logging.getLogger(__name__)

PHASES = ("decode", "data_wait", "vision", "generation", "scoring", "reward", "forward", "backward", "optimizer", OTHER)
GIB = 2**30


class WorkMeter:
    """Counts what models are applied to, with and without gradients, from hooks on them.

    The numbers of tokens lie on the GPU; they are kept there, and read once per logging step.

    Args:
        timeline: Work counts while it runs; the vision tower's time is its phase "vision".
    """

    def __init__(self, timeline: Timeline) -> None:
        """See the class."""
        self.timeline = timeline
        self.work = {False: Work(), True: Work()}
        self._pending: list[tuple[bool, Callable[[], Work]]] = []
        self._segments: torch.Tensor | None = None

    def add(self, work: Work, *, training: bool) -> None:
        """Count work that is known already."""
        if self.timeline.is_running:
            self.work[training].update(work)

    def _add_later(self, work: Callable[[], Work]) -> None:
        if self.timeline.is_running:
            self._pending.append((torch.is_grad_enabled(), work))

    def take(self) -> dict[bool, Work]:
        """Work since the last call, without (`False`) and with gradient (`True`). Waits for the GPU."""
        for training, work in self._pending:
            self.work[training].update(work())
        taken = self.work
        self._pending, self.work = [], {False: Work(), True: Work()}
        return taken

    @contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Watch a model: the trainer's own or the reference, wrapped by PEFT or not."""
        backbone: Any = find_vision_model(model)
        handles = [
            model.register_forward_pre_hook(self._count_labels, with_kwargs=True),
            backbone.visual.register_forward_pre_hook(self._enter_tower, with_kwargs=True),
            backbone.visual.register_forward_hook(lambda *_: self.timeline.leave()),
            backbone.language_model.register_forward_pre_hook(self._count_text, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count_labels(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """TRL's output layer is applied to the positions before a label only."""
        labels = kwargs.get("shift_labels")
        if labels is None and kwargs.get("labels") is not None:
            labels = kwargs["labels"][:, 1:]
        if labels is not None:
            count = (labels != -100).sum()
            self._add_later(lambda: Work(scored=int(count)))

    def _enter_tower(self, tower: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.timeline.enter("vision")
        grid_thw = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        self._add_later(lambda: vision_work(grid_thw.tolist(), tower.config))

    def expect_packed(self, segments: torch.Tensor) -> None:
        """Announce that the next forward's rows are packed groups, (R, L); its mask does not tell their padding."""
        self._segments = segments

    def _count_text(self, text: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count the tokens (B, L) of a forward; decoding, one token at a time, is counted by its result."""
        segments, self._segments = self._segments, None
        batch, length = kwargs["inputs_embeds"].shape[:2]
        mask = kwargs.get("attention_mask")
        if segments is not None:
            self._add_later(lambda: packed_work(segments.tolist()))
        elif length > 1 and isinstance(mask, torch.Tensor) and mask.dim() == 2:
            lengths = mask.sum(dim=1)  # 1 for a token and 0 for padding
            self._add_later(lambda: text_work(lengths.tolist()))
        elif length > 1:
            self._add_later(lambda: text_work([length] * batch))


class Performance(TrainerCallback):
    """Measures the steps of a training.

    Args:
        accelerator: The trainer's.
        enabled: `False` measures nothing.
        peak: The device's dense peak in TFLOP/s; `None` looks it up by the device's name.
    """

    def __init__(self, accelerator: Accelerator, *, enabled: bool = True, peak: float | None = None) -> None:
        """See the class."""
        self.accelerator = accelerator
        self.enabled = enabled
        self.timeline = Timeline(accelerator.device)
        self.meter = WorkMeter(self.timeline)
        self.cost: ModelCost | None = None
        self._on_gpu = accelerator.device.type == "cuda"
        self.peak = peak or (peak_tflops(torch.cuda.get_device_name(accelerator.device)) if self._on_gpu else None)
        self._process = psutil.Process()
        self.num_steps = 0
        self.num_samples = 0

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Do something in a phase of `PHASES`; outside of a training step it is not measured."""
        return self.timeline.phase(name)

    def paused(self) -> AbstractContextManager[None]:
        """Do something whose time is "other" and whose work is not the training's."""
        return self.timeline.paused()

    @contextmanager
    def watching(self, trainer: Trainer) -> Iterator[None]:
        """Measure a training, from the first step to the last.

        Meanwhile the methods of this trainer at which one phase becomes another are wrapped, on this object only.
        """
        if not self.enabled:
            yield
            return
        wrappers = {
            "get_batch_samples": self._fetching,
            "training_step": self._stepping,
            "compute_loss": self._forwarding,
            "log": self._logging,
        }
        for name, wrap in wrappers.items():
            setattr(trainer, name, wrap(getattr(trainer, name), trainer))
        try:
            with self._counting(trainer.model, getattr(trainer, "ref_model", None)):
                yield
        finally:
            self.timeline.stop()
            for name in wrappers:
                delattr(trainer, name)

    def _fetching(self, fetch: Callable[..., Any], trainer: Trainer) -> Callable[..., Any]:
        """Fetching the batches of a step: the work of this process, or waiting for its workers."""

        @functools.wraps(fetch)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.begin_step()
            with self.phase("data_wait" if trainer.args.dataloader_num_workers else "decode"):
                return fetch(*args, **kwargs)

        return timed

    def _stepping(self, step: Callable[..., Any], trainer: Trainer) -> Callable[..., Any]:
        """Forward and backward of a micro-batch; after the last one, clipping and the optimizer follow."""

        @functools.wraps(step)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(OTHER):
                loss = step(*args, **kwargs)
            if self.accelerator.sync_gradients:
                self.timeline.switch("optimizer")
            return loss

        return timed

    def _forwarding(self, compute_loss: Callable[..., Any], trainer: Trainer) -> Callable[..., Any]:
        """Forward; what the training step does after it is the backward."""

        @functools.wraps(compute_loss)
        def timed(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if self.timeline.is_running:
                self.num_samples += len(inputs["input_ids"] if "input_ids" in inputs else inputs["prompt_ids"])
            with self.phase("forward"):
                loss = compute_loss(model, inputs, *args, **kwargs)
            self.timeline.switch("backward")
            return loss

        return timed

    def _logging(self, log: Callable[..., Any], trainer: Trainer) -> Callable[..., Any]:
        """Log with the measurements of the steps since the last entry."""

        @functools.wraps(log)
        def timed(logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                logs.update(self.summary())
            log(logs, start_time)

        return timed

    @contextmanager
    def _counting(self, model: Any, reference: nn.Module | None) -> Iterator[None]:
        """Count what the models are applied to."""
        self.cost = model_cost(model, model.config)
        if self.cost is None:
            logger.warning("perf/tflops and perf/mfu are left out: FLOPs of a mixture of experts are not known here")
        with ExitStack() as stack:
            for module in (model, reference):
                if module is not None:
                    stack.enter_context(self.meter.hooked(module))
            yield

    def begin_step(self) -> None:
        """An optimizer step begins, with its first batch still to come."""
        if self.enabled:
            self.timeline.start()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """DeepSpeed's optimizer steps inside accelerate's `backward`: give it its phase there."""
        wrapped = getattr(self.accelerator, "deepspeed_engine_wrapped", None)
        if wrapped is not None:
            wrapped.engine.step = self._in_phase("optimizer", wrapped.engine.step)

    def _in_phase(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return timed

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The weights are updated."""
        self.timeline.switch(OTHER)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The step is done; logging, evaluation and saving follow."""
        if self.timeline.is_running:
            self.num_steps += 1
        self.timeline.stop()

    def summary(self) -> dict[str, float]:
        """Metrics of the steps since the last call, the same on every rank. One collective; waits for the GPU.

        Seconds are means over steps and ranks, so that phases add up to the step; tokens, samples and FLOPs are sums
        over ranks; memory and the share of waiting for data are those of the rank where they are largest.
        """
        if not self.num_steps:
            return {}
        ranks = self._gather(self._measure())
        metrics = {f"time/{name}": ranks[name].mean().item() for name in (*PHASES, "step")}
        total_s = metrics["time/step"] * self.num_steps
        metrics["perf/tokens_per_s"] = ranks["tokens"].sum().item() / total_s
        metrics["perf/samples_per_s"] = ranks["samples"].sum().item() / total_s
        if self.cost is not None:
            metrics["perf/tflops"] = ranks["tflop"].mean().item() / total_s
            if self.peak:
                metrics["perf/mfu"] = metrics["perf/tflops"] / self.peak
        metrics["data/wait_share"] = ranks["wait_share"].max().item()
        metrics["memory/host_rss_gib"] = ranks["host_rss_gib"].max().item()
        if self._on_gpu:
            metrics["memory/gpu_peak_gib"] = ranks["gpu_peak_gib"].max().item()
            torch.cuda.reset_peak_memory_stats(self.accelerator.device)
        self.num_steps = self.num_samples = 0
        return metrics

    def _measure(self) -> dict[str, float]:
        """Look at this rank: seconds per step, counts of all steps since the last call, memory now."""
        seconds, work = self.timeline.seconds(), self.meter.take()
        total_s = sum(seconds.values())
        flops = sum(self.cost.flops(w, training=training) for training, w in work.items()) if self.cost else 0.0
        gpu_peak = torch.cuda.max_memory_allocated(self.accelerator.device) if self._on_gpu else 0
        return {
            **{phase: seconds[phase] / self.num_steps for phase in PHASES},
            "step": total_s / self.num_steps,
            "wait_share": (seconds["decode"] + seconds["data_wait"]) / total_s,
            "tokens": work[True]["tokens"],
            "samples": self.num_samples,
            "tflop": flops / 1e12,
            "host_rss_gib": self._process.memory_info().rss / GIB,
            "gpu_peak_gib": gpu_peak / GIB,
        }

    def _gather(self, measured: dict[str, float]) -> dict[str, torch.Tensor]:
        """Each value of all ranks, (number of ranks,)."""
        row = torch.tensor([list(measured.values())], device=self.accelerator.device, dtype=torch.float32)
        return dict(zip(measured, self.accelerator.gather(row).cpu().unbind(dim=1), strict=True))
