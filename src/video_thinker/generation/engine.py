"""Engines sample completions: the protocol, and what it is told and gives back. Training and evaluation sample by it.

Shapes: R distinct prompts, B completions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import ConfigError
from video_thinker.generation.arguments import EngineArguments as EngineArguments


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: greedily at `temperature` 0, else from the processed distribution.

    `max_new_tokens` is the longest completion in tokens. `top_k` 0 keeps all tokens. `options` are further arguments of
    transformers' `generate`; an engine refuses those it cannot honour.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a value means nothing.
        """
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens}: must be at least 1.")
        if self.temperature < 0:
            raise ConfigError(f"temperature={self.temperature}: must be 0 (greedy) or above.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: must be above 0 and at most 1.")


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion: its ids, the end-of-turn token included. `finished` is false if it was cut off.

    `log_probs` (C,) are those of its ids as the engine computed them, where an engine is not the trainer's own forward.
    """

    token_ids: list[int]
    finished: bool
    log_probs: list[float] | None = None


class Engine(Protocol):
    """Samples completions for prompts, and takes new weights."""

    def sample(
        self, prompts: Sequence[EncodedPrompt], prompt_index: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        """Draw one completion per entry of `prompt_index` (B,), which names one of the R distinct `prompts`.

        Random numbers come from torch's global generator: the same seed gives the same completions.
        """
        ...

    def update_weights(self, model: Any) -> None:
        """Take the weights of `model`, as the trainer holds it, for the samples to come."""
        ...


class StreamingEngine(Engine, Protocol):
    """An engine that takes prompts at any time, and gives each one's completions when they have ended.

    A completion depends on its prompt, the sampling and the seed: not on what else is in work.
    """

    def submit(self, prompt: EncodedPrompt, sampling: Sampling, seed: int, num_completions: int = 1) -> str:
        """Ask for completions of a prompt; gives the name that `step` calls it by."""
        ...

    def step(self) -> Iterable[tuple[str, list[Sampled]]]:
        """Work on what was submitted; gives the prompts that have ended meanwhile, with their completions."""
        ...

    def abort(self, names: Sequence[str]) -> None:
        """Forget prompts that were submitted and have not ended."""
        ...
