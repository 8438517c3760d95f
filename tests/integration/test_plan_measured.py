"""What `video-thinker plan` predicts against what real models on the CPU really hold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText, DynamicCache, PretrainedConfig, Qwen2_5_VLConfig, Qwen3VLConfig

from tests.conftest import every_family
from video_thinker.cli import main as cli
from video_thinker.config import PeftArguments
from video_thinker.diagnostics.activations import Batch, LiveBytes, Traces
from video_thinker.diagnostics.memory import GIB, predict
from video_thinker.diagnostics.planned_run import Policy, Run
from video_thinker.diagnostics.shapes import Adapter, ModelShape, load_shape, video_grid, video_tokens, vision_factor
from video_thinker.models.adapters import lora_config
from video_thinker.models.loading import freeze

pytestmark = pytest.mark.integration

TEXT = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
VISION = {"hidden_size": 160, "intermediate_size": 320, "num_heads": 4, "out_hidden_size": 256}
IDS = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}


def qwen2_5_vl() -> Qwen2_5_VLConfig:
    """Six layers each; windows as in the real model, full attention in two layers."""
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6}
    vision = {**VISION, "depth": 6, "window_size": 112, "fullatt_block_indexes": [1, 4], "tokens_per_second": 2}
    return Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": rope}, vision_config=vision, tie_word_embeddings=True, **IDS
    )


def qwen3_vl() -> Qwen3VLConfig:
    rope = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True, "rope_theta": 1e6}
    vision = {**VISION, "depth": 6, "patch_size": 16, "num_position_embeddings": 256}
    vision["deepstack_visual_indexes"] = [1, 2, 3]
    return Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 32, "rope_parameters": rope},
        vision_config=vision,
        tie_word_embeddings=True,
        **IDS,
    )


def inputs(config: PretrainedConfig, batch: Batch) -> dict[str, torch.Tensor]:
    """Rows with one video each; one token of text before each pair of frames, as Qwen3-VL wants it."""
    per_frame = video_tokens(config, batch.grid) // batch.grid[0]
    row = torch.full((batch.length,), 9)
    if config.model_type == "qwen3_vl":
        for pair in range(batch.grid[0]):
            start = 1 + pair * (per_frame + 1)
            row[start : start + per_frame] = 2
    else:
        row[4 : 4 + per_frame * batch.grid[0]] = 2
    ids = row.repeat(batch.rows, 1)
    mask = torch.ones_like(ids)
    mask[1:, -3:] = 0  # rows of different lengths
    fields = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == 2).long() * 2,
        "pixel_values_videos": torch.randn(batch.patch_shape(config.vision_config)),
        "video_grid_thw": torch.tensor([batch.grid] * batch.rows),
    }
    if config.model_type == "qwen2_5_vl":
        fields["second_per_grid_ts"] = torch.ones(batch.rows)
    return fields


def real_model(policy: Policy) -> torch.nn.Module:
    """The model of a policy with weights, trained as the trainers do it."""
    model = AutoModelForImageTextToText.from_config(
        policy.shape.config, dtype=policy.dtype, attn_implementation="sdpa"
    ).train()
    if policy.adapter is not None:
        from peft import get_peft_model

        model = get_peft_model(model, lora_config(model, PeftArguments(use_peft=True, **dict(policy.adapter.settings))))
    freeze(model, list(policy.frozen))
    if policy.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        if policy.adapter is not None:
            model.enable_input_require_grads()
    return model


def storages(tensors: Iterable[torch.Tensor]) -> dict[int, torch.UntypedStorage]:
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}


def backbone(model: torch.nn.Module) -> torch.nn.Module:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model


def measure_saved(model: torch.nn.Module, policy: Policy, fields: dict[str, torch.Tensor]) -> int:
    """Bytes of all storages that autograd keeps for backward, without parameters and inputs."""
    known, kept = storages([*model.parameters(), *model.buffers(), *fields.values()]), {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.update(storages([tensor]))
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=policy.autocast is not None),
    ):
        backbone(model)(**fields)
    return sum(storage.nbytes() for key, storage in kept.items() if key not in known)


def measure_alive(model: torch.nn.Module, policy: Policy, fields: dict[str, torch.Tensor]) -> int:
    """Bytes alive after a forward, without parameters and inputs."""
    with LiveBytes([*model.parameters(), *model.buffers(), *fields.values()]) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=policy.autocast is not None):
            hidden = backbone(model)(**fields).last_hidden_state
        assert hidden.requires_grad
        return live.now


def measure_peak(model: torch.nn.Module, policy: Policy, fields: dict[str, torch.Tensor]) -> int:
    """Most bytes alive in forward and backward, without parameters, gradients and inputs."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with LiveBytes([*model.parameters(), *model.buffers(), *fields.values()]) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=policy.autocast is not None):
            hidden = backbone(model)(**fields).last_hidden_state
        hidden.backward(torch.ones_like(hidden))
    return live.peak


def policy(config: PretrainedConfig, dtype: torch.dtype = torch.float32, **changes) -> Policy:
    autocast = torch.bfloat16 if dtype is torch.bfloat16 else None
    return dataclasses.replace(Policy(ModelShape(config, "test"), dtype, autocast, False), **changes)


