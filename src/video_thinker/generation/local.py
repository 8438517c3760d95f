"""The engine in this process: Transformers' `generate`, with each distinct prompt read once.

`sample_groups` is the sampling mode of `generate` with two differences that change no number: the cache of a prompt is
copied to its completions after the prefill, and rows that have ended are dropped instead of being fed padding. Random
numbers are drawn for all rows, also for those that have left, in the way of `torch.multinomial`; so on a CPU a run
samples the same tokens as without sharing.

Shapes: R distinct prompts, B completions, P tokens of the longest prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, ProcessorMixin

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import NonFiniteError
from video_thinker.generation.engine import Sampled, Sampling
from video_thinker.models import compat
from video_thinker.models.loading import vision_token_ids
from video_thinker.models.positions import pad_positions
from video_thinker.models.vision import FrozenFeatures, model_media

UNSHARED_OPTIONS: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "use_cache": (True,),
    "assistant_model": (),
    "prompt_lookup_num_tokens": (),
    "custom_generate": (),
    "guidance_scale": (1, 1.0),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "cache_implementation": ("dynamic",),
}
"""Arguments of `generate` that change what rows there are or what decodes them, or keep something for each row of the
prompts, with the values that do nothing (as `None` does): with others, each row reads its own prompt."""

KEEP_SHARE = 0.75
"""Rows are dropped when at most this share of the batch still runs: dropping copies the cache of those that stay."""


def find_unshared(options: Mapping[str, Any]) -> list[str]:
    """Name the arguments of `generate` that keep rows from being sampled in `sample_groups`."""
    return [
        f"{name}={options[name]!r}"
        for name, neutral in UNSHARED_OPTIONS.items()
        if options.get(name) is not None and options[name] not in neutral
    ]


class FiniteScores(LogitsProcessor):
    """Notes whether a model gives each row a token to choose; looks at the first token at once, at all at the end.

    With NaN among its scores, `generate` would choose token 0 for ever, or fail far from the cause.
    """

    def __init__(self) -> None:
        """Start without a token."""
        self._bad: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Look at the largest score of each row (B, V): NaN and infinities come through. Nothing is changed.

        Raises:
            NonFiniteError: the first token of a row has no finite score.
        """
        bad = ~torch.isfinite(scores.amax(dim=-1)).all()
        if self._bad is None:
            self._bad = bad
            self.check()
        self._bad = self._bad | bad
        return scores

    def check(self) -> None:
        """Refuse completions that were chosen by scores that are not finite.

        Raises:
            NonFiniteError: there are some.
        """
        if self._bad is not None and bool(self._bad):
            raise NonFiniteError(
                "the model's scores for the next token are not finite (NaN or infinite), so no token can be chosen: "
                "its weights are too large for its type, or its training has diverged. Take an earlier checkpoint, or "
                "dtype bfloat16 or float32."
            )


