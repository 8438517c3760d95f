"""Who answers: a backend takes prompts and gives completions. Here, local Transformers.

Shapes: B prompts of a batch, P tokens of the longest prompt, C tokens of the longest completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel, set_seed

from video_thinker.config import ModelArguments, VideoArguments
from video_thinker.data.collate import EncodedPrompt, SampleEncoder, merge_media
from video_thinker.errors import ConfigError
from video_thinker.generation.controls import Prompt, load_prompt
from video_thinker.models.loading import load_encoder, load_model, vision_token_ids
from video_thinker.models.positions import pad_positions
from video_thinker.schema import VideoSample


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How completions are drawn: greedily at `temperature` 0, else by nucleus sampling."""

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values that mean nothing."""
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens}: must be at least 1.")
        if self.temperature < 0:
            raise ConfigError(f"temperature={self.temperature}: must be 0 (greedy) or above.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: must be above 0 and at most 1.")


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote. `finished` is false if it was cut off; `error` says why there is no text."""

    text: str
    num_tokens: int
    finished: bool = True
    error: str | None = None


class Backend(Protocol):
    """All that an evaluation needs of a model. A backend for a server implements these three."""

    mean_color: Sequence[float]
    independent: bool
    """Whether a prompt's completion does not depend on its neighbors in the batch, so that it may be asked alone."""

    def load_prompt(self, sample: VideoSample) -> Prompt:
        """Decode a sample's media; raise `DecodeError` if they cannot be used."""
        ...

    def generate(self, prompts: Sequence[Prompt], *, seed: int) -> list[Completion]:
        """Answer prompts, in their order. The same prompts with the same seed give the same completions."""
        ...


class HasGeneration(Protocol):
    """Arguments of a command that draws completions."""

    generation: GenerationSettings


def make_backend(model_args: ModelArguments, video_args: VideoArguments, args: HasGeneration) -> Backend:
    """Make the backend that a config asks for.

    Raises:
        ConfigError: there is no such model, or an option is unknown or does not fit the model.
    """
    encoder = load_encoder(model_args.model_name_or_path, video_args)
    return LocalBackend.load(model_args, encoder, args.generation)


class LocalBackend:
    """A model in this process.

    Args:
        model: A video-language model, on its device.
        encoder: Turns prompts into model inputs.
        settings: How completions are drawn.
    """

    independent = False  # padding and the batch's random numbers are shared

    def __init__(self, model: PreTrainedModel, encoder: SampleEncoder, settings: GenerationSettings) -> None:
        """See the class."""
        self.model = model.eval()
        self.encoder = encoder
        self.tokenizer = encoder.processor.tokenizer
        self.mean_color: Sequence[float] = encoder.processor.video_processor.image_mean
        self.eos_token_ids = _end_of_turn_ids(model, self.tokenizer.eos_token_id)
        self.generation_config = self._generation_config(settings)
        # `generate` fills what is left open from the checkpoint's own defaults (Qwen2.5-VL ships a repetition penalty);
        # an evaluation must depend on nothing but its own settings.
        model.generation_config = GenerationConfig()

    @classmethod
    def load(cls, model_args: ModelArguments, encoder: SampleEncoder, settings: GenerationSettings) -> LocalBackend:
        """Load the model, onto the GPU if there is one.

        Raises:
            ConfigError: there is no such model, or an option is unknown.
        """
        model = load_model(
            model_args.model_name_or_path, dtype=model_args.dtype, attn_implementation=model_args.attn_implementation
        )
        return cls(model.to("cuda" if torch.cuda.is_available() else "cpu"), encoder, settings)

    def load_prompt(self, sample: VideoSample) -> Prompt:
        """Decode a sample's media; see `Backend`."""
        return load_prompt(sample, self.encoder)

    def generate(self, prompts: Sequence[Prompt], *, seed: int) -> list[Completion]:
        """Answer prompts in one batch; see `Backend`."""
        encoded = [self.encoder.encode_frames(p.sample, p.videos, p.images) for p in prompts]
        inputs = {**pad_left(encoded, self.tokenizer.pad_token_id), **merge_media([p.media for p in encoded])}
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        set_seed(seed)
        output_ids = self.model.generate(**inputs, generation_config=self.generation_config)
        return [self._completion(ids.tolist()) for ids in output_ids[:, inputs["input_ids"].shape[1] :]]

    def _completion(self, token_ids: list[int]) -> Completion:
        """Cut a row (C,) at its end of turn; what follows is padding."""
        ends = [position for position, token in enumerate(token_ids) if token in self.eos_token_ids]
        length = ends[0] + 1 if ends else len(token_ids)
        text = self.tokenizer.decode(token_ids[:length], skip_special_tokens=True)
        return Completion(text.strip(), length, finished=bool(ends))

    def _generation_config(self, settings: GenerationSettings) -> GenerationConfig:
        config = GenerationConfig(
            max_new_tokens=settings.max_new_tokens,
            do_sample=settings.temperature > 0,
            eos_token_id=self.eos_token_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            suppress_tokens=vision_token_ids(self.encoder.processor),
        )
        if settings.temperature > 0:
            config.temperature, config.top_p, config.top_k = settings.temperature, settings.top_p, 0
        return config


def _end_of_turn_ids(model: PreTrainedModel, tokenizer_eos: int) -> list[int]:
    """Ids that end a completion: those of the checkpoint, and the tokenizer's."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [] if own is None else [own]
    return sorted({*own, tokenizer_eos})


def pad_left(prompts: Sequence[EncodedPrompt], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad prompts on the left, so that all completions start at the same position.

    Returns:
        `input_ids`, `attention_mask` and `mm_token_type_ids`, each (B, P), and `position_ids` (3, B, P).
    """
    length = max(len(prompt.input_ids) for prompt in prompts)
    batch = {
        "input_ids": torch.full((len(prompts), length), pad_token_id),
        "attention_mask": torch.zeros(len(prompts), length, dtype=torch.long),
        "mm_token_type_ids": torch.zeros(len(prompts), length, dtype=torch.long),
        "position_ids": pad_positions([prompt.position_ids for prompt in prompts], length, "left"),
    }
    for row, prompt in enumerate(prompts):
        start = length - len(prompt.input_ids)
        batch["input_ids"][row, start:] = torch.tensor(prompt.input_ids)
        batch["attention_mask"][row, start:] = 1
        batch["mm_token_type_ids"][row, start:] = torch.tensor(prompt.mm_token_type_ids)
    return batch
