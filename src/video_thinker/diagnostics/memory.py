"""Predicted memory of a training run on each GPU, phase by phase.

What is exact: parameters, gradients and optimizer states (counted on the meta device), activations (`activations`).
What is arithmetic, from the sources named: the output layer of TRL (`trl/kernels/chunked_logprob.py`), the KV cache of
transformers' `DynamicCache`, ZeRO's partitions (Rajbhandari et al., arXiv 1910.02054, section 5) with DeepSpeed's
buffers. What is a guess: `reserve`, the CUDA context and the allocator's fragmentation.

Letters: A all parameters, P trainable ones, n GPUs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch

from video_thinker.diagnostics.activations import DEPTHS, Batch, Traces
from video_thinker.diagnostics.planned_run import Policy, Run
from video_thinker.diagnostics.shapes import ParameterCount, count_parameters, with_depth
from video_thinker.errors import ConfigError

GIB = 2**30
FP32 = 4
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""Tile of TRL's fused output layer: `TOKEN_CHUNK_SIZE` and `_CHUNKED_LOGPROB_CHUNK_SIZE` of TRL 1.16."""

CPU_COPIES = 6
"""fp32 tensors of a tile's size that `_forward_tile` and `_backward_tile` make where there is no Triton."""

NF4_BYTES = (4 + (8 + 32 / 256) / 64) / 8
"""Bytes per weight in 4 bits with double quantization: one 8-bit scale per 64 weights, one fp32 scale per 256 of them
(Dettmers et al., arXiv 2305.14314, section 3)."""

OPTIMIZER_STATES = {
    "adamw_torch": 2.0,
    "adamw_torch_fused": 2.0,
    "adafactor": 0.0,
    "sgd": 0.0,
    "adamw_8bit": 0.5,
    "adamw_bnb_8bit": 0.5,
    "paged_adamw_8bit": 0.5,
    "paged_adamw_32bit": 2.0,
}
"""States in fp32 units per trainable parameter, by `optim`; that paged ones may move to the host is left out."""