SHORT, LONG = Batch(1, 500, (4, 8, 16)), Batch(1, 1100, (8, 8, 16))
TWO_ROWS = Batch(2, 400, (4, 8, 8), masked=True)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("batch", [SHORT, LONG, TWO_ROWS], ids=["500", "1100", "2x400"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_activations_kept_for_backward(dtype, batch, checkpointing):
    trained = policy(qwen2_5_vl(), dtype, gradient_checkpointing=checkpointing)
    check_saved(trained, batch)


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": Adapter()},
        {"adapter": Adapter(), "gradient_checkpointing": True},
        {"frozen": ("vision_tower", "merger")},
    ],
    ids=["lora", "lora checkpointing", "frozen tower"],
)
def test_activations_kept_for_backward_when_parts_are_not_trained(changes):
    check_saved(policy(qwen2_5_vl(), torch.bfloat16, **changes), SHORT)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_activations_kept_for_backward_in_qwen3_vl(checkpointing):
    check_saved(policy(qwen3_vl(), gradient_checkpointing=checkpointing), Batch(1, 600, (4, 8, 16)))


def check_saved(trained: Policy, batch: Batch) -> None:
    """Compare with what autograd saves, and with all that is alive between forward and backward.

    Gradient checkpointing holds masks and rotary tables for its second forward without saving them, so there the first
    comparison has a bound on one side only where such tensors weigh much.
    """
    vision, language = Traces(trained.build, trained.shape.config, trained.autocast).training(batch)
    predicted = vision.saved + language.saved
    model, fields = real_model(trained), inputs(trained.shape.config, batch)
    saved = measure_saved(model, trained, fields)
    if trained.gradient_checkpointing and (batch.rows > 1 or trained.adapter is not None):
        assert saved < predicted
    else:
        assert predicted == pytest.approx(saved, rel=0.15)
    assert predicted == pytest.approx(measure_alive(model, trained, fields), rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("batch", [SHORT, TWO_ROWS], ids=["500", "2x400"])
def test_peak_of_forward_and_backward(batch, checkpointing):
    trained = policy(qwen2_5_vl(), gradient_checkpointing=checkpointing)
    vision, language = Traces(trained.build, trained.shape.config).training(batch)
    predicted = max(vision.saved + language.peak, vision.peak)
    measured = measure_peak(real_model(trained), trained, inputs(trained.shape.config, batch))
    assert predicted == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("batch", [LONG, TWO_ROWS], ids=["1100", "2x400"])
def test_peak_of_a_forward_without_gradients(batch):
    trained = policy(qwen2_5_vl(), torch.bfloat16)
    predicted = Traces(trained.build, trained.shape.config, trained.autocast).inference(batch)
    model, fields = real_model(trained), inputs(trained.shape.config, batch)
    live = LiveBytes([*model.parameters(), *model.buffers(), *fields.values()])
    with torch.no_grad(), live, torch.autocast("cpu", torch.bfloat16):
        backbone(model)(**fields, use_cache=False)
    assert predicted == pytest.approx(live.peak, rel=0.15)


@pytest.mark.parametrize(
    "changes",
    [{}, {"frozen": ("vision_tower",)}, {"adapter": Adapter(settings=(("lora_r", 4),))}],
    ids=["full", "frozen tower", "lora"],
)
def test_weights_gradients_and_optimizer_states_are_exact(changes):
    trained = policy(qwen2_5_vl(), torch.bfloat16, **changes)
    model = real_model(trained)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [s for of in optimizer.state.values() for s in of.values() if s.dim()]  # without the step counters
    run = Run(trained, "adamw_torch_fused", 1, 1, SHORT.grid, 20, 20)
    parts = predict(run).phases[-1].parts
    assert parts == {
        "weights": sum(s.nbytes() for s in storages(model.parameters()).values()),
        "gradients": sum(p.grad.nbytes for p in model.parameters() if p.grad is not None),
        "optimizer states": sum(state.nbytes for state in states),
    }


def test_kv_cache_is_exact():
    trained = policy(qwen2_5_vl())
    run = Run(trained, "sgd", 2, 1, TWO_ROWS.grid, 20, 100, rollout_rows=2)
    batch = run.prefill_batch()
    cache = DynamicCache()
    with torch.no_grad():
        real_model(trained).model(**inputs(trained.shape.config, batch), past_key_values=cache, use_cache=True)
    prefill = predict(run).phases[0]
    assert prefill.moment == "prefill"
    assert prefill.parts["KV cache"] == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def test_the_advice_holds(tmp_path: Path, tiny_model_dir, capsys):
    values = {"model_name_or_path": str(tiny_model_dir), "output_dir": str(tmp_path), "max_length": 4000}
    values |= {"per_device_train_batch_size": 8, "gradient_checkpointing": False}
    config, numbers = tmp_path / "run.yaml", tmp_path / "plan.json"
    config.write_text(yaml.safe_dump(values))
    limits = ["--gpu-memory", "1.4", "--host-memory", "64"]
    assert cli(["plan", str(config), *limits, "--json", str(numbers)]) == 1
    text, found = capsys.readouterr().out, json.loads(numbers.read_text())
    assert "DOES NOT FIT" in text and "gradient_checkpointing=true" in text
    assert not found["fits"] and found["needed"] > 1.4 * GIB >= found["together"]["needed"]
    overrides = [f"{key}={str(value).lower()}" for key, value in found["together"]["keys"].items()]
    assert cli(["plan", str(config), *overrides, *limits]) == 0


@every_family
def test_the_tiny_models_video_has_as_many_tokens_as_planned(tiny_model_dir, media_root, items_file):
    from video_thinker.config import DataArguments
    from video_thinker.data.annotations import load_samples
    from video_thinker.models.loading import load_encoder

    config = load_shape(str(tiny_model_dir)).config
    factor = vision_factor(config)
    sampling = DataArguments(media_root=str(media_root), max_frames=8, max_pixels=4 * factor**2)
    prompt = load_encoder(str(tiny_model_dir), sampling).encode_prompt(load_samples(items_file)[0])
    planned = video_tokens(config, video_grid(config, sampling.max_frames, sampling.max_pixels))
    assert prompt.mm_token_type_ids.count(2) == planned  # 64 x 64 pixels of video fill the limit
