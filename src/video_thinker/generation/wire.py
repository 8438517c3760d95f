"""What an engine behind a server and its trainer say to each other: one message, its words and its tensors, in bytes.

A message is a safetensors file in memory: numbers go over the wire bit for bit, nothing in it is run, and bytes that
were cut or changed in length are noticed. Its words are JSON, in a tensor of their own.

Shapes: R distinct prompts, B completions, P tokens of a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save

from video_thinker.data.encode import MEDIA_FIELDS, EncodedPrompt
from video_thinker.errors import ConfigError
from video_thinker.generation.engine import Sampled, Sampling

CONTENT_TYPE = "application/x-video-thinker"
"""Of every message. A web page cannot send it to a server on one's own machine without being asked first (CORS)."""

WORDS = "words"
"""The tensor that holds a message's words."""

BEAT, BEGIN = b".", b"!"
"""An answer begins with a beat every so often while the engine works, then this sign, then the message."""


class BrokenMessageError(Exception):
    """Bytes are no message, or not the one that was to come; the text says what was found."""


@dataclass(frozen=True)
class Message:
    """Words (JSON) and tensors."""

    words: dict[str, Any]
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def tensor(self, name: str, dtype: torch.dtype, *, ndim: int = 1) -> torch.Tensor:
        """Give a tensor that must be there.

        Raises:
            BrokenMessageError: it is not, or has another type or another number of axes.
        """
        found = self.tensors.get(name)
        if found is None:
            raise BrokenMessageError(f"the tensor {name} is missing")
        if found.dtype != dtype or found.ndim != ndim:
            raise BrokenMessageError(f"{name} is {found.dtype} with {found.ndim} axes, not {dtype} with {ndim}")
        return found

    def word(self, name: str, *kinds: type) -> Any:
        """Give a word that must be there, of one of some kinds.

        Raises:
            BrokenMessageError: it is not.
        """
        if name not in self.words or type(self.words[name]) not in kinds:
            raise BrokenMessageError(f"{name} is {self.words.get(name)!r}")
        return self.words[name]


def pack(words: Mapping[str, Any], tensors: Mapping[str, torch.Tensor] | None = None) -> bytes:
    """Write a message; tensors come to the host."""
    text = torch.frombuffer(bytearray(json.dumps(dict(words)).encode()), dtype=torch.uint8)
    parts, seen = {WORDS: text}, set[int]()
    for name, value in (tensors or {}).items():
        part = value.detach().cpu().contiguous()
        place = part.untyped_storage().data_ptr()
        parts[name] = part.clone() if place in seen else part  # safetensors refuses tensors that share memory
        seen.add(place)
    return save(parts)


