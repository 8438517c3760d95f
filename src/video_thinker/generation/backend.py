"""Who answers: a backend takes prompts and gives completions. Here, a model in this process.

Shapes: B prompts of a batch, P tokens of the longest prompt, C tokens of the longest completion.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import PreTrainedModel, set_seed

from video_thinker.config import ModelArguments
from video_thinker.data.encode import EncodedPrompt, SampleEncoder
from video_thinker.errors import VideoThinkerError
from video_thinker.generation.controls import Prompt, load_prompt
from video_thinker.generation.engine import Engine, Sampled, Sampling, StreamingEngine
from video_thinker.generation.local import LocalEngine
from video_thinker.generation.streaming import Request, sample_seed, stream
from video_thinker.generation.vllm import VLLMEngine
from video_thinker.models.layers import SHARE_PREFILL_LAYERS, unshared_causes
from video_thinker.models.loading import check_model_path, load_model
from video_thinker.schema import VideoSample

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote. `finished` is false if it was cut off; `error` says why there is no text."""

    text: str
    num_tokens: int
    finished: bool = True
    error: str | None = None


class Backend(Protocol):
    """All that an evaluation needs of a model. A backend for a server implements all of it."""

    mean_color: Sequence[float]
    independent: bool
    """Whether a prompt's completion does not depend on its neighbors in the batch, so that it may be asked alone."""
    stopped: VideoThinkerError | None
    """Why it can answer nothing more, once that is so. What it has answered stays good."""

    def load_prompt(self, sample: VideoSample) -> Prompt:
        """Decode a sample's media; raise `DecodeError` if they cannot be used."""
        ...

    def generate(self, prompts: Sequence[Prompt], *, seed: int) -> list[Completion]:
        """Answer prompts, in their order. The same prompts with the same seed give the same completions."""
        ...


class HasEngine(Protocol):
    """Keys of `EngineArguments`."""

    engine: str
    engine_max_tokens: int | None
    engine_gpu_memory_share: float
    engine_options: dict[str, Any] | None


MAX_TOKENS = 32768
"""Room of vLLM for a prompt with its completion where nothing else is said, in tokens."""


def load_backend(
    model_args: ModelArguments, encoder: SampleEncoder, generation: Sampling, keys: HasEngine
) -> EngineBackend:
    """Load the model into the engine that the keys name.

    Raises:
        ConfigError: there is no such model, or an option is unknown or does not fit the model.
    """
    if keys.engine == "vllm":
        return StreamingBackend(load_vllm(model_args, encoder, generation, keys), encoder, generation)
    return LocalBackend.load(model_args, encoder, generation)


def load_vllm(model_args: ModelArguments, encoder: SampleEncoder, generation: Sampling, keys: HasEngine) -> VLLMEngine:
    """Start vLLM with a checkpoint, or with an adapter added to its base.

    Raises:
        ConfigError: vLLM is not installed, or there is no such model.
    """
    path = model_args.model_name_or_path
    base = check_model_path(path)
    engine = VLLMEngine(
        encoder.processor,
        base,
        max_tokens=keys.engine_max_tokens or MAX_TOKENS,
        dtype=model_args.dtype,
        temperature=generation.temperature,
        gpu_memory_share=keys.engine_gpu_memory_share,
        options=keys.engine_options,
    )
    if base != path:
        engine.update_weights(load_model(path, dtype=model_args.dtype, attn_implementation="sdpa"))
    return engine


class EngineBackend:
    """A model in this process, sampled by an engine as in training.

    Args:
        engine: Holds the model.
        encoder: Turns prompts into model inputs.
        sampling: How completions are drawn.
    """

    stopped: VideoThinkerError | None = None
    independent = False  # padding and the batch's random numbers are shared

    def __init__(self, engine: Engine, encoder: SampleEncoder, sampling: Sampling) -> None:
        """See the class."""
        self.engine, self.encoder, self.sampling = engine, encoder, sampling
        self.tokenizer = encoder.processor.tokenizer
        self.mean_color: Sequence[float] = encoder.processor.video_processor.image_mean

    def load_prompt(self, sample: VideoSample) -> Prompt:
        """Decode a sample's media; see `Backend`."""
        return load_prompt(sample, self.encoder)

    def generate(self, prompts: Sequence[Prompt], *, seed: int) -> list[Completion]:
        """Answer prompts in one batch; see `Backend`."""
        encoded = [self.encode(prompt) for prompt in prompts]
        set_seed(seed)
        sampled = self.engine.sample(encoded, range(len(encoded)), self.sampling)
        return [self.completion(one) for one in sampled]

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Turn a prompt into model inputs."""
        return self.encoder.encode_frames(prompt.sample, prompt.videos, prompt.images)

    def completion(self, sampled: Sampled) -> Completion:
        """Write what was sampled as text."""
        text = self.tokenizer.decode(sampled.token_ids, skip_special_tokens=True)
        return Completion(text.strip(), len(sampled.token_ids), finished=sampled.finished)


class StreamingBackend(EngineBackend):
    """A model in this process, sampled by an engine that is kept full.

    Args:
        engine: Holds the model.
        encoder: Turns prompts into model inputs.
        sampling: How completions are drawn.
    """

    independent = True
    engine: StreamingEngine

    def __init__(self, engine: StreamingEngine, encoder: SampleEncoder, sampling: Sampling) -> None:
        """See the class."""
        super().__init__(engine, encoder, sampling)
        self.tokenizer = copy.deepcopy(self.tokenizer)  # a thread may encode meanwhile, and neither can share its own

    def generate(self, prompts: Sequence[Prompt], *, seed: int) -> list[Completion]:
        """Answer prompts; see `Backend`. Each has a seed of its own, made of `seed` and its sample's id."""
        requests = iter([Request(key, self.encode(p), sample_seed(seed, p.sample.id)) for key, p in enumerate(prompts)])
        ended = dict(stream(self.engine, lambda wait: next(requests, None), self.sampling, max(1, len(prompts))))
        return [self.completion(ended[key]) for key in range(len(prompts))]


class LocalBackend(EngineBackend):
    """A model in this process, sampled by Transformers.

    Args:
        model: A video-language model, on its device.
        encoder: Turns prompts into model inputs.
        sampling: How completions are drawn.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, encoder: SampleEncoder, sampling: Sampling) -> None:
        """See the class."""
        self.model = model.eval()
        shares_prompts = not list(unshared_causes(model.config, SHARE_PREFILL_LAYERS))
        engine = LocalEngine(encoder.processor, share_prompts=shares_prompts)
        engine.update_weights(self.model)
        super().__init__(engine, encoder, sampling)

    @classmethod
    def load(cls, model_args: ModelArguments, encoder: SampleEncoder, sampling: Sampling) -> LocalBackend:
        """Load the model, onto the GPU if there is one.

        Raises:
            ConfigError: there is no such model, or an option is unknown.
        """
        model: Any = load_model(
            model_args.model_name_or_path, dtype=model_args.dtype, attn_implementation=model_args.attn_implementation
        )
        return cls(model.to("cuda" if torch.cuda.is_available() else "cpu"), encoder, sampling)
