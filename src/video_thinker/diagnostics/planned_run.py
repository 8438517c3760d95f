"""A training run, as far as its memory depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig

from video_thinker.diagnostics.activations import Batch
from video_thinker.diagnostics.shapes import Adapter, ModelShape, build_meta_model, video_tokens
from video_thinker.models.loading import freeze


@dataclass(frozen=True)
class Zero:
    """DeepSpeed ZeRO: what of its JSON file matters for memory. Sizes are in parameters."""

    stage: int
    offload_optimizer: bool = False
    offload_parameters: bool = False
    reduce_bucket: int | None = None
    max_live: int = 10**9
    sub_group: int = 10**9


@dataclass(frozen=True)
class Workers:
    """What feeds a rank: number of data workers, batches that each holds ready, pinning, frame cache of a process."""

    num: int = 0
    prefetch: int = 2
    pin_memory: bool = True
    cache_bytes: int = 0


@dataclass(frozen=True)
class VLLM:
    """vLLM in the training process.

    Attributes:
        share: Bytes of each GPU that it takes, whatever it does with them.
        sequence: Tokens of the longest prompt with its completion.
        tensor_parallel: GPUs that share one copy of the weights.
        sleeps: Whether it gives its share back between rollouts, and keeps its weights on the host.
    """

    share: int
    sequence: int
    tensor_parallel: int = 1
    sleeps: bool = False


@dataclass(frozen=True)
class Policy:
    """The model as it is trained.

    Attributes:
        shape: The model.
        dtype: Type the weights are held in.
        autocast: Type of mixed precision, or `None` (DeepSpeed casts the weights instead).
        gradient_checkpointing: Recompute each layer in backward.
        eager_attention: Attention that keeps its L x L matrix; all other implementations do not.
        frozen: Parts without gradients.
        adapter: LoRA adapter that is trained, the rest is not.
        one_dtype: Whether the adapter has the weights' type, as DeepSpeed and QLoRA want it; else it is fp32.
    """

    shape: ModelShape
    dtype: torch.dtype
    autocast: torch.dtype | None
    gradient_checkpointing: bool
    eager_attention: bool = False
    frozen: tuple[str, ...] = ()
    adapter: Adapter | None = None
    one_dtype: bool = False

    @property
    def compute_dtype(self) -> torch.dtype:
        """Type of activations."""
        return self.autocast or self.dtype

    def build(self, config: PretrainedConfig) -> Any:
        """Build it on the meta device, for a config of any depth.

        Raises:
            ConfigError: the model has no part or module of a name in the config.
        """
        attention = "eager" if self.eager_attention else "sdpa"
        model: Any = build_meta_model(config, dtype=self.dtype, attn_implementation=attention)
        if self.adapter is not None:
            model = self.adapter.add_to(model)
            if self.one_dtype:
                model = model.to(self.dtype)
        freeze(model, list(self.frozen))
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable()
            if self.adapter is not None:
                model.enable_input_require_grads()  # as TRL does; it makes a frozen vision tower keep activations, too
        return model


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        policy: The model as it is trained.
        optim: Optimizer, by its name in transformers.
        rows: Sequences of a micro-batch on each GPU.
        accumulation: Micro-batches per optimizer step.
        grid: Largest video in patches (T, H, W).
        prompt_text: Text tokens of the longest prompt.
        target: Tokens of the longest trace (SFT) or completion (GRPO).
        gpus: Number of GPUs.
        zero: ZeRO, or `None` for one GPU without DeepSpeed.
        load_in_4bit: QLoRA.
        rollout_rows: Completions sampled at a time on each GPU; 0 for SFT.
        group: G, completions per prompt; 1 for SFT.
        share_prefix: Whether the completions of a prompt are scored in one row.
        share_prefill: Whether a prompt is read once for its completions.
        share_vision: Whether a frozen tower encodes a video once per rollout.
        reference: "model", "adapter" or "" (no reference policy of its own).
        scores: Whether log-probabilities are computed without gradient, too.
        on_gpu: Whether TRL's output layer has its Triton kernels.
        gather_for_generation: Whether ZeRO-3 puts the whole model on each GPU for a rollout.
        workers: What feeds each rank.
        vllm: The engine that samples, or `None` for the local one.
    """

    policy: Policy
    optim: str
    rows: int
    accumulation: int
    grid: tuple[int, int, int]
    prompt_text: int
    target: int
    gpus: int = 1
    zero: Zero | None = None
    load_in_4bit: bool = False
    rollout_rows: int = 0
    group: int = 1
    share_prefix: bool = False
    share_prefill: bool = False
    share_vision: bool = False
    reference: str = ""
    scores: bool = False
    on_gpu: bool = True
    gather_for_generation: bool = True
    workers: Workers = Workers()
    vllm: VLLM | None = None

    @property
    def config(self) -> PretrainedConfig:
        """The model's config."""
        return self.policy.shape.config

    @property
    def vision_tokens(self) -> int:
        """Vision tokens of one sequence."""
        return video_tokens(self.config, self.grid)

    @property
    def prompt(self) -> int:
        """Prompt tokens of one sequence."""
        return self.vision_tokens + self.prompt_text

    @property
    def length(self) -> int:
        """Tokens of one sequence."""
        return self.prompt + self.target

    def groups(self, rows: int) -> int:
        """Count the prompts of so many neighbouring rows, at most."""
        cut = rows % self.group > 0 and self.group % rows > 0  # a group may begin in one batch and end in the next
        return -(-rows // self.group) + cut

    def training_batch(self) -> Batch:
        """The batch of a forward and backward; with a shared prefix, of packed rows."""
        if not self.share_prefix:
            return Batch(self.rows, self.length, self.grid, masked=self.rows > 1, encodes=not self.share_vision)
        packed = self.prompt - 1 + min(self.rows, self.group) * self.target
        return Batch(self.groups(self.rows), packed, self.grid, masked=True, encodes=not self.share_vision)

    def prefill_batch(self) -> Batch:
        """The batch that a rollout begins with."""
        rows = self.groups(self.rollout_rows) if self.share_prefill else self.rollout_rows
        return Batch(rows, self.prompt, self.grid, masked=rows > 1)
