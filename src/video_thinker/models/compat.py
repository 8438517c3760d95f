"""Every private name of TRL, Transformers, Accelerate, DeepSpeed and PEFT that is touched, each with its reason.

Methods that trainers override are in `OVERRIDDEN`; what is read or called is a function here. `video-thinker doctor`
looks whether the installed versions have them, `tests/integration/test_compat.py` whether they still do what is said.
Seen in TRL 1.16, transformers 5.23, accelerate 1.15.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from transformers import GenerationConfig

OVERRIDDEN = {
    "trl.GRPOTrainer": {
        "_prepare_inputs": "micro-batches come back as rows (training/rollout.py)",
        "_generate_and_score_completions": "one rollout: media are encoded once, groups of equal rewards replaced",
        "_tokenize_prompts": "prompts as the encoder made them, with their video",
        "_generate_single_turn": "completions come from the engine",
        "_get_per_token_logps_and_entropies": "log-probabilities come from the scorer, with the pixels of each row",
        "_compute_loss": "the blind canary, and the parts of a token budget",
        "_calculate_rewards": "rewards are checked, counted by group, and kept for the log of completions",
        "_get_train_sampler": "a continued run draws the epochs that are over again",
    },
    "transformers.Trainer": {
        "_get_output_dir": "a checkpoint is written aside until it is complete",
        "_save_checkpoint": "the same",
        "_load_from_checkpoint": "names in a Qwen-VL checkpoint are not those of the model in memory",
        "_load_best_model": "the same",
        "_load_optimizer_and_scheduler": "a damaged file of a checkpoint is one message",
        "_load_rng_state": "the same",
        "_get_grad_norm": "a step that is not finite ends the run before the optimizer moves the weights",
    },
}
"""Class -> method -> why it is overridden."""

USED = {
    "trl.GRPOTrainer": ("_prepare_inputs", "_generate_single_turn"),
    "transformers.generation.GenerationMixin": ("_prefill", "_update_model_kwargs_for_generation"),
    "accelerate.state.GradientState": ("_set_sync_gradients",),
}
"""Class -> methods that the functions below call."""


def missing_private_names() -> list[str]:
    """Name the methods above that the installed versions do not have: "trl.GRPOTrainer._compute_loss"."""
    wanted: dict[str, set[str]] = {owner: set(methods) for owner, methods in OVERRIDDEN.items()}
    for owner, called in USED.items():
        wanted.setdefault(owner, set()).update(called)
    missing = []
    for owner, methods in wanted.items():
        module, _, name = owner.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        missing += [f"{owner}.{method}" for method in sorted(methods) if not hasattr(found, method)]
    return missing


def attention_of(config: Any) -> str:
    """Name the attention implementation of a loaded model (`_attn_implementation`): it has no public name."""
    name: str = config._attn_implementation
    return name


def set_attention(config: Any, name: str) -> None:
    """Choose a registered attention for one part of a loaded model.

    The public `set_attn_implementation` refuses names whose package it does not know, and reaches into all parts.
    """
    config._attn_implementation = name


def prefill(model: Any, input_ids: torch.Tensor, config: GenerationConfig, model_kwargs: dict[str, Any]) -> Any:
    """Run the prompts as `generate` does (`_prefill`), for the sampling loop of `generation/local.py`."""
    return model._prefill(input_ids, config, model_kwargs)


def after_forward(model: Any, outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Bring cache, mask and positions forward as `generate` does (`_update_model_kwargs_for_generation`)."""
    updated: dict[str, Any] = model._update_model_kwargs_for_generation(outputs, model_kwargs)
    return updated


def pad_token_of(config: GenerationConfig) -> torch.Tensor:
    """The pad token that `generate` resolved, on the model's device (`_pad_token_tensor`)."""
    token: torch.Tensor | None = config._pad_token_tensor
    assert token is not None, "generate has resolved it"
    return token


@contextmanager
def deepspeed_without_sync(accelerator: Accelerator) -> Iterator[None]:
    """Let DeepSpeed take a backward as one of several of a micro-batch.

    `GradientState._set_sync_gradients` (accelerate 1.12): accelerate's public `no_sync` does nothing under DeepSpeed.
    """
    state = accelerator.gradient_state
    before = state.sync_gradients
    state._set_sync_gradients(False)
    try:
        yield
    finally:
        state._set_sync_gradients(before)


def read_buffered_rollout(trainer: Any) -> tuple[int, Any]:
    """Read which step of its rollout a `GRPOTrainer` is at, and its micro-batches (`_step`, `_buffered_inputs`)."""
    return trainer._step, trainer._buffered_inputs


def set_buffered_rollout(trainer: Any, step: int, batches: Any) -> None:
    """Bring back what `read_buffered_rollout` read."""
    trainer._step, trainer._buffered_inputs = step, batches


def correct_sampling(trainer: Any, corrects: bool) -> None:
    """Have TRL weigh tokens by how much likelier the policy finds them than the engine that sampled them.

    TRL does so for its own vLLM only, which is asked by `use_vllm`; the engine here is ours, so it is set afterwards.
    """
    trainer.use_vllm = corrects


def metrics_of(trainer: Any) -> dict[str, list[float]]:
    """Give the lists that a trainer of TRL averages into its next log entry (`_metrics`, by mode)."""
    metrics: dict[str, list[float]] = trainer._metrics["train" if trainer.model.training else "eval"]
    return metrics


@contextmanager
def table_of_completions_unchanged(trainer: Any) -> Iterator[None]:
    """Keep TRL's table of completions (`_logs`) as it is: it is about the prompts that the sampler chose."""
    table = copy.deepcopy(trainer._logs)
    try:
        yield
    finally:
        trainer._logs = table


def tokenizer_of(trainer: Any) -> Any:
    """Give the tokenizer that a `GRPOTrainer` took out of its processor (`_tokenizer`)."""
    return trainer._tokenizer
