"""A training config -> a `Run`, without starting anything: no model is loaded and no process group is joined."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from video_thinker.config import DataArguments, ModelArguments, PeftArguments
from video_thinker.data.annotations import load_samples
from video_thinker.data.conversation import build_messages, build_target
from video_thinker.diagnostics.flags import find_stage
from video_thinker.diagnostics.memory import trains_no_vision
from video_thinker.diagnostics.planned_run import VLLM, Policy, Run, Workers, Zero
from video_thinker.diagnostics.shapes import Adapter, ModelShape, load_shape, video_grid
from video_thinker.errors import ConfigError
from video_thinker.keys.settings import read_config
from video_thinker.models.layers import SHARE_PREFILL_LAYERS, SHARE_PREFIX_LAYERS, layer_kinds
from video_thinker.models.loading import model_init_kwargs
from video_thinker.schema import VideoSample

CHARACTERS_PER_TOKEN = 3.0
"""English in Qwen's vocabulary has 4 to 5; times and tags have fewer. Low, so that lengths come out high."""

PROMPT_TEXT, TRACE = 512, 1024
"""Text tokens of a prompt and tokens of a trace where no item is there to measure."""

TEMPLATE, TIMESTAMP = 32, 10
"""Tokens of the chat template; and of `<12.3 seconds>` and two markers, which Qwen3-VL writes per pair of frames."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        argv: Config file and overrides.
        gpus: Number of GPUs.
        stage: "sft", "grpo", or "" to tell by the keys and the folder.
        shape: Folder or known checkpoint to take the model's shape from, instead of `model_name_or_path`.
        text_tokens: Text tokens of the longest prompt, instead of an estimate.
        target_tokens: Tokens of the longest trace, instead of an estimate.
        gpu_memory: Bytes of one GPU, of which vLLM takes a share.
    """

    argv: tuple[str, ...]
    gpus: int = 1
    stage: str = ""
    shape: str = ""
    text_tokens: int | None = None
    target_tokens: int | None = None
    gpu_memory: int = 0


@dataclass(frozen=True)
class Lengths:
    """Text tokens of the longest prompt, tokens of the longest trace, and how they are known."""

    prompt_text: int
    target: int
    source: str


def _stage_types(stage: str) -> tuple[type, ...]:
    from video_thinker.training.arguments import VideoGRPOConfig, VideoSFTConfig

    return (ModelArguments, PeftArguments, DataArguments, VideoSFTConfig if stage == "sft" else VideoGRPOConfig)


def _keys(types: Sequence[type]) -> dict[str, Any]:
    """Keys with their defaults."""
    return {
        f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        for kind in types
        for f in dataclasses.fields(kind)
    }


def read_zero(path: str) -> Zero:
    """Read what of a DeepSpeed file matters for memory.

    Raises:
        ConfigError: the file is missing, no JSON, or has no ZeRO stage.
    """
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))["zero_optimization"]
        stage = settings["stage"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"deepspeed={path!r}: cannot read zero_optimization.stage ({error!r}); name one of "
            "configs/deepspeed/*.json."
        ) from error

    def on_host(key: str) -> bool:
        return bool((settings.get(key) or {}).get("device", "none") != "none")

    def size(key: str, default: int | None) -> int | None:
        value = settings.get(key, default)
        return default if value in ("auto", None) else int(value)

    return Zero(
        stage,
        offload_optimizer=on_host("offload_optimizer"),
        offload_parameters=on_host("offload_param"),
        reduce_bucket=size("reduce_bucket_size", None if settings.get("reduce_bucket_size") == "auto" else 5 * 10**8),
        max_live=size("stage3_max_live_parameters", 10**9) or 10**9,
        sub_group=size("sub_group_size", 10**9) or 10**9,
    )


def _prompt_characters(sample: VideoSample, style: str) -> int:
    return sum(len(part.get("text", "")) for message in build_messages(sample, style) for part in message["content"])


def measure_lengths(values: dict[str, Any], request: Request, stage: str) -> Lengths:
    """Find the longest prompt and trace of the items, if they are there, by their characters."""
    notes, text, trace = [], PROMPT_TEXT, TRACE
    path = Path(values["train_file"] or "")
    if path.is_file():
        samples = load_samples(path)
        characters = max(_prompt_characters(sample, values["prompt_style"]) for sample in samples)
        text = TEMPLATE + int(characters / CHARACTERS_PER_TOKEN)
        if stage == "sft":
            trace = 1 + int(max(len(build_target(s)) for s in samples) / CHARACTERS_PER_TOKEN)
        notes.append(f"the longest of {len(samples)} items in {path}, {CHARACTERS_PER_TOKEN:g} characters a token")
    else:
        notes.append(f"assumed, since train_file={str(path)!r} is not there")
    if request.text_tokens is not None or request.target_tokens is not None:
        notes.append("as given on the command line")
    target = values["max_completion_length"] if stage == "grpo" else request.target_tokens or trace
    return Lengths(request.text_tokens or text, int(target), "; ".join(notes))


def read_values(request: Request) -> tuple[str, dict[str, Any]]:
    """Read a config: its stage, and the value of every key that stage has.

    Raises:
        ConfigError: see `find_stage` and `read_config`.
    """
    stage = request.stage or find_stage(request.argv)
    types = _stage_types(stage)
    return stage, {**_keys(types), **read_config(types, request.argv)}


def _whole(values: dict[str, Any], *keys: str) -> None:
    for key in keys:
        value = values[key]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ConfigError(f"{key}={value!r}: must be a whole number of at least 1.")


