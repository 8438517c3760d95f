"""A step that is not finite stops the run before the optimizer moves the weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from video_thinker.errors import CheckpointError, DataError, NonFiniteError
from video_thinker.training.loop.finite import MAX_SKIPPED_STEPS, FiniteGuard

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def trainer(tmp_path):
    model = torch.nn.Linear(2, 1)
    args = SimpleNamespace(
        output_dir=str(tmp_path), world_size=1, process_index=0, learning_rate=1e-3, max_grad_norm=1.0, device="cpu"
    )
    return SimpleNamespace(
        model=model,
        args=args,
        accelerator=SimpleNamespace(scaler=None, mixed_precision="no"),
        state=SimpleNamespace(global_step=4),
        watchdog=SimpleNamespace(sample_ids=("v_1", "v_2")),
    )


@pytest.fixture
def guard(trainer):
    return FiniteGuard(trainer)


def test_a_finite_step_is_silent(guard):
    for _ in range(2):
        guard.note_loss(torch.tensor(1.5))
        guard.note_log_probs(torch.full((2, 3), -1.0), torch.ones(2, 3), ("v_1", "v_2"), "the policy")
        guard.check_step(torch.tensor(0.7))
    guard.check_step(None)  # DeepSpeed has none before its first step


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_loss_is_named_with_step_and_samples_also_that_of_an_earlier_micro_batch(guard, trainer, bad):
    guard.note_loss(torch.tensor(bad))
    trainer.watchdog.sample_ids = ("v_3",)
    guard.note_loss(torch.tensor(1.0))
    with pytest.raises(NonFiniteError) as stopped:
        guard.check_step(1.0)
    text = str(stopped.value)
    assert f"step 5: a loss is {bad} (rank 0; samples: v_1, v_2). Samples of this step: v_1, v_2, v_3." in text
    assert "there is no earlier checkpoint" in text and "learning_rate (now 0.001)" in text


def test_a_log_probability_is_named_with_its_row_and_padding_does_not_count(guard):
    log_probs = torch.tensor([[-1.0, NAN], [-1.0, -2.0]])
    guard.note_log_probs(log_probs, torch.tensor([[1, 0], [1, 1]]), ("v_1", "v_2"), "the policy")
    guard.check_step(1.0)
    guard.note_log_probs(log_probs, torch.ones(2, 2), ("v_1", "v_2"), "the policy")
    with pytest.raises(NonFiniteError, match=r"a log-probability of the policy is nan \(rank 0; samples: v_1\)"):
        guard.check_step(1.0)


@pytest.mark.parametrize("norm", [NAN, INF, torch.tensor(NAN), -1.0])
def test_a_gradient_is_named_with_its_tensors(guard, trainer, norm):
    trainer.model.weight.grad = torch.tensor([[NAN, 0.0]])
    trainer.model.bias.grad = torch.zeros(1)
    guard.note_loss(torch.tensor(1.0))
    with pytest.raises(NonFiniteError, match=r"norm of the gradient is .* \(1 of 2 tensors: weight\)"):
        guard.check_step(norm)


def test_float16_steps_that_overflow_are_skipped_up_to_a_limit(guard, trainer):
    trainer.accelerator.scaler = object()
    for _ in range(3):
        for _ in range(MAX_SKIPPED_STEPS - 1):
            guard.note_loss(torch.tensor(1.0))
            guard.check_step(INF)
        guard.check_step(1.0)
    for _ in range(MAX_SKIPPED_STEPS - 1):
        guard.check_step(INF)
    with pytest.raises(NonFiniteError, match=f"overflowed float16 in {MAX_SKIPPED_STEPS} steps in a row"):
        guard.check_step(INF)


def test_a_loss_that_is_not_finite_is_no_overflow(guard, trainer):
    trainer.accelerator.scaler = object()
    guard.note_loss(torch.tensor(NAN))
    with pytest.raises(NonFiniteError, match="a loss is nan"):
        guard.check_step(INF)


def test_weights_are_looked_at_before_the_first_step(guard, trainer):
    guard.on_train_begin(None, trainer.state, None)
    trainer.model.bias.data.fill_(INF)
    with pytest.raises(CheckpointError, match=r"the weights of step 4: 1 weight tensors are not finite .*bias"):
        guard.on_train_begin(None, trainer.state, None)


def test_what_one_rank_finds_stops_all(guard, trainer, monkeypatch):
    """Another rank has found something, this one has not."""
    monkeypatch.setattr(guard, "of_any_rank", lambda value: True)
    monkeypatch.setattr(guard, "_of_all_ranks", lambda value: [value, (["a loss is nan (rank 1)"], ("v_9",))])
    guard.note_loss(torch.tensor(1.0))
    with pytest.raises(NonFiniteError, match=r"a loss is nan \(rank 1\)\. Samples of this step: v_1, v_2, v_9"):
        guard.check_step(1.0)
    monkeypatch.setattr(guard, "_of_all_ranks", lambda value: [value, "the reward x is nan;"])
    with pytest.raises(NonFiniteError, match="step 5: the reward x is nan"), guard.agreed():
        pass


def test_an_error_in_one_part_of_a_step_keeps_its_kind(guard):
    with guard.agreed():
        pass
    with pytest.raises(DataError, match="the reward"), guard.agreed():
        raise DataError("the reward")
    with (
        pytest.raises(
            NonFiniteError, match=r"step 5: scores\. Samples in work on this rank: v_1, v_2\. .*no earlier checkpoint"
        ),
        guard.agreed(),
    ):
        raise NonFiniteError("scores.")
