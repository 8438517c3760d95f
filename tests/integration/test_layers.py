"""Models whose layers are not all full attention: what they cannot share is not shared, and said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.rollouts import OFF, log_probs, rollout, sample_ids
from tests.tiny import TINY_VISION, make_tiny_qwen2_5_vl, make_tiny_qwen3_vl, tiny_config
from video_thinker.toyworld.tokenizer import train_tokenizer
from video_thinker.training.packing import use_packed_attention

pytestmark = pytest.mark.integration


def make_tiny_qwen3_5(tokenizer):
    """Make a random Qwen3.5: two layers of linear attention, then one of full attention."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    _, processor = make_tiny_qwen3_vl(tokenizer)
    config = tiny_config(processor)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 1e4}
    config["text_config"] |= {
        "head_dim": 16,
        "rope_parameters": {**rope, "partial_rotary_factor": 1.0},
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    }
    config = Qwen3_5Config(**config, vision_config={**TINY_VISION, "patch_size": 16, "num_position_embeddings": 16})
    return Qwen3_5ForConditionalGeneration(config), processor


def make_tiny_sliding(tokenizer):
    """Make a random Qwen2.5-VL whose second layer sees 8 tokens back."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    model, processor = make_tiny_qwen2_5_vl(tokenizer)
    config = model.config
    config.text_config.use_sliding_window = True
    config.text_config.sliding_window = 8
    config.text_config.layer_types = ["full_attention", "sliding_attention"]
    return Qwen2_5_VLForConditionalGeneration(config), processor


@pytest.fixture(scope="module")
def odd_models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("odd_models")
    for name, make in {"linear": make_tiny_qwen3_5, "sliding": make_tiny_sliding}.items():
        torch.manual_seed(0)
        model, processor = make(train_tokenizer(["Which color comes last? I look. 00:00-00:03"], vocab_size=400))
        model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
        model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


@pytest.fixture
def tiny_model_dir(request, odd_models) -> Path:
    return odd_models / request.param


REASONS = {
    "linear": {
        "share_prefix": "linear_attention layers, which keep a state that flows from one completion into the next",
        "share_prefill": "linear_attention layers, which keep a state that flows from one completion into the next",
    },
    "sliding": {"share_prefix": "sliding_attention layers, which count places of a row"},
}


def score(trainer, batch) -> torch.Tensor:
    """Log-probabilities (B, C) of a micro-batch by the trainer's own path."""
    return log_probs(trainer, trainer.model, batch) * batch["completion_mask"]


def by_hand(trainer, batch) -> torch.Tensor:
    """The same from one plain forward for each row, without padding."""
    expected = torch.zeros(batch["completion_ids"].shape)
    for row, sample_id in enumerate(sample_ids(trainer, batch)):
        sample = next(r["sample"] for r in trainer.train_dataset if r["sample"].id == sample_id)
        prompt = trainer.encoder.encode_prompt(sample)
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
        start = int(prompt.position_ids.max()) + 1
        places = torch.arange(start, start + len(completion)).expand(3, -1)
        positions = torch.cat([prompt.position_ids, places], dim=1)[:, None]
        ids = torch.tensor([prompt.input_ids + completion])
        with torch.no_grad():
            logits = trainer.model(input_ids=ids, position_ids=positions, **prompt.media).logits[0]
        logps = torch.log_softmax(logits[-len(completion) - 1 : -1] / trainer.temperature, dim=-1)
        expected[row, : len(completion)] = logps.gather(1, ids[0, -len(completion) :, None])[:, 0]
    return expected


@pytest.mark.parametrize("tiny_model_dir", REASONS, indirect=True)
def test_what_layers_cannot_share_is_off_and_said(make_grpo_trainer, caplog, request):
    """Packed, such a model gives other log-probabilities without an error: this test shows it."""
    trainer = make_grpo_trainer(generation_kwargs={})
    reasons = REASONS[request.node.callspec.params["tiny_model_dir"]]
    assert not trainer.scorer.shares_prefix and trainer.engine.share_prompts == ("share_prefill" not in reasons)
    for switch, reason in reasons.items():
        said = [record for record in caplog.records if record.getMessage().startswith(f"{switch} is off")]
        assert len(said) == 1 and said[0].levelname == "WARNING" and reason in said[0].getMessage()

    (batch,), (plain,) = rollout(trainer), rollout(make_grpo_trainer(generation_kwargs={}, **OFF))
    assert torch.equal(batch["completion_ids"], plain["completion_ids"])
    trainer.model.eval()
    expected = by_hand(trainer, batch)
    torch.testing.assert_close(score(trainer, batch), expected, atol=1e-4, rtol=0)
    trainer.scorer.shares_prefix = True
    use_packed_attention(trainer.model)
    assert (score(trainer, batch) - expected).abs().max() > 1e-3