def _policy(values: dict[str, Any], shape: ModelShape, zero: Zero | None) -> Policy:
    name = model_init_kwargs(values["dtype"], "sdpa")["dtype"]
    stored: Any = shape.config.dtype
    dtype: torch.dtype = (stored or torch.float32) if name == "auto" else getattr(torch, name)
    fp16 = bool(values["fp16"])
    bf16 = not fp16 if values["bf16"] is None else bool(values["bf16"])
    mixed = torch.bfloat16 if bf16 else torch.float16 if fp16 else None
    if zero is not None:  # DeepSpeed casts the weights and does without autocast
        dtype, mixed = mixed or torch.float32, None
    checkpointing = values.get("activation_checkpointing")  # the name of transformers 6; wins where it is set
    adapter = shape.adapter
    if values["use_peft"]:
        settings = {key: values[key] for key in _keys([PeftArguments]) if key.startswith("lora_")}
        hashable = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
        adapter = Adapter(settings=tuple(hashable.items()))
    return Policy(
        shape,
        dtype,
        mixed,
        bool(values["gradient_checkpointing"] if checkpointing is None else checkpointing),
        eager_attention=values["attn_implementation"] == "eager",
        frozen=tuple(values["freeze"]),
        adapter=adapter,
        one_dtype=zero is not None or bool(values["load_in_4bit"]),
    )


def resolve(stage: str, values: dict[str, Any], request: Request) -> tuple[Run, Lengths]:
    """Turn the values of a config into a run.

    Raises:
        ConfigError: a value is wrong, does not fit another one, or nothing is known of its memory.
    """
    _whole(
        values, "per_device_train_batch_size", "gradient_accumulation_steps", "max_frames", "num_frames", "max_pixels"
    )
    shape = load_shape(request.shape or values["model_name_or_path"])
    zero = read_zero(values["deepspeed"]) if values["deepspeed"] else None
    grid = video_grid(shape.config, values["num_frames"] or values["max_frames"], values["max_pixels"])
    lengths = measure_lengths(values, request, stage)
    if shape.config.model_type == "qwen3_vl":
        lengths = dataclasses.replace(lengths, prompt_text=lengths.prompt_text + TIMESTAMP * grid[0])
    run = Run(
        _policy(values, shape, zero),
        str(getattr(values["optim"], "value", values["optim"])),
        values["per_device_train_batch_size"],
        values["gradient_accumulation_steps"],
        grid,
        lengths.prompt_text,
        lengths.target,
        gpus=request.gpus,
        zero=zero,
        load_in_4bit=bool(values["load_in_4bit"]),
        on_gpu=not values["use_cpu"],
        workers=Workers(
            values["dataloader_num_workers"],
            values["dataloader_prefetch_factor"] or 2,
            bool(values["dataloader_pin_memory"]),
            values["media_cache_mib"] * 2**20,
        ),
    )
    limit = values["max_length"] if stage == "sft" else values["max_prompt_length"]
    if limit is not None and run.prompt + (stage == "sft") > limit:
        key = "max_length" if stage == "sft" else "max_prompt_length"
        raise ConfigError(
            f"{key}={limit}: the longest prompt has {run.vision_tokens} vision and {run.prompt_text} text tokens, and "
            "nothing is truncated; raise it, or lower max_frames or max_pixels."
        )
    if stage == "sft":
        return dataclasses.replace(run, target=min(run.target, (limit or run.length) - run.prompt)), lengths
    return _with_rollouts(run, values, request.gpu_memory), lengths


def _vllm(values: dict[str, Any], gpu_memory: int) -> VLLM | None:
    if values["engine"] != "vllm":
        return None
    longest = values["engine_max_tokens"]
    if longest is None:
        if values["max_prompt_length"] is None:
            raise ConfigError("engine=vllm reserves memory for the longest prompt; give max_prompt_length in tokens.")
        longest = values["max_prompt_length"] + values["max_completion_length"]
    share = values["engine_gpu_memory_share"]
    if not 0 < share < 1:
        raise ConfigError(f"engine_gpu_memory_share={share}: must be between 0 and 1, a share of a GPU's memory.")
    parallel = int((values["engine_options"] or {}).get("tensor_parallel_size", 1))
    return VLLM(int(share * gpu_memory), longest, parallel, bool(values["engine_sleep"]))


def _with_rollouts(run: Run, values: dict[str, Any], gpu_memory: int) -> Run:
    if values["use_vllm"]:
        raise ConfigError("use_vllm=true is not supported: TRL gives vLLM no video; take engine=vllm instead.")
    _whole(values, "max_completion_length", "num_generations", "steps_per_generation", "generation_batch_size")
    steps = values["steps_per_generation"] or run.accumulation
    if values["generation_batch_size"]:
        steps = max(1, values["generation_batch_size"] // (run.rows * run.gpus))
    beta, adapter = values["beta"], run.policy.adapter
    kinds = layer_kinds(run.policy.shape.config)
    share_prefix = values["share_prefix"] and kinds <= SHARE_PREFIX_LAYERS
    share_prefill = values["share_prefill"] and values["ds3_gather_for_generation"] and kinds <= SHARE_PREFILL_LAYERS
    kind = "" if beta == 0 or values["use_peft"] else "model" if adapter is None else "adapter"
    return dataclasses.replace(
        run,
        rollout_rows=run.rows * steps,
        group=values["num_generations"],
        share_prefix=share_prefix and not values["attn_implementation"].startswith("flash"),
        share_prefill=share_prefill,
        share_vision=values["share_vision"] and share_prefill and trains_no_vision(run.policy),
        reference=kind,
        scores=beta != 0 or run.accumulation % (steps * values["num_iterations"]) != 0,
        gather_for_generation=bool(values["ds3_gather_for_generation"]),
        vllm=_vllm(values, gpu_memory),
    )
