"""The private names of other libraries that are touched: each is there, and does what `models/compat.py` says."""

from __future__ import annotations

import inspect

import pytest
import torch
import transformers
import trl
from accelerate import Accelerator

from tests.rollouts import G, rollout
from video_thinker.models import compat
from video_thinker.training.run_trainer import RunTrainer
from video_thinker.training.sft import VideoSFTTrainer
from video_thinker.training.trainer import VideoGRPOTrainer

pytestmark = pytest.mark.integration


def test_the_installed_versions_have_every_name():
    assert compat.missing_private_names() == []


def test_a_name_that_is_gone_is_found(monkeypatch):
    monkeypatch.delattr(trl.GRPOTrainer, "_compute_loss")
    monkeypatch.setitem(compat.USED, "transformers.Trainer", ("_never_there",))
    assert compat.missing_private_names() == ["trl.GRPOTrainer._compute_loss", "transformers.Trainer._never_there"]


@pytest.mark.parametrize("trainer", [VideoGRPOTrainer, VideoSFTTrainer])
def test_every_private_method_that_is_overridden_is_listed(trainer):
    listed = {name for methods in compat.OVERRIDDEN.values() for name in methods}
    theirs = {*dir(trl.GRPOTrainer), *dir(transformers.Trainer)}
    ours = [base for base in trainer.__mro__ if base.__module__.startswith("video_thinker.")]
    assert RunTrainer in ours
    methods = {name for base in ours for name, value in vars(base).items() if inspect.isfunction(value)}
    assert {name for name in methods & theirs if name.startswith("_") and not name.startswith("__")} <= listed


def test_deepspeed_without_sync():
    accelerator = Accelerator(cpu=True)
    assert accelerator.sync_gradients
    with compat.deepspeed_without_sync(accelerator):
        assert not accelerator.sync_gradients
    assert accelerator.sync_gradients


def test_the_buffered_rollout_is_what_training_uses_next(make_grpo_trainer):
    trainer = make_grpo_trainer(per_device_train_batch_size=G, gradient_accumulation_steps=5)
    rollout(trainer)
    step, batches = compat.read_buffered_rollout(trainer)
    assert step == 0 and len(batches) == 5
    other = make_grpo_trainer(per_device_train_batch_size=G, gradient_accumulation_steps=5)
    compat.set_buffered_rollout(other, 3, batches)
    other.model.train()
    inputs = other._prepare_inputs([])  # no rows: nothing is sampled
    assert torch.equal(inputs["completion_ids"], batches[3]["completion_ids"].flatten(0, 1))


def test_metrics_and_the_table_of_completions_are_trls(make_grpo_trainer):
    trainer = make_grpo_trainer()
    rollout(trainer)
    assert len(compat.metrics_of(trainer)["reward"]) == 1
    trainer.model.eval()
    assert "reward" not in compat.metrics_of(trainer)
    before = list(trainer._logs["completion"])
    with compat.table_of_completions_unchanged(trainer):
        trainer._logs["completion"].append("another prompt's")
        assert list(trainer._logs["completion"]) != before
    assert list(trainer._logs["completion"]) == before
    assert compat.tokenizer_of(trainer) is trainer.encoder.processor.tokenizer


def test_attention_is_chosen_on_one_object_only(make_grpo_trainer):
    plain = make_grpo_trainer(share_prefix=False)
    shared = make_grpo_trainer()
    assert compat.attention_of(shared.model.model.language_model.config) == "video_thinker_packed_sdpa"
    assert compat.attention_of(shared.model.model.visual.config) == "sdpa"
    assert compat.attention_of(plain.model.model.language_model.config) == "sdpa"
    sdpa = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert sdpa.__module__ == "transformers.integrations.sdpa_attention"
    assert "packed" not in str(shared.model.config.to_json_string())
