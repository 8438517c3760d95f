"""Which keys to change so that a run fits: each change by itself, and the cheapest ones together."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_thinker.diagnostics.host import host_needed
from video_thinker.diagnostics.memory import Prediction, predict
from video_thinker.diagnostics.resolve import Request, resolve
from video_thinker.errors import ConfigError

ZERO_FILES = ("zero2", "zero3", "zero3_offload")
BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Keys that change together, so that an optimizer step sees as many samples."""

MIN_SAVED = 0.02
"""A change that saves a smaller share is not named."""


@dataclass(frozen=True)
class Limits:
    """Bytes that are there: on one GPU (`None` for a run without), and on the machine (`None` if it is not known)."""

    gpu: int | None
    host: int | None

    def excess(self, needed: int, host: int) -> int:
        """Bytes that are missing; 0 if all fits."""
        return sum(max(0, size - limit) for size, limit in ((host, self.host), (needed, self.gpu)) if limit is not None)


@dataclass(frozen=True)
class Change:
    """A change of the config; what a GPU then needs in bytes, with the reserve, and what the machine needs."""

    keys: dict[str, Any]
    needed: int
    host: int = 0

    @property
    def text(self) -> str:
        """The overrides, as the commands take them."""
        return " ".join(f"{key}={write_value(value)}" for key, value in self.keys.items())

    def fits(self, limits: Limits) -> bool:
        """Whether the run fits with it."""
        return limits.excess(self.needed, self.host) == 0


