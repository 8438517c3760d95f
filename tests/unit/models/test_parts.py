"""The parts of a model by the names of its parameters, in both Qwen families, with and without PEFT's prefix."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.quantizers.quantizers_utils import should_convert_module

from video_thinker.config import PeftArguments
from video_thinker.errors import ConfigError
from video_thinker.models.adapters import lora_config, quantization_config
from video_thinker.models.loading import freeze
from video_thinker.models.parts import count_parameters, is_adapter_weight, parameter_table, part_of


def build(kind: str, *, tied: bool = False) -> torch.nn.Module:
    """A model without memory behind its weights."""
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
    }
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
    with torch.device("meta"):
        if kind == "qwen2_5_vl":
            config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
            return Qwen2_5_VLForConditionalGeneration(config)
        vision |= {"deepstack_visual_indexes": [0, 1]}
        return Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(text_config=text | {"head_dim": 8}, vision_config=vision, tie_word_embeddings=tied)
        )


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.visual.patch_embed.proj.weight", "vision_tower"),
        ("model.visual.blocks.0.mlp.gate_proj.weight", "vision_tower"),
        ("model.visual.merger.ln_q.weight", "merger"),
        ("model.visual.deepstack_merger_list.2.linear_fc1.bias", "merger"),
        ("model.language_model.layers.3.mlp.gate_proj.weight", "language_model"),
        ("model.language_model.norm.weight", "language_model"),
        ("model.language_model.embed_tokens.weight", "embeddings"),
        ("lm_head.weight", "embeddings"),
        ("base_model.model.model.visual.merger.mlp.0.lora_A.default.weight", "merger"),
        ("base_model.model.lm_head.weight", "embeddings"),
        ("model.audio_tower.conv.weight", "other"),
    ],
)
def test_part_of(name, part):
    assert part_of(name) == part


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_every_parameter_of_both_families_has_a_part(kind):
    model = build(kind)
    names = [name for name, _ in model.named_parameters()]
    assert {part_of(name) for name in names} == {"vision_tower", "merger", "language_model", "embeddings"}
    mergers = {name.split(".")[2] for name in names if part_of(name) == "merger"}
    assert mergers == ({"merger"} if kind == "qwen2_5_vl" else {"merger", "deepstack_merger_list"})


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    ("frozen", "trained"),
    [
        (["vision_tower"], {"merger", "language_model", "embeddings"}),
        (["vision_tower", "merger"], {"language_model", "embeddings"}),
        (["vision_tower", "language_model"], {"merger"}),
        ([], {"vision_tower", "merger", "language_model", "embeddings"}),
    ],
)
def test_freeze_stops_exactly_the_named_parts(kind, frozen, trained):
    model = build(kind)
    left = freeze(model, frozen)
    assert {part_of(name) for name, p in model.named_parameters() if p.requires_grad} == trained
    assert {part_of(name) for name, p in model.named_parameters() if not p.requires_grad}.isdisjoint(trained)
    assert left == sum(p.numel() for p in model.parameters() if p.requires_grad) > 0


def test_tied_embeddings_count_once_and_the_total_is_the_models():
    tied, untied = build("qwen2_5_vl", tied=True), build("qwen2_5_vl")
    assert count_parameters(tied)["embeddings"].total == 64 * 32
    assert count_parameters(untied)["embeddings"].total == 2 * 64 * 32
    assert sum(count.total for count in count_parameters(untied).values()) == untied.num_parameters()


def test_table_is_aligned_and_says_what_is_trained():
    model = build("qwen3_vl").to(torch.bfloat16)
    freeze(model, ["language_model"])
    lines = parameter_table(model).splitlines()
    assert lines[0].split() == ["part", "parameters", "trainable", "dtype"]
    rows = {line.split("  ")[0]: line.split()[-3:] for line in lines[1:]}
    assert rows["language model"][1:] == ["0", "bfloat16"]
    assert rows["merger"][0] == rows["merger"][1] != "0"
    assert len({line.index("bfloat16") for line in lines[1:-1]}) == 1


def test_table_counts_sharded_and_packed_weights_in_full():
    class Params4bit(torch.nn.Parameter):
        """As in bitsandbytes: two weights to a byte."""

    module = torch.nn.Module()
    module.packed = Params4bit(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    module.sharded = torch.nn.Parameter(torch.zeros(0))
    module.sharded.ds_numel = 100
    (count,) = count_parameters(module).values()
    assert (count.total, count.trainable, count.dtypes) == (124, 100, {"4-bit", "float32"})


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_adapters_go_on_the_linear_layers_of_the_language_model_only(kind):
    model = build(kind)
    targets = lora_config(model, PeftArguments(use_peft=True)).target_modules
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert sorted({name.rsplit(".", 1)[-1] for name in targets}) == sorted(names)
    assert len(targets) == 2 * len(names) and all(name.startswith("model.language_model.") for name in targets)
    both = lora_config(model, PeftArguments(use_peft=True, lora_parts=["vision_tower", "merger"])).target_modules
    assert {part_of(name) for name in both} == {"vision_tower", "merger"}
    fewer = PeftArguments(use_peft=True, lora_target_modules=["self_attn.q_proj"])
    assert len(lora_config(model, fewer).target_modules) == 2
    assert lora_config(model, PeftArguments()) is None


def test_target_outside_the_chosen_parts_is_refused():
    with pytest.raises(ConfigError, match="'qkv' is no linear layer"):
        lora_config(build("qwen2_5_vl"), PeftArguments(use_peft=True, lora_target_modules=["qkv"]))


def test_adapter_weights_are_known_by_their_names():
    assert is_adapter_weight("base_model.model.lm_head.modules_to_save.default.weight")
    assert is_adapter_weight("base_model.model.model.visual.merger.mlp.0.lora_B.ref.weight")
    assert not is_adapter_weight("base_model.model.model.visual.merger.mlp.0.base_layer.weight")


def test_quantization_is_qloras_and_leaves_the_vision_tower_alone():
    assert quantization_config(PeftArguments()) is None
    config = quantization_config(PeftArguments(use_peft=True, load_in_4bit=True))
    assert config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    for kind in ("qwen2_5_vl", "qwen3_vl"):
        linear = [name for name, module in build(kind).named_modules() if isinstance(module, torch.nn.Linear)]
        quantized = {name for name in linear if should_convert_module(name, config.llm_int8_skip_modules)}
        assert quantized == {name for name in linear if part_of(name) == "language_model"} != set()
