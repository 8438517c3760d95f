"""The configs of both stages: TRL's, and what they have beyond it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl import GRPOConfig, SFTConfig

from video_thinker.errors import ConfigError
from video_thinker.generation.arguments import EngineArguments
from video_thinker.keys.rules import Count, CountOrZero, NotNegative, Positive, one_of

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


def check_json_object(key: str, path: Path) -> None:
    """Refuse a file that is no JSON object. Raises `ConfigError`."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:  # also of bytes that are no text
        raise ConfigError(f"{key}={str(path)!r}: is no JSON ({' '.join(str(error).split())}); correct it.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{key}={str(path)!r}: must hold a JSON object of settings; see configs/deepspeed/*.json.")


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
    peak_tflops: Positive | None = field(
        default=None,
        metadata={"help": "The device's dense peak in TFLOP/s, for perf/mfu; by default looked up by the GPU's name."},
    )
    canary_steps: CountOrZero = field(
        default=100, metadata={"help": "Blind canary every so many steps; 0 turns it off."}
    )
    canary_min_gap: NotNegative = field(default=1e-6, metadata={"help": "Least log-prob gap in nats per token."})
    resume: Annotated[str, one_of("auto", "never")] = field(
        default="auto",
        metadata={
            "help": "auto: continue from the last complete checkpoint in output_dir, if there is one; never: refuse an "
            "output_dir that holds checkpoints. `resume_from_checkpoint` names a folder instead."
        },
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Delete the run that is in output_dir (checkpoints, result, log) and start over."},
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Without effect: a run stops at the first loss that is not finite, with step and samples."},
    )
    step_timeout_s: NotNegative = field(
        default=3600.0, metadata={"help": "Abort, saying where, when nothing moves for so many seconds; 0 is off."}
    )

    def __getstate__(self) -> dict[str, Any]:
        """Leave tokens out of `training_args.bin`, which lies in every checkpoint and may be given away."""
        return {**self.__dict__, **{name: None for name in ("hub_token", "push_to_hub_token") if name in self.__dict__}}

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
        if isinstance(deepspeed, str):
            check_json_object("deepspeed", Path(deepspeed))
        super().__post_init__()  # type: ignore[misc]  # of the config of TRL that this is mixed into
        check_report_to(self.report_to or ())


def launched_world_size() -> int:
    """Number of processes the launcher started, before any process group is there."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass
class VideoSFTConfig(RunArguments, SFTConfig):
    """TRL's `SFTConfig` with the defaults video needs."""

    remove_unused_columns: bool = field(default=False)
    max_length: Count | None = field(
        default=8192, metadata={"help": "Longest prompt + trace in tokens; a longer one is an error, never cut."}
    )

    def __post_init__(self) -> None:
        """Hand the data to our collator untouched: TRL must neither tokenize nor truncate it."""
        given: Any = self.dataset_kwargs or {}
        self.dataset_kwargs = {**given, "skip_prepare_dataset": True}
        super().__post_init__()


@dataclass
class RolloutArguments(EngineArguments):
    """What a group's rollouts share, in what parts they are scored, and which groups are replaced."""

    engine_max_gap: Positive | None = field(
        default=None,
        metadata={
            "help": "Stop when the log-probabilities of engine and trainer differ by more nats per token, on the mean "
            "of one prompt's completions; by default 0.001 in float32 and 0.05 in half precision."
        },
    )
    engine_sleep: bool = field(
        default=False,
        metadata={
            "help": "engine=vllm gives its GPU memory back between rollouts (vLLM's sleep mode): keys and values are "
            "dropped, its weights wait in host memory. On a GPU only."
        },
    )
    share_prefix: bool = field(
        default=True,
        metadata={
            "help": "Score a prompt and its completions in one row; off, with a warning, where the attention cannot "
            "mask blocks and for models with layers other than full attention."
        },
    )
    share_prefill: bool = field(
        default=True,
        metadata={
            "help": "Read each prompt once when sampling, and drop completions that have ended; off, with a warning, "
            "for models with layers that keep a running state (linear attention)."
        },
    )
    share_vision: bool = field(
        default=True, metadata={"help": "Encode a video once per rollout if the tower and its merger are frozen."}
    )
    feature_cache_dir: str | None = field(
        default=None,
        metadata={"help": "Folder that keeps a frozen tower's features, so that a video is encoded once per run."},
    )
    feature_cache_gib: Positive = field(default=50.0, metadata={"help": "Size limit of `feature_cache_dir`."})
    max_tokens_per_forward: Count | None = field(
        default=None,
        metadata={
            "help": "Token budget of a forward, padding included: a micro-batch of more tokens is scored, and in "
            "training back-propagated, in parts. By default a forward holds per_device_train_batch_size rows."
        },
    )
    length_order: bool = field(
        default=False, metadata={"help": "Score rows of like length together, so that little padding is computed."}
    )
    dynamic_sampling_rounds: CountOrZero = field(
        default=0,
        metadata={
            "help": "Replace groups whose rewards are all equal by groups of other prompts, in at most so many further "
            "rounds of sampling; 0 keeps them."
        },
    )


@dataclass
class VideoGRPOConfig(RunArguments, RolloutArguments, GRPOConfig):
    """TRL's `GRPOConfig` with the rewards of Video-Thinker."""

    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy", "format"],
        metadata={"help": "Keys of video_thinker.rewards.REWARD_FUNCS; `reward_weights` weighs them (default 1 each)."},
    )
    reward_params: dict[str, Any] | None = field(
        default=None, metadata={"help": "Parameters by reward: {length: {min_tokens: 32, max_tokens: 96}}."}
    )
    max_prompt_length: Count | None = field(
        default=8192, metadata={"help": "Longest prompt in tokens; a longer one is an error, never cut."}
    )
    log_completions_steps: CountOrZero = field(
        default=10, metadata={"help": "Write sampled completions to completions.jsonl every so many steps; 0 is off."}
    )
    num_logged_completions: Count = field(
        default=8, metadata={"help": "How many each time; a multiple of num_generations shows whole groups."}
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "Rollout, policy and reference are one model each only without LoRA's dropout."}
    )

    @property
    def generate_every(self) -> int:
        """Micro-batches from one rollout to the next."""
        return (self.steps_per_generation or 1) * self.num_iterations

    def __post_init__(self) -> None:
        """Check that whole groups fit the batch, in the terms of the config.

        Raises:
            ConfigError: they do not, an engine is asked for that gets no video, or a reward's weight is not finite.
        """
        if not all(math.isfinite(weight) for weight in self.reward_weights or ()):
            raise ConfigError(f"reward_weights={self.reward_weights}: each weight must be a finite number; fix it.")
        for engine in ("use_vllm", "use_transformers_continuous_batching"):
            if getattr(self, engine):
                raise ConfigError(f"{engine}=true is not supported: TRL gives it no video; take engine=vllm instead.")
        processes = launched_world_size()
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        completions = self.per_device_train_batch_size * processes * steps
        if self.generation_batch_size is None and self.num_generations and completions % self.num_generations:
            raise ConfigError(
                f"per_device_train_batch_size={self.per_device_train_batch_size} x {processes} processes x {steps} "
                f"micro-batches a rollout = {completions} completions, which num_generations={self.num_generations} "
                "does not divide: a rollout holds whole groups. Change one of them."
            )
        super().__post_init__()
        if self.fsdp:
            raise ConfigError("fsdp is not supported: rollouts need whole weights; use deepspeed (configs/deepspeed).")
