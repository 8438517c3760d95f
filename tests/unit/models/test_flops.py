"""The FLOPs formulas against PyTorch's counter, which looks at every matrix product that is really done."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_window_index

from video_thinker.models.flops import (
    Work,
    causal_pairs,
    decoding_work,
    model_cost,
    packed_work,
    peak_tflops,
    text_work,
    vision_work,
)

GRID = [[2, 12, 10], [1, 8, 4]]  # not a multiple of the 8 x 8 windows
LENGTH = 80


@pytest.fixture(scope="module")
def base() -> Qwen2_5_VLForConditionalGeneration:
    text = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
    }
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 96,
        "num_heads": 2,
        "out_hidden_size": 64,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    tokens = {"image_token_id": 290, "video_token_id": 291, "vision_start_token_id": 292, "vision_end_token_id": 293}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens)
    config._attn_implementation = "eager"  # SDPA's own backward recomputes the scores, which is no work of the model
    return Qwen2_5_VLForConditionalGeneration(config)


@pytest.fixture
def model(base):
    return copy.deepcopy(base)


def counted(model, *, backward: bool) -> int:
    """FLOPs of a batch of one: two videos and text, all logits."""
    first, second = (t * h * w // 4 for t, h, w in GRID)
    ids = torch.full((1, LENGTH), 7)
    ids[0, :first] = ids[0, first + 1 : first + 1 + second] = 291
    inputs = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == 291).long() * 2,
        "pixel_values_videos": torch.randn(4 * (first + second), 1176),
        "video_grid_thw": torch.tensor(GRID),
        "use_cache": False,
    }
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        logits = model(**inputs).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


def expected(model, *, backward: bool) -> float:
    # Eager attention computes the whole square of scores and masks half of it.
    work = vision_work(GRID, model.config.vision_config) + Work(tokens=LENGTH, token_pairs=LENGTH**2, scored=LENGTH)
    return model_cost(model, model.config).flops(work, training=backward)


def frozen(model, part: str):
    for name, parameter in model.named_parameters():
        if part in name:
            parameter.requires_grad_(False)
    return model


def with_lora(model, **options):
    model = get_peft_model(model, LoraConfig(r=8, target_modules=r".*language_model.*_proj", **options))
    # The formula has the gradient of every layer's input, also of the first one's, which nothing needs here.
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: output.requires_grad_())
    return model


CASES = {
    "full": lambda m: m,
    "frozen tower and merger": lambda m: frozen(m, "visual."),
    "frozen tower blocks": lambda m: frozen(frozen(m, "visual.blocks"), "visual.patch_embed"),
    "frozen language model": lambda m: frozen(frozen(m, "language_model"), "lm_head"),
    "lora": with_lora,
    "lora and output layer": lambda m: with_lora(m, modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("case", CASES)
def test_formula_equals_the_products_done(model, case):
    model = CASES[case](model)
    assert expected(model, backward=False) == counted(model, backward=False)
    assert expected(model, backward=True) == counted(model, backward=True)


def test_a_frozen_reference_adapter_is_not_counted_beside_the_policys(model):
    model = with_lora(model)
    cost = model_cost(model, model.config)
    model.add_adapter("ref", LoraConfig(r=8, target_modules=r".*language_model.*_proj"))
    for name, parameter in model.named_parameters():
        if ".ref." in name:
            parameter.requires_grad_(False)
    assert model_cost(model, model.config) == cost


def test_full_training_is_six_flops_per_weight_and_token(model):
    cost = model_cost(model, model.config)
    weights = sum(p.numel() for n, p in model.named_parameters() if "language_model.layers" in n and p.ndim == 2)
    assert cost.training["tokens"] == 6 * weights
    assert cost.forward["tokens"] == 2 * weights


def test_windows_are_those_of_the_model(base):
    vision = base.config.vision_config
    work = vision_work(GRID, vision)
    _, cu_seqlens = get_vision_window_index(
        torch.tensor(GRID), spatial_merge_size=2, window_size=vision.window_size, patch_size=vision.patch_size
    )
    assert work["window_pairs"] == int((cu_seqlens.diff() ** 2).sum())
    assert work["frame_pairs"] == 2 * 120**2 + 32**2
    assert work["patches"] == 272 and work["merged"] == 68


def test_generation_is_prefill_and_one_forward_per_further_token():
    work = text_work([5]) + decoding_work([5], [4])
    assert work["tokens"] == 5 + 3 and work["scored"] == 4
    assert work["token_pairs"] == causal_pairs([8])  # the same pairs as one forward over the eight tokens
    assert decoding_work([5], [0]) == Work(tokens=0, token_pairs=0, scored=0)


def test_completions_in_one_row_read_the_prompt_once():
    prompt, completions = 4, [3, 2]
    work = packed_work([[0] * prompt + [1] * 3 + [2] * 2 + [-1] * 6])
    assert work["tokens"] == 9
    # Each completion alone would be a row of its own, with the prompt's pairs in each.
    alone = causal_pairs(prompt + completion for completion in completions)
    assert work["token_pairs"] == alone - causal_pairs([prompt])
    assert packed_work([[1, 1, 1]]) == text_work([3])


def test_experts_are_not_guessed(model):
    model.config.get_text_config().num_experts = 8
    assert model_cost(model, model.config) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L40", 181.1),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA A10G", 125.0),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_peak_by_device_name(name, peak):
    assert peak_tflops(name) == peak