def write_value(value: Any) -> str:
    """Write a value as an override of a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(value)}]" if isinstance(value, list) else str(value)


def needed(prediction: Prediction) -> int:
    """Bytes a GPU must have. vLLM that gets too small a share needs as much more."""
    vllm = prediction.vllm
    missing = max(0, vllm.least - vllm.share) if vllm else 0
    return prediction.peak.total + prediction.reserve + missing


def possible_changes(stage: str, values: dict[str, Any], gpus: int, *, has_adapter: bool) -> list[dict[str, Any]]:
    """List changes that may save memory, those that cost least first."""
    changes: list[dict[str, Any]] = []
    if not values["gradient_checkpointing"]:
        changes.append({"gradient_checkpointing": True})
    rows, steps = values["per_device_train_batch_size"], values["gradient_accumulation_steps"]
    if rows % 2 == 0 and not (stage == "grpo" and (values["steps_per_generation"] or values["generation_batch_size"])):
        changes.append({"per_device_train_batch_size": rows // 2, "gradient_accumulation_steps": steps * 2})
    changes += _halved(values, "media_cache_mib", least=16) + _halved(values, "dataloader_num_workers", least=0)
    changes += _rollout_changes(values, gpus) if stage == "grpo" else []
    if values["dtype"] == "float32" and not values["use_cpu"]:
        changes.append({"dtype": "bfloat16"})
    files = [f"configs/deepspeed/{name}.json" for name in ZERO_FILES]
    files = [file for file in files if file != values["deepspeed"] and Path(file).is_file()]
    changes += [{"deepspeed": file} for file in files[:-1] if gpus > 1]
    if not has_adapter:
        changes += [{"freeze": sorted({*values["freeze"], "vision_tower"})}, {"use_peft": True}]
    elif not values["load_in_4bit"] and not values["deepspeed"]:
        changes.append({"load_in_4bit": True})
    frames = "num_frames" if values["num_frames"] else "max_frames"
    changes += _halved(values, frames, least=values["min_frames"])
    changes += _halved(values, "max_pixels", least=max(values["min_pixels"], 16 * 28 * 28))
    changes += _halved(values, "max_completion_length", least=128) if stage == "grpo" else []
    if stage == "grpo" and values["deepspeed"] and values["ds3_gather_for_generation"]:
        changes.append({"ds3_gather_for_generation": False})  # layer by layer, and slow
    changes += [{"deepspeed": file} for file in files[-1:]]
    return [*changes, {"beta": 0.0}] if stage == "grpo" and values["beta"] else changes


def _halved(values: dict[str, Any], key: str, *, least: int) -> list[dict[str, Any]]:
    value = values[key]
    return [{key: value // 2}] if value // 2 >= least and value else []


def _rollout_changes(values: dict[str, Any], gpus: int) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = []
    if values["engine"] == "vllm":
        share = values["engine_gpu_memory_share"]
        others = [round(share + step, 2) for step in (-0.1, 0.1)]
        changes += [{"engine_gpu_memory_share": one} for one in others if 0.05 <= one <= 0.9]
        changes += [{"engine_sleep": True}] * (not values["engine_sleep"])
        changes.append({"engine": "local"})
    steps = values["steps_per_generation"] or values["gradient_accumulation_steps"]
    completions = values["per_device_train_batch_size"] * gpus * steps // 2
    if steps % 2 == 0 and completions % values["num_generations"] == 0 and not values["generation_batch_size"]:
        changes.append({"steps_per_generation": steps // 2})  # fewer completions at a time, as many a step
    return changes


class Advisor:
    """Tries changes of one config.

    Args:
        stage: "sft" or "grpo".
        values: The config.
        request: What was asked.
        limits: What is there.
    """

    def __init__(self, stage: str, values: dict[str, Any], request: Request, limits: Limits) -> None:
        """See the class."""
        self.stage, self.values, self.request, self.limits = stage, values, request, limits
        self._tried: dict[str, Change | None] = {}

    def apply(self, keys: dict[str, Any]) -> Change | None:
        """Predict the run with changed keys; `None` if they do not fit the config."""
        name, values = repr(sorted(keys.items())), {**self.values, **keys}
        if name not in self._tried:
            self._tried[name] = None
            with suppress(ConfigError):  # two keys that exclude each other are no advice
                prediction = predict(resolve(self.stage, values, self.request)[0])
                if _has_whole_groups(self.stage, values, self.request.gpus):
                    self._tried[name] = Change(keys, needed(prediction), host_needed(prediction))
        return self._tried[name]

    def possible(self, keys: dict[str, Any]) -> list[dict[str, Any]]:
        """List the changes of the config with `keys` changed already."""
        values = {**self.values, **keys}
        run = resolve(self.stage, values, self.request)[0]
        return possible_changes(self.stage, values, self.request.gpus, has_adapter=run.policy.adapter is not None)

    def excess(self, change: Change) -> int:
        """Bytes that are still missing."""
        return self.limits.excess(change.needed, change.host)

    def singles(self, now: Change) -> list[Change]:
        """Find the changes that by themselves save at least 2% of what does not fit, the best first."""
        tried = [change for keys in self.possible({}) if (change := self.apply(keys)) is not None]
        saving = [change for change in tried if self._helps(change, now)]
        return sorted(saving, key=lambda change: (self.excess(change), change.needed))

    def _helps(self, change: Change, now: Change) -> bool:
        host_limit = math.inf if self.limits.host is None else self.limits.host
        over = [(now.host, change.host)] if now.host > host_limit else []
        if self.limits.gpu is not None and now.needed > self.limits.gpu:
            over.append((now.needed, change.needed))
        saves = any(after < (1 - MIN_SAVED) * before for before, after in over)
        return saves and self.excess(change) < self.excess(now)

    def together(self, now: Change) -> Change:
        """Combine the cheapest changes, each as often as it helps, until the run fits; then leave out what it can."""
        change, tried_since, useless = now, now, set[str]()
        while not change.fits(self.limits):
            for option in self.possible(change.keys):
                if repr(option) in useless:
                    continue
                further = self.apply({**change.keys, **option})
                if further is not None and self._helps(further, change):
                    change = further
                    break
                useless.add(repr(option))
            else:
                if change is tried_since:
                    return change
                tried_since = change
                useless.clear()  # what did not help before may help now
        return self._pruned(change)

    def _pruned(self, change: Change) -> Change:
        for first in [key for key in change.keys if key != BATCH[1]]:
            left_out = BATCH if first == BATCH[0] else (first,)
            fewer = self.apply({name: value for name, value in change.keys.items() if name not in left_out})
            if fewer is not None and fewer.fits(self.limits):
                change = fewer
        return change


def _has_whole_groups(stage: str, values: dict[str, Any], gpus: int) -> bool:
    """Whether a rollout holds whole groups, as `VideoGRPOConfig` wants it."""
    if stage != "grpo" or values["generation_batch_size"]:
        return True
    steps = values["steps_per_generation"] or values["gradient_accumulation_steps"]
    return bool(values[BATCH[0]] * gpus * steps % values["num_generations"] == 0)


def command_line(stage: str, argv: Sequence[str], change: Change, gpus: int) -> str:
    """Write the command that starts the run with a change; overrides that it replaces are left out."""
    config, *given = argv
    kept = [item for item in given if item.removeprefix("--").partition("=")[0] not in change.keys]
    words = [config, *kept, *change.text.split()]
    script = [f"NUM_PROCESSES={gpus}", f"scripts/run_{stage}_video.sh"] if gpus > 1 else ["video-thinker", stage]
    return " ".join([*script, *map(shlex.quote, words)])
