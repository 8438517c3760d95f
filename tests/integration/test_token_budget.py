"""Scoring in parts by a token budget and in length order gives TRL's numbers, with less padding and memory."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import every_family
from tests.rollouts import OFF, G, loss_and_gradients, rollout
from video_thinker.errors import ConfigError
from video_thinker.training.token_budget import RowLengths, plan_parts

pytestmark = pytest.mark.integration
LENGTHS = RowLengths(
    prompts=[100, 100, 50, 50, 300, 300], completions=[10, 20, 5, 7, 1, 2], keys=[0, 0, 1, 1, 2, 2], packed=True
)
UNPACKED = RowLengths(LENGTHS.prompts, LENGTHS.completions, LENGTHS.keys, packed=False)


def test_costs_count_each_prompt_once_when_packed_and_padding_always():
    assert LENGTHS.cost([0, 1]) == 130 and LENGTHS.cost([0, 1, 2, 3]) == 2 * 130
    assert UNPACKED.cost([0, 1]) == 240 and UNPACKED.cost([0, 4]) == 2 * 310


@pytest.mark.parametrize(
    ("lengths", "max_rows", "max_tokens", "length_order", "expected"),
    [
        (LENGTHS, 6, None, False, [[0, 1, 2, 3, 4, 5]]),
        (LENGTHS, 4, None, False, [[0, 1, 2, 3], [4, 5]]),
        (LENGTHS, 4, None, True, [[4, 5, 0, 1], [2, 3]]),
        (UNPACKED, 2, None, True, [[5, 4], [1, 0], [3, 2]]),
        (LENGTHS, 1, 303, False, [[0, 1, 2, 3], [4, 5]]),  # a budget instead of a number of rows
        (LENGTHS, 6, 130, False, [[0, 1], [2, 3], [4], [5]]),  # a row above it is alone
        (LENGTHS, 6, 125, False, [[0], [1], [2, 3], [4], [5]]),
        (UNPACKED, 6, 250, True, [[5], [4], [1, 0], [3, 2]]),
    ],
)
def test_parts(lengths, max_rows, max_tokens, length_order, expected):
    assert plan_parts(lengths, max_rows, max_tokens, length_order) == expected


COMBINATIONS = {
    "one prompt": {},
    "a row": {"max_tokens_per_forward": 1},
    "length order": {"length_order": True},
    "two groups": {"max_tokens_per_forward": 330, "length_order": True},
    "iterations": {"num_iterations": 2},
    "sequence level": {"importance_sampling_level": "sequence", "loss_type": "grpo", "num_iterations": 2},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "no KL": {"beta": 0.0},
    "entropy bonus": {"entropy_coef": 0.1},
    "micro-batches": {
        "per_device_train_batch_size": 2 * G,
        "gradient_accumulation_steps": 5,
        "max_tokens_per_forward": 120,
    },
    "checkpointing": {"gradient_checkpointing": True},
    "frozen tower": {"frozen": True},
    "LoRA": {"lora": True},
    "nothing shared": OFF,
}


@every_family
@pytest.mark.parametrize("options", COMBINATIONS.values(), ids=COMBINATIONS)
def test_loss_metrics_and_every_gradient_are_those_of_the_whole(make_grpo_trainer, options):
    budget = {"max_tokens_per_forward": 220, **options}
    rest = {name: value for name, value in options.items() if name not in ("max_tokens_per_forward", "length_order")}
    whole, parts = make_grpo_trainer(**rest), make_grpo_trainer(**budget)
    forwards = []
    parts.model.register_forward_hook(lambda *_: forwards.append(torch.is_grad_enabled()))
    batches, part_batches = rollout(whole), rollout(parts)
    for one, other in zip(batches, part_batches, strict=True):
        assert torch.equal(one["completion_ids"], other["completion_ids"])
        for name in ("old_per_token_logps", "ref_per_token_logps"):
            assert (one.get(name) is None) == (other.get(name) is None)
            if one.get(name) is not None:
                mask = one["completion_mask"]
                torch.testing.assert_close(one[name] * mask, other[name] * mask, atol=1e-5, rtol=0)
    losses, gradients = loss_and_gradients(whole, batches)
    forwards.clear()
    part_losses, part_gradients = loss_and_gradients(parts, part_batches)
    assert sum(forwards) > len(batches)  # really in parts
    assert losses == pytest.approx(part_losses, abs=1e-5)
    assert gradients.keys() == part_gradients.keys()
    for name, gradient in gradients.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert ((gradient - part_gradients[name]).abs().max() / scale) < 1e-4, name
    assert whole._metrics["train"].keys() == parts._metrics["train"].keys()
    for name, values in whole._metrics["train"].items():
        if not name.startswith(("time", "perf", "memory")):
            assert values == pytest.approx(parts._metrics["train"][name], abs=1e-5, nan_ok=True), name


@pytest.mark.parametrize("switches", [{}, OFF], ids=["packed", "rows"])
def test_no_forward_is_above_the_budget_and_length_order_computes_less_padding(make_grpo_trainer, switches):
    def tokens(**options):
        trainer = make_grpo_trainer(**switches, **options)
        batches = rollout(trainer)
        sizes = []
        trainer.model.model.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: sizes.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
        )
        loss_and_gradients(trainer, batches)
        return sizes

    whole, ordered = tokens(), tokens(max_tokens_per_forward=450, length_order=True)
    assert len(whole) == 1 and max(ordered) <= 450 and len(ordered) > 1
    assert sum(ordered) < sum(tokens(max_tokens_per_forward=450)) < whole[0]


def test_what_needs_all_rows_at_once_is_refused(make_grpo_trainer):
    trainer = make_grpo_trainer(max_tokens_per_forward=400, top_entropy_quantile=0.5)
    with pytest.raises(ConfigError, match="max_tokens_per_forward=400 does not go with top_entropy_quantile"):
        trainer.train()


def test_training_learns_the_same(make_grpo_trainer):
    def train(**options):
        trainer = make_grpo_trainer(
            max_steps=6, per_device_train_batch_size=2 * G, gradient_accumulation_steps=2, **options
        )
        torch.manual_seed(3)
        trainer.train()
        return trainer

    whole, parts = train(), train(max_tokens_per_forward=120)
    for name, weight in whole.model.named_parameters():
        torch.testing.assert_close(weight, parts.model.get_parameter(name), atol=2e-4, rtol=0, msg=name)
    logs = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (whole, parts)]
    assert logs[0] == pytest.approx(logs[1], abs=1e-4) and len(logs[0]) == 6


def test_a_data_set_that_fills_no_rollout_is_refused(make_grpo_trainer):
    trainer = make_grpo_trainer(gradient_accumulation_steps=2)
    with pytest.raises(ConfigError, match="train_dataset has 5 prompts, but a rollout takes 10"):
        trainer.train()