def unpack(body: bytes) -> Message:
    """Read a message.

    Raises:
        BrokenMessageError: the bytes are none.
    """
    try:
        tensors = load(body)
        words = json.loads(bytes(tensors.pop(WORDS).numpy()))
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise BrokenMessageError(f"{len(body)} bytes are no message ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(words, dict):
        raise BrokenMessageError("the words of the message are no mapping")
    return Message(words, tensors)


# --- asking for completions -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A rollout: what is continued, how, from which random numbers, and by which weights."""

    prompts: list[EncodedPrompt]
    prompt_index: list[int]
    sampling: Sampling
    end_token_ids: list[int] | None
    rng_state: torch.Tensor
    weights: str


def pack_asked(asked: Asked) -> bytes:
    """Write a rollout.

    Raises:
        ConfigError: an option of the sampling is no JSON, such as a model.
    """
    sampling = asked.sampling
    for name, value in sampling.options.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ConfigError(
                f"generation_kwargs has {name}={value!r}, which cannot go to engine=server over HTTP; remove it, or "
                "use engine=local."
            ) from None
    words = {
        "weights": asked.weights,
        "sampling": {
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "options": dict(sampling.options),
        },
        "end_token_ids": asked.end_token_ids,
        "num_prompts": len(asked.prompts),
    }
    tensors = {"prompt_index": torch.tensor(asked.prompt_index), "rng_state": asked.rng_state}
    for number, prompt in enumerate(asked.prompts):
        tensors[f"{number}.input_ids"] = torch.tensor(prompt.input_ids)
        tensors[f"{number}.mm_token_type_ids"] = torch.tensor(prompt.mm_token_type_ids)
        tensors[f"{number}.position_ids"] = prompt.position_ids
        for name in MEDIA_FIELDS:
            if name in prompt.media:
                tensors[f"{number}.{name}"] = prompt.media[name]
    return pack(words, tensors)


def read_asked(message: Message) -> Asked:
    """Read a rollout.

    Raises:
        BrokenMessageError: it is none.
        ConfigError: a value of the sampling means nothing.
    """
    num_prompts = message.word("num_prompts", int)
    index = message.tensor("prompt_index", torch.int64).tolist()
    if not index or not all(0 <= number < num_prompts for number in index):
        raise BrokenMessageError(f"prompt_index names prompts that are not among the {num_prompts}")
    ends = message.word("end_token_ids", list, type(None))
    given = message.word("sampling", dict)
    try:
        sampling = Sampling(**given)
    except TypeError as error:
        raise BrokenMessageError(f"sampling is {given!r} ({error})") from None
    return Asked(
        [_read_prompt(message, number) for number in range(num_prompts)],
        index,
        sampling,
        None if ends is None else [int(one) for one in ends],
        message.tensor("rng_state", torch.uint8),
        message.word("weights", str),
    )


def _read_prompt(message: Message, number: int) -> EncodedPrompt:
    ids = message.tensor(f"{number}.input_ids", torch.int64)
    kinds = message.tensor(f"{number}.mm_token_type_ids", torch.int64)
    positions = message.tensors.get(f"{number}.position_ids")
    if positions is None or tuple(positions.shape) != (3, len(ids)) or len(kinds) != len(ids):
        raise BrokenMessageError(f"prompt {number} has {len(ids)} tokens, but not as many positions and kinds")
    media = {
        name: message.tensors[f"{number}.{name}"] for name in MEDIA_FIELDS if f"{number}.{name}" in message.tensors
    }
    return EncodedPrompt(ids.tolist(), kinds.tolist(), positions, media)


# --- completions ------------------------------------------------------------------------------------------------------


def pack_sampled(words: Mapping[str, Any], sampled: Sequence[Sampled], rng_state: torch.Tensor) -> bytes:
    """Write completions, with their log-probabilities if the engine has its own, and the random numbers to go on."""
    tensors = {
        "lengths": torch.tensor([len(one.token_ids) for one in sampled]),
        "token_ids": torch.tensor([token for one in sampled for token in one.token_ids], dtype=torch.int64),
        "finished": torch.tensor([one.finished for one in sampled]),
        "rng_state": rng_state,
    }
    if any(one.log_probs is not None for one in sampled):
        values = [value for one in sampled for value in one.log_probs or ()]
        tensors["log_probs"] = torch.tensor(values, dtype=torch.float64)
    return pack(words, tensors)


def read_sampled(message: Message, asked: Asked, vocabulary_size: int, banned: frozenset[int]) -> list[Sampled]:
    """Read the completions of a rollout, and check that they can be those.

    Args:
        message: The answer.
        asked: What was asked for.
        vocabulary_size: Ids are below it.
        banned: Ids that are never sampled.

    Raises:
        BrokenMessageError: they are not, in number, length, ids or log-probabilities.
    """
    lengths = message.tensor("lengths", torch.int64).tolist()
    ids = message.tensor("token_ids", torch.int64).tolist()
    finished = message.tensor("finished", torch.bool).tolist()
    num, longest = len(asked.prompt_index), asked.sampling.max_new_tokens
    if len(lengths) != num or len(finished) != num:
        raise BrokenMessageError(f"{len(lengths)} completions came for {num} that were asked for")
    if not all(1 <= length <= longest for length in lengths) or sum(lengths) != len(ids):
        raise BrokenMessageError(f"completions of 1 to {longest} tokens were asked for; the lengths are {lengths[:8]}")
    if wrong := [token for token in ids if not 0 <= token < vocabulary_size or token in banned]:
        raise BrokenMessageError(f"{len(wrong)} tokens can never be sampled, the first {wrong[0]}")
    if "log_probs" in message.tensors:
        values = message.tensor("log_probs", torch.float64)
        if len(values) != len(ids) or not bool(torch.isfinite(values).all()) or bool((values > 1e-3).any()):
            raise BrokenMessageError(f"{len(values)} log-probabilities for {len(ids)} tokens are none, or not finite")
        log_probs = values.tolist()
    else:
        log_probs = None
    sampled, start = [], 0
    for length, ended in zip(lengths, finished, strict=True):
        own, start = ids[start : start + length], start + length
        if ended and asked.end_token_ids and own[-1] not in asked.end_token_ids:
            raise BrokenMessageError(f"a completion is said to have ended, and its last token {own[-1]} ends none")
        values_of = None if log_probs is None else log_probs[start - length : start]
        sampled.append(Sampled(own, finished=ended, log_probs=values_of, weights=asked.weights))
    return sampled
