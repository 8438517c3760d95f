"""Sampling groups: each distinct prompt is read once, and a completion that has ended leaves the batch.

The loop below is the sampling mode of `generate` with two differences that change no number: the cache of a prompt is
copied to its G completions after the prefill, and rows that have ended are dropped instead of being fed padding. Random
numbers are drawn for all rows, also for those that have left, in the way of `torch.multinomial`; so on a CPU a run
samples the same tokens as without sharing.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

KEEP_SHARE = 0.75
"""Rows are dropped when at most this share of the batch still runs: dropping copies the cache of those that stay."""


def sample_groups(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
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
    pad_token_id = generation_config._pad_token_tensor
    num_rows = len(row_prompts)
    model_kwargs.pop("synced_gpus", None)
    outputs = model._prefill(input_ids, generation_config, model_kwargs)
    model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
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
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
        logits = _last_logits(outputs)
    for place, row in enumerate(running.tolist()):
        finished[row] = input_ids[place]
    rows = [row for row in finished if row is not None]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=int(pad_token_id))


def _last_logits(outputs: Any) -> torch.Tensor:
    return outputs.logits[:, -1].to(copy=True, dtype=torch.float32)


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
