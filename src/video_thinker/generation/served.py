"""An engine that is served: it samples with the random numbers and the weights that a request names, and no others."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from video_thinker.errors import ConfigError
from video_thinker.generation.engine import Engine, Sampled
from video_thinker.generation.wire import Asked, BrokenMessageError
from video_thinker.models.fingerprint import model_fingerprint

SHAPE_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "depth",
    "num_heads",
    "out_hidden_size",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
)
"""Keys of a config that say what a model is, in any version of transformers."""


class StaleWeightsError(Exception):
    """A request names weights that the server does not have: it was started anew, or others have sent theirs."""


class ServableEngine(Engine, Protocol):
    """An engine whose end tokens are those of each request."""

    end_token_ids: list[int] | None


def describe_model(config: Any) -> dict[str, Any]:
    """Say what a model is: the sizes of its language model and of its tower, by name."""
    parts = {"text": config.get_text_config(), "vision": config.vision_config}
    return {
        f"{part}.{key}": getattr(own, key) for part, own in parts.items() for key in SHAPE_KEYS if hasattr(own, key)
    }


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Name what differs between two models, `None` if nothing does."""
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            return f"{name} is {theirs[name]} there and {ours[name]} here"
    return None if ours.keys() & theirs.keys() else "it does not say what its model is"


def expected_weights(path: str) -> dict[str, tuple[int, ...]]:
    """List the names and shapes of a checkpoint's weights; nothing is loaded."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(path))
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def checkpoint_name(path: str) -> str:
    """Name the weights of a checkpoint, wherever it lies."""
    return f"checkpoint-{model_fingerprint(path)[:16]}"


@dataclass(frozen=True)
class Identity:
    """What a server is: which start of it, which engine, which model, and in which type."""

    engine: str
    model: dict[str, Any]
    dtype: str
    boot: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)


class Served:
    """An engine with the name of the weights it has.

    Args:
        engine: Samples.
        identity: What is served.
        expected: Names and shapes of the model's weights.
        load: Makes the engine take whole weights, and drop what the old ones made.
        weights: Name of the weights it begins with.
    """

    def __init__(
        self,
        engine: ServableEngine,
        identity: Identity,
        expected: Mapping[str, tuple[int, ...]],
        load: Callable[[Mapping[str, torch.Tensor]], None],
        weights: str,
    ) -> None:
        """See the class."""
        self.engine, self.identity, self.expected, self.load = engine, identity, dict(expected), load
        self.weights: str | None = weights
        self._own_ends = engine.end_token_ids
        self._sender: str | None = None  # of the weights that are coming in, part by part
        self._next_part = 0
        self._staged: dict[str, torch.Tensor] = {}

    def sample(self, asked: Asked) -> tuple[list[Sampled], torch.Tensor]:
        """Draw completions; gives them and the state of the random numbers after it.

        The random numbers begin at the request's own, so that the same request gives the same completions.

        Raises:
            StaleWeightsError: the weights are not those that the request names.
            BrokenMessageError: its random numbers are none.
        """
        if asked.weights != self.weights:
            raise StaleWeightsError(f"the server has the weights {self.weights}, not {asked.weights}")
        try:
            torch.manual_seed(int.from_bytes(asked.rng_state.numpy().tobytes()[:8], "little") >> 1)  # of a GPU, too
            torch.set_rng_state(asked.rng_state)
        except (RuntimeError, TypeError) as error:
            raise BrokenMessageError(f"rng_state is no state of random numbers ({error})") from None
        self.engine.end_token_ids = self._own_ends if asked.end_token_ids is None else list(asked.end_token_ids)
        return self.engine.sample(asked.prompts, asked.prompt_index, asked.sampling), torch.get_rng_state()

    def stage(self, sender: str, part: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep a part of new weights; the engine still has the old ones. Part 0 drops what was not completed.

        Raises:
            BrokenMessageError: the part does not follow the last one.
            ConfigError: a weight is not one of the model's.
        """
        for name, weight in tensors.items():
            if self.expected.get(name) != tuple(weight.shape) or not weight.is_floating_point():
                raise ConfigError(
                    f"the trainer's weight {name} is {weight.dtype} {tuple(weight.shape)}, the served model's "
                    f"{self.expected.get(name, 'has no such name')}: serve the checkpoint that is trained."
                )
        if part == 0:
            self._sender, self._next_part, self._staged = sender, 0, {}
        if (sender, part) != (self._sender, self._next_part):
            raise BrokenMessageError(f"part {part} of weights came where part {self._next_part} was to come")
        self._next_part += 1
        self._staged |= tensors

    def commit(self, sender: str, name: str) -> None:
        """Take the weights that were staged, all of them or none.

        Raises:
            BrokenMessageError: some are missing.
        """
        if sender != self._sender or self._staged.keys() != self.expected.keys():
            raise BrokenMessageError(f"{len(self._staged)} of {len(self.expected)} weights came")
        staged, self._staged, self._sender = self._staged, {}, None
        self.weights = None  # until all are loaded
        self.load(staged)
        self.weights = name


def load_into(model: torch.nn.Module) -> Callable[[Mapping[str, torch.Tensor]], None]:
    """Make what copies whole weights into a model of this process."""

    def load(weights: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])

    return load


def load_and_reset(
    load: Callable[[Iterable[tuple[str, torch.Tensor]]], None], reset: Callable[[], None]
) -> Callable[[Mapping[str, torch.Tensor]], None]:
    """Make what gives whole weights to an engine that keeps caches."""

    def load_all(weights: Mapping[str, torch.Tensor]) -> None:
        load(weights.items())
        reset()

    return load_all