@dataclass(frozen=True)
class Phase:
    """One phase of a step: bytes by component, at the moment when their sum is largest, and what that moment is."""

    name: str
    moment: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes allocated."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class VLLMUse:
    """What vLLM does with its share of a GPU, in bytes: a copy of the weights of its own; the rest is room.

    Attributes:
        share: All it takes.
        weights: Its copy of the weights.
        sequence: Keys and values of the longest prompt with its completion.
        sleeps: Whether it has its share during rollouts only, and its weights on the host else.
    """

    share: int
    weights: int
    sequence: int
    sleeps: bool = False

    @property
    def least(self) -> int:
        """The smallest share that works: weights, one sequence, and a tenth of the weights for activations."""
        return self.weights + self.weights // 10 + self.sequence

    @property
    def num_sequences(self) -> int:
        """The longest sequences that it can sample at a time."""
        return self.space // self.sequence

    @property
    def space(self) -> int:
        """Bytes for keys and values."""
        return max(0, self.share - self.weights - self.weights // 10)


@dataclass(frozen=True)
class Prediction:
    """Memory of a run.

    Attributes:
        run: The run.
        parameters: Counted parameters.
        phases: In the order of a step.
        host: Bytes of host memory that offloading takes, all GPUs of the run together; see `host` for the rest.
        vllm: What vLLM does with its share, where it samples.
    """

    run: Run
    parameters: ParameterCount
    phases: list[Phase] = field(default_factory=list)
    host: int = 0
    vllm: VLLMUse | None = None

    @property
    def peak(self) -> Phase:
        """The phase that takes most; compare its total with `torch.cuda.max_memory_allocated`."""
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def reserve(self) -> int:
        """What a GPU needs beyond allocations: 1 GiB of CUDA context, 1 GiB of NCCL, 5% fragmentation."""
        return (GIB if self.run.gpus == 1 else 2 * GIB) + self.peak.total // 20


@functools.lru_cache(maxsize=64)
def _count(policy: Policy) -> tuple[ParameterCount, int, int]:
    """Count parameters, those of the output layer if it is trained, and linear ones that QLoRA quantizes."""
    model = policy.build(policy.shape.config)
    base = model.get_base_model() if policy.adapter is not None else model
    head = base.get_output_embeddings().weight
    quantized = sum(
        module.weight.numel()
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and "language_model." in name and "lora_" not in name
    )
    return count_parameters(model), head.numel() if head.requires_grad else 0, quantized


@functools.lru_cache(maxsize=64)
def trains_no_vision(policy: Policy) -> bool:
    """Tell whether nothing of the vision tower and its merger is trained."""
    model = policy.build(with_depth(policy.shape.config, DEPTHS[0]))
    return not any(p.requires_grad for name, p in model.named_parameters() if "visual" in name.split("."))


@functools.lru_cache(maxsize=32)
def _traces(policy: Policy) -> Traces:
    return Traces(policy.build, policy.shape.config, policy.autocast)


class _Memory:
    """The arithmetic of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.text = run.config.text_config
        self.hidden_size: int = self.text.hidden_size
        self.parameters, self.head, self.quantized = _count(run.policy)
        self.width = run.policy.dtype.itemsize  # bytes of a weight and of its gradient
        self.n = run.gpus if run.zero is not None else 1
        self.stage = run.zero.stage if run.zero is not None else 0

    def sharded(self, size: int, from_stage: int) -> int:
        """Bytes on each GPU of something that ZeRO partitions from a stage on."""
        return -(-size // self.n) if self.stage >= from_stage else size

    def weights(self) -> int:
        size = self.parameters.bytes
        if self.run.load_in_4bit:
            size -= int(self.quantized * (self.width - NF4_BYTES))
        return self.sharded_weights(size)

    def sharded_weights(self, size: int) -> int:
        offloaded = self.run.zero is not None and self.run.zero.offload_parameters
        return 0 if offloaded else self.sharded(size, 3)

    def gathered(self) -> int:
        """Weights that ZeRO-3 has put together for the layers at work."""
        if self.stage < 3 or self.run.zero is None:
            return 0
        return min(self.parameters.total, self.run.zero.max_live) * self.width

    def reference(self) -> int:
        parameters = self.parameters
        sizes = {"": 0, "model": parameters.total * self.width, "adapter": parameters.trainable_bytes}
        return self.sharded_weights(sizes[self.run.reference])

    def gradients(self) -> int:
        zero = self.run.zero
        if zero is not None and zero.offload_optimizer and self.stage >= 2:
            return 0  # they go to host memory bucket by bucket
        return self.sharded(self.parameters.trainable_bytes, 2)

    def buckets(self) -> int:
        """Buffers for reducing gradients: DeepSpeed has two of them, DDP a second copy of all gradients."""
        if self.run.zero is None:
            return self.parameters.trainable_bytes if self.run.gpus > 1 else 0
        bucket = self.run.zero.reduce_bucket or self.text.hidden_size**2  # "auto", as transformers fills it in
        return 2 * min(bucket, self.parameters.trainable) * self.width

    def optimizer(self) -> int:
        if self.run.optim not in OPTIMIZER_STATES:
            known = ", ".join(OPTIMIZER_STATES)
            raise ConfigError(f"optim={self.run.optim!r}: its memory is not known here; known are {known}.")
        states = OPTIMIZER_STATES[self.run.optim]
        if self.run.zero is None:
            scale = self.parameters.trainable_bytes if states >= 1 else self.parameters.trainable * FP32
            return int(states * scale)
        if self.run.zero.offload_optimizer:
            return 0
        return self.sharded(int((1 + states) * FP32 * self.parameters.trainable), 1)  # with the fp32 master weights

    def static(self, *, gradients: bool, sampling: bool = False) -> dict[str, int]:
        """Bytes that stay from step to step; `sampling` while completions are drawn."""
        vllm = self.run.vllm
        return {
            "weights": self.weights(),
            "reference policy": self.reference(),
            "gradients": self.gradients() if gradients else 0,
            "optimizer states": self.optimizer(),
            "communication": self.buckets(),
            "vLLM": vllm.share if vllm and (sampling or not vllm.sleeps) else 0,
        }

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients are there before the first backward of a step is over."""
        return self.run.accumulation > 1 or self.run.zero is not None

    def media(self, batch: Batch) -> int:
        """Pixels, or the features in their place."""
        if not batch.encodes:
            return batch.rows * self.run.vision_tokens * self.hidden_size * self.width
        patches, values = batch.patch_shape(self.run.config.vision_config)
        return patches * values * FP32

    def scored_tokens(self) -> int:
        """Positions that the output layer scores: with Triton kernels those with a label, without them all."""
        batch = self.run.training_batch()
        return self.run.rows * self.run.target if self.run.on_gpu else batch.rows * batch.length

    def head_tile(self) -> int:
        """TRL's output layer: one tile of logits, and the hidden states it scores."""
        run, width, tokens = self.run, self.run.policy.compute_dtype.itemsize, self.scored_tokens()
        rows, columns = min(tokens, TILE_TOKENS), min(int(self.text.vocab_size), TILE_VOCABULARY)
        copies = 0 if run.on_gpu else FP32 * columns * (CPU_COPIES * rows + self.hidden_size)
        return rows * TILE_VOCABULARY * width + tokens * self.hidden_size * width + copies

    def head_backward(self) -> int:
        """The same with its gradients, which it sums up in fp32."""
        hidden = self.scored_tokens() * self.hidden_size * (FP32 + self.width)
        return self.head_tile() + hidden + self.head * (FP32 + self.width)

    def kv_cache(self, rows: int, tokens: int, width: int | None = None) -> int:
        """Keys and values of all layers for `tokens` of each row, of so many bytes each; by default as in a forward."""
        text = self.text
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        values: int = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim
        return rows * tokens * values * (width or self.run.policy.compute_dtype.itemsize)

    def vllm_use(self) -> VLLMUse | None:
        vllm = self.run.vllm
        if vllm is None:
            return None
        weights = (self.parameters.total - self.parameters.adapter) * self.width // vllm.tensor_parallel
        sequence = self.kv_cache(1, vllm.sequence, self.width) // vllm.tensor_parallel
        return VLLMUse(vllm.share, weights, sequence, vllm.sleeps)

    def rollout(self) -> Phase:
        run = self.run
        static = self.static(gradients=run.zero is not None, sampling=True)
        whole = self.stage == 3 and run.gather_for_generation
        static["gathered weights"] = self.parameters.total * self.width if whole else self.gathered()
        if run.vllm is not None:  # keys and values, activations and logits are in its share
            return _largest("rollout", static, {"new weights": {}})
        batch = run.prefill_batch()
        static["media"] = self.media(batch)
        full, layers = self.kv_cache(run.rollout_rows, run.length), self.text.num_hidden_layers
        # Each new token copies one layer's cache into a longer one; with a mask, attention repeats it for all heads.
        heads_per_key = self.text.num_attention_heads // self.text.num_key_value_heads
        copies = full // layers * (1 + (heads_per_key if run.rollout_rows > 1 else 0))
        sampler = run.rollout_rows * self.text.vocab_size * 5 * FP32
        prefill = _traces(run.policy).inference(batch)
        moments = {
            "prefill": {"KV cache": self.kv_cache(batch.rows, run.prompt), "activations": prefill},
            "last token": {"KV cache": full, "activations": copies, "logits": sampler},
        }
        return _largest("rollout", static, moments)

    def scoring(self) -> Phase:
        run = self.run
        static = self.static(gradients=run.zero is not None)
        static["gathered weights"] = self.gathered()
        batch = run.training_batch()
        static["media"] = self.media(batch)
        hidden = batch.rows * batch.length * self.text.hidden_size * run.policy.compute_dtype.itemsize
        moments = {
            "forward": {"activations": _traces(run.policy).inference(batch)},
            "output layer": {"activations": hidden, "logits": self.head_tile()},
        }
        return _largest("scoring", static, moments)

    def backward(self) -> Phase:
        run = self.run
        batch = run.training_batch()
        vision, language = _traces(run.policy).training(batch)
        static = self.static(gradients=self.keeps_gradients)
        static["gathered weights"] = self.gathered()
        static["media"] = self.media(batch)
        saved = vision.saved + language.saved
        moments = {
            "output layer": {"activations": saved, "logits": self.head_backward()},
            "language model": {"activations": saved + language.transient},
        }
        if not self.keeps_gradients:  # they grow while activations are freed
            share = self.parameters.language_trainable / max(1, self.parameters.trainable)
            of_language = int(share * self.gradients())
            moments["language model"]["gradients"] = self.head * self.width
            moments["language model, end"] = {
                "activations": vision.saved + language.transient,
                "gradients": of_language,
            }
            moments["vision tower"] = {"activations": vision.peak, "gradients": of_language}
            moments["vision tower, end"] = {"activations": vision.transient, "gradients": self.gradients()}
        return _largest("backward", static, moments)

    def step(self) -> Phase:
        static = self.static(gradients=True)
        zero, moment = self.run.zero, {}
        if zero is not None and not zero.offload_optimizer:
            largest = min(-(-self.parameters.trainable // self.n), zero.sub_group if self.stage == 3 else 10**15)
            moment = {"fp32 gradients": FP32 * largest}
        elif zero is None and self.run.optim == "adamw_torch":
            moment = {"fp32 gradients": self.parameters.trainable_bytes}  # the temporaries of its `foreach` kernels
        return _largest("optimizer", static, {"step": moment})

    def host(self) -> int:
        zero, size = self.run.zero, 0
        if zero is not None and zero.offload_optimizer:
            size += (1 + 1 + 2) * FP32 * self.parameters.trainable  # master weights, gradients, two states
        if zero is not None and zero.offload_parameters:
            size += self.parameters.bytes * (2 if self.run.reference == "model" else 1)
        return size


def _largest(name: str, static: dict[str, int], moments: dict[str, dict[str, int]]) -> Phase:
    moment = max(moments, key=lambda key: sum(moments[key].values()))
    parts = {part: static.get(part, 0) + moments[moment].get(part, 0) for part in {**static, **moments[moment]}}
    return Phase(name, moment, {part: size for part, size in parts.items() if size})


def predict(run: Run) -> Prediction:
    """Predict a run's memory on each GPU.

    Raises:
        ConfigError: the optimizer is unknown, or a part or module name in the config is.
    """
    memory = _Memory(run)
    phases = [memory.rollout()] if run.rollout_rows else []
    phases += [memory.scoring()] if run.scores else []
    phases += [memory.backward(), memory.step()]
    return Prediction(run, memory.parameters, phases, memory.host(), memory.vllm_use())
