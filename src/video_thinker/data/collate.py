"""Samples -> batches of model inputs, in the data worker: one road for SFT and GRPO (`SampleEncoder.encode_prompt`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import get_worker_info
from transformers import TrainerCallback

from video_thinker.data.conversation import build_target
from video_thinker.data.encode import EncodedPrompt, SampleEncoder, merge_media
from video_thinker.errors import DataError, VideoThinkerError
from video_thinker.models.positions import continue_positions, pad_positions
from video_thinker.schema import VideoSample

IGNORE_INDEX = -100


class PromptCollator(TrainerCallback):
    """Rows of prompts for GRPO: in a data worker, each distinct sample is encoded once, as `row["encoded"]`.

    TRL's sampler gives a batch as often as its rollout is used, and looks at the first of them only; the others are
    left as they are. In the main process nothing is encoded ahead: the trainer encodes what it needs. An error is
    handed over in the prompt's place, so that the trainer raises it with its own message.

    Args:
        encoder: How a prompt is made.
        max_length: Longest prompt allowed, in tokens; `None` for no limit.
        repeats: How often the sampler gives each batch.
    """

    def __init__(self, encoder: SampleEncoder, max_length: int | None = None, repeats: int = 1) -> None:
        """See the class."""
        self.encoder, self.max_length, self.repeats = encoder, max_length, repeats
        self.num_skipped = 0
        """Batches of the epoch that a continued run does not see again."""
        self._num_calls = 0
        self._epoch_began = False

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count from the first batch again; only the epoch in which a run goes on leaves some out."""
        if self._epoch_began:
            self.num_skipped = 0
        self._epoch_began = True

    def __call__(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Encode the prompts of rows `{"sample": VideoSample, …}` if this batch is the one that is looked at."""
        worker = get_worker_info()
        if worker is None:
            return list(rows)
        # Batches are dealt to the workers in turn.
        batch_number = self.num_skipped + self._num_calls * worker.num_workers + worker.id
        self._num_calls += 1
        if batch_number % self.repeats:
            return list(rows)
        encoded: dict[str, EncodedPrompt | VideoThinkerError] = {}
        for row in rows:
            sample: VideoSample = row["sample"]
            if sample.id not in encoded:
                try:
                    encoded[sample.id] = self.encoder.encode_prompt(sample, self.max_length)
                except VideoThinkerError as error:
                    encoded[sample.id] = error
        return [{**row, "encoded": encoded[row["sample"].id]} for row in rows]


class SFTCollator:
    """Batch of samples -> padded model inputs with labels on the trace, the answer and the end-of-turn token only.

    Sequences are padded on the right and never truncated: cutting a prompt would cut vision tokens.

    Args:
        encoder: How a prompt is made.
        max_length: Longest sequence allowed, in tokens; `None` for no limit.
    """

    def __init__(self, encoder: SampleEncoder, max_length: int | None = None) -> None:
        """See the class."""
        self.encoder = encoder
        self.max_length = max_length
        self.tokenizer = encoder.processor.tokenizer

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Collate rows `{"sample": VideoSample}`.

        Returns:
            `input_ids`, `attention_mask`, `mm_token_type_ids`, `labels`, each (B, L), `position_ids` (3, B, L), the
            media fields, and `sample_ids` (list of B strings, for messages).

        Raises:
            DataError: a sample has no trace, or is longer than `max_length`.
            DecodeError: a media file cannot be used.
        """
        samples = [row["sample"] for row in rows]
        prompts = [self.encoder.encode_prompt(sample) for sample in samples]
        targets = [self._target_ids(sample) for sample in samples]
        for sample, prompt, target in zip(samples, prompts, targets, strict=True):
            self._check_length(sample, prompt, target)
        length = max(len(p.input_ids) + len(t) for p, t in zip(prompts, targets, strict=True))
        batch: dict[str, Any] = {
            "input_ids": torch.full((len(rows), length), self.tokenizer.pad_token_id),
            "attention_mask": torch.zeros(len(rows), length, dtype=torch.long),
            "mm_token_type_ids": torch.zeros(len(rows), length, dtype=torch.long),
            "labels": torch.full((len(rows), length), IGNORE_INDEX),
        }
        for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            start, end = len(prompt.input_ids), len(prompt.input_ids) + len(target)
            batch["input_ids"][row, :end] = torch.tensor(prompt.input_ids + target)
            batch["attention_mask"][row, :end] = 1
            batch["mm_token_type_ids"][row, :start] = torch.tensor(prompt.mm_token_type_ids)
            batch["labels"][row, start:end] = torch.tensor(target)
        places = [
            torch.cat([prompt.position_ids, continue_positions(prompt.position_ids, len(target))], dim=1)
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        batch["position_ids"] = pad_positions(places, length, "right")
        sample_ids = [sample.id for sample in samples]
        return {**batch, **merge_media([prompt.media for prompt in prompts]), "sample_ids": sample_ids}

    def _target_ids(self, sample: VideoSample) -> list[int]:
        ids: list[int] = self.tokenizer(build_target(sample), add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def _check_length(self, sample: VideoSample, prompt: EncodedPrompt, target: list[int]) -> None:
        total = len(prompt.input_ids) + len(target)
        if self.max_length is not None and total > self.max_length:
            num_vision = sum(kind > 0 for kind in prompt.mm_token_type_ids)
            raise DataError(
                f"{sample.location}: {total} tokens ({num_vision} vision, {len(prompt.input_ids) - num_vision} text, "
                f"{len(target)} target) are more than max_length={self.max_length} (sample {sample.id!r}); nothing is "
                "truncated: raise max_length, or lower max_frames / max_pixels."
            )