class LocalEngine:
    """Samples with a model in this process.

    Args:
        processor: The model's.
        open_model: Makes the model that holds the weights ready for `generate`, as a context; by default it is so.
        features: Computes a frozen tower's features once per prompt; they are left with the prompts' media.
        share_prompts: Read each distinct prompt once, unless `find_unshared` names an option of the sampling.
        end_token_ids: Tokens that end a completion; by default those of the model and of its tokenizer.
        pad_to_multiple_of: Pad the prompts so.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        *,
        open_model: Callable[[Any], AbstractContextManager[Any]] = nullcontext,
        features: FrozenFeatures | None = None,
        share_prompts: bool = True,
        end_token_ids: Sequence[int] | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> None:
        """See the class."""
        self.tokenizer = processor.tokenizer
        self.open_model = open_model
        self.features = features
        self.share_prompts = share_prompts
        self.end_token_ids = None if end_token_ids is None else list(end_token_ids)
        self.pad_to_multiple_of = pad_to_multiple_of
        self.banned_token_ids = vision_token_ids(processor)
        self._model: Any = None

    def update_weights(self, model: Any) -> None:
        """Sample from this model from now on; its weights are its own."""
        self._model = model
        if self.end_token_ids is None:
            own = model.generation_config.eos_token_id
            own = own if isinstance(own, list) else [] if own is None else [own]
            self.end_token_ids = sorted({*own, self.tokenizer.eos_token_id})

    def sample(
        self, prompts: Sequence[EncodedPrompt], prompt_index: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        """Draw completions; see `Engine`."""
        config = self.generation_config(sampling)
        shares_prompts = self.share_prompts and not find_unshared(sampling.options)
        rows = list(range(len(prompts))) if shares_prompts else list(prompt_index)
        with self.open_model(self._model) as model, torch.no_grad(), _own_settings_only(model):
            device = model.device
            features = self.features if self.features is not None and self.features.is_used else None
            if features is not None:
                features.add(model, [prompt.media for prompt in prompts])
            padded = pad_prompts([prompts[row] for row in rows], self.tokenizer.pad_token_id, self.pad_to_multiple_of)
            inputs: dict[str, Any] = {name: value.to(device) for name, value in padded.items()}
            inputs |= model_media([prompts[row].media for row in rows], device, features is not None)
            if shares_prompts:
                index = torch.as_tensor(prompt_index, device=device)
                inputs["custom_generate"] = functools.partial(sample_groups, row_prompts=index)
            finite = FiniteScores()
            sequences = model.generate(
                **inputs, generation_config=config, logits_processor=LogitsProcessorList([finite])
            )
            finite.check()
        completions = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        return [self.until_end(ids) for ids in completions]

    def until_end(self, token_ids: list[int]) -> Sampled:
        """Cut a completion at its end of turn; what follows is padding."""
        for place, token in enumerate(token_ids):
            if token in (self.end_token_ids or ()):
                return Sampled(token_ids[: place + 1], finished=True)
        return Sampled(token_ids, finished=False)

    def generation_config(self, sampling: Sampling) -> GenerationConfig:
        """Write sampling settings as transformers wants them.

        Vision tokens are never sampled: no pixels lie behind them.
        """
        config: dict[str, Any] = {
            "max_new_tokens": sampling.max_new_tokens,
            "do_sample": sampling.temperature > 0,
            "pad_token_id": self.tokenizer.pad_token_id,
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.end_token_ids,
        }
        if sampling.temperature > 0:
            config |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
            config["min_p"] = sampling.min_p
        config |= sampling.options
        config["suppress_tokens"] = sorted({*self.banned_token_ids, *(config.get("suppress_tokens") or ())})
        return GenerationConfig(**config, disable_compile=True)


def pad_prompts(
    prompts: Sequence[EncodedPrompt], pad_token_id: int, multiple_of: int | None = None
) -> dict[str, torch.Tensor]:
    """Pad prompts on the left, so that all completions start at the same place.

    Returns:
        `input_ids` and `attention_mask`, each (R, P), and `position_ids` (3, R, P).
    """
    length = max(len(prompt.input_ids) for prompt in prompts)
    length += -length % (multiple_of or 1)
    ids = torch.full((len(prompts), length), pad_token_id)
    mask = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt.input_ids) :] = torch.tensor(prompt.input_ids)
        mask[row, length - len(prompt.input_ids) :] = 1
    positions = pad_positions([prompt.position_ids for prompt in prompts], length, "left")
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


@contextmanager
def _own_settings_only(model: Any) -> Iterator[None]:
    """Keep `generate` from filling what is left open from the checkpoint (Qwen2.5-VL ships a repetition penalty)."""
    owners = [model, *([model.get_base_model()] if isinstance(model, PeftModel) else [])]
    shipped = [owner.generation_config for owner in owners]
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, config in zip(owners, shipped, strict=True):
            owner.generation_config = config


def sample_groups(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    stopping_criteria: Callable[[torch.Tensor, None], torch.Tensor],
    generation_config: GenerationConfig,
    *,
    row_prompts: torch.Tensor,
    **model_kwargs: Any,
) -> torch.Tensor:
    """Prefill R prompts and sample B completions; pass it to `generate` as `custom_generate`.

    Args:
        model: The model `generate` was called on.
        input_ids: (R, P) distinct prompts, padded on the left.
        logits_processor: Temperature, top-p, suppressed tokens, …, as `generate` made them.
        stopping_criteria: End of sequence and longest length, as `generate` made them.
        generation_config: The configuration `generate` resolved.
        row_prompts: (B,) which prompt each row continues.
        **model_kwargs: The remaining inputs, for R rows.

    Returns:
        (B, P + C) prompts and completions, padded on the right.
    """
    pad_token_id = compat.pad_token_of(generation_config)
    num_rows = len(row_prompts)
    model_kwargs.pop("synced_gpus", None)
    outputs = compat.prefill(model, input_ids, generation_config, model_kwargs)
    model_kwargs = compat.after_forward(model, outputs, model_kwargs)
    logits = _last_logits(outputs)[row_prompts]
    input_ids = input_ids[row_prompts]
    model_kwargs = _select_rows(_drop_media(model_kwargs), row_prompts)
    running = torch.arange(num_rows, device=input_ids.device)  # the row of `finished` that each row of the batch is
    finished: list[torch.Tensor | None] = [None] * num_rows
    ended = torch.zeros(num_rows, dtype=torch.bool, device=input_ids.device)
    while True:
        scores = logits_processor(input_ids, logits)
        tokens = _choose(scores, generation_config.do_sample, running, num_rows)
        tokens = torch.where(ended, pad_token_id, tokens)
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
        ended = ended | stopping_criteria(input_ids, None)
        if ended.all():
            break
        stay = (~ended).nonzero().squeeze(1)
        if len(stay) <= KEEP_SHARE * len(running):
            for place in ended.nonzero().squeeze(1).tolist():
                finished[int(running[place])] = input_ids[place]
            running, input_ids, ended = running[stay], input_ids[stay], ended[stay]
            model_kwargs = _select_rows(model_kwargs, stay)
        inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **model_kwargs)
        outputs = model(**inputs, return_dict=True)
        model_kwargs = compat.after_forward(model, outputs, model_kwargs)
        logits = _last_logits(outputs)
    for place, row in enumerate(running.tolist()):
        finished[row] = input_ids[place]
    rows = [row for row in finished if row is not None]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=int(pad_token_id))


def _last_logits(outputs: Any) -> torch.Tensor:
    logits: torch.Tensor = outputs.logits[:, -1]
    return logits.to(copy=True, dtype=torch.float32)


def _choose(scores: torch.Tensor, do_sample: bool, running: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Choose a token per running row (B',) from processed scores (B', V).

    `torch.multinomial` draws one token as the largest ratio of a probability and an exponential variate. Drawn for all
    rows, the variates are those that a batch which keeps its ended rows would get.
    """
    if not do_sample:
        return scores.argmax(dim=-1)
    variates = torch.empty(num_rows, scores.shape[1], device=scores.device).exponential_(1)
    return (scores.softmax(dim=-1) / variates[running]).argmax(dim=-1)


def _drop_media(model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Leave only what a decoding step reads: the media have been read with the prompt."""
    return {
        name: value
        for name, value in model_kwargs.items()
        if not name.startswith(("pixel_values", "image_grid", "video_grid", "second_per_grid", "mm_encoder"))
    }


def _select_rows(model_kwargs: dict[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """Take rows of the cache (in place), the mask, and the positions (B, L) or (3 or 4, B, L)."""
    model_kwargs["past_key_values"].batch_select_indices(rows)
    selected = dict(model_kwargs)
    for name, value in model_kwargs.items():
        if name == "position_ids" and value is not None:
            selected[name] = value.index_select(value.ndim - 2, rows)
        elif isinstance(value, torch.Tensor) and name == "attention_mask":
            selected[name] = value[rows]
    return selected
