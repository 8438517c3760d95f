"""GRPO with completions that depend on the prompt and the row only, so that runs on one and two processes compare.

`torchrun … -m tests.distributed.fixed_rollouts CONFIG [key=value …]` writes every log-probability that was computed to
`output_dir/logps_RANK.pt`: {(step, "policy" or "reference", prompt and completion ids): log-probabilities}.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch

from video_thinker.training import grpo
from video_thinker.training.loop import resume
from video_thinker.training.scoring import Scorer


def fixed_completion(prompt_ids: list[int], row: int, words: list[int], end: int) -> list[int]:
    """Draw 3 to 9 ordinary tokens, seeded by the prompt and the row's place in its group."""
    rng = random.Random(f"{prompt_ids}{row}")
    return [*rng.choices(words, k=rng.randint(3, 9)), end]


class SpyScorer(Scorer):
    """Keeps every log-probability that it computes."""

    trainer: FixedRollouts

    def forward(self, model, rows, plain, **kwargs):
        result = super().forward(model, rows, plain, **kwargs)
        who = "reference" if model is self.trainer.ref_model else "policy"
        for ids, mask, logps in zip(rows.input_ids, rows.attention_mask, result[0], strict=True):
            length = int(mask[-rows.completion_length :].sum())
            key = (self.trainer.state.global_step, who, tuple(ids[mask.bool()].tolist()))
            # The first is TRL's, or the canary's with the video.
            self.trainer.seen.setdefault(key, logps[:length].detach().clone())
        return result


class FixedRollouts(grpo.VideoGRPOTrainer):
    """Samples for real, so that generation runs under sharding, and then goes on with fixed completions."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen: dict = {}
        self.scorer.__class__, self.scorer.trainer = SpyScorer, self

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        sampled, logprobs, *rest = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        assert all(len(ids) > 0 for ids in sampled)
        tokenizer = self.encoder.processor.tokenizer
        words = tokenizer("Which color comes right after red green blue first last", add_special_tokens=False)
        fixed = [
            fixed_completion(prompt, row % self.num_generations, words["input_ids"], tokenizer.eos_token_id)
            for row, prompt in enumerate(prompt_ids)
        ]
        return fixed, logprobs, *rest


def save_seen(trainer: FixedRollouts, config: dict[str, Any]) -> None:
    """Write the result, and what was seen beside it."""
    save_result(trainer, config)
    torch.save(trainer.seen, Path(trainer.args.output_dir) / f"logps_{trainer.args.process_index}.pt")


if __name__ == "__main__":
    grpo.VideoGRPOTrainer = FixedRollouts
    save_result, resume.save_result = resume.save_result, save_seen
    sys.exit(grpo.main(sys.argv[1:]))
