"""How many floating-point operations a Qwen-VL model needs, and how many a device can do: for the MFU of a run.

Counted are matrix products, a multiply-add as 2: a forward costs 2 per weight and token (in the tower: patch), a
backward 2 for the gradient of the input and 2 for that of the weight, so 6 in full training (Kaplan et al., arXiv
2001.08361, section 2.1; PaLM, arXiv 2204.02311, appendix B). A weight without a gradient, frozen or under LoRA, lacks
its last 2; parts below the first trainable weight have no backward at all. Attention adds 4 x width per layer for each
pair of a query and a key it may see, so half a square for causal text. Recomputation (gradient checkpointing) and
padding are not work.

Peaks of devices are TRL's, and of the cards it lacks. TRL also has `compute_flops_per_token`; it is not used here: it
counts the language model alone, attention over the whole square, and a backward of every weight. That leaves out the
vision tower, and counts too much for frozen parts, LoRA, causal text and completions that share a prompt.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from video_thinker.models.parts import part_of

PEAK_TFLOPS = {
    "GH200": 989.4,
    "H800": 989.4,
    "A800": 312.0,
    "A30": 165.0,
    "A40": 149.7,
    "L40": 181.1,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
"""Cards that TRL's table lacks. Dense bf16 peak with fp32 accumulation, TFLOP/s, without sparsity: from NVIDIA's data
sheets, and the Ada and Ampere GA102 white papers for the RTX cards."""

PARTS = ("patch_embed", "blocks", "merger", "layers", "head")
"""Stretches of a model in the order of its forward."""

UNITS = {"patch_embed": "patches", "blocks": "patches", "merger": "merged", "layers": "tokens", "head": "scored"}
"""What each part's weights are applied to: a key of `Work`."""

Work = Counter[str]
"""Additive counts of what a model was applied to: `patches`, `merged` (patches after merging), `frame_pairs` and
`window_pairs` (pairs of patches), `tokens`, `token_pairs`, and `scored` (positions the output layer was applied to)."""


def peak_tflops(device_name: str) -> float | None:
    """Look up a device's dense bf16 peak in TFLOP/s by its name ("NVIDIA H100 80GB HBM3"); `None` if it is unknown."""
    from trl.trainer.utils import get_peak_flops  # takes seconds to import, and is needed on a GPU only

    peak = get_peak_flops(device_name, "bfloat16")
    if peak is not None:
        return float(peak) / 1e12
    return next((PEAK_TFLOPS[name] for name in PEAK_TFLOPS if re.search(rf"\b{name}\b", device_name)), None)


def causal_pairs(lengths: Iterable[int]) -> int:
    """Count the pairs of a query and a key that it sees, over sequences of these lengths."""
    return sum(length * (length + 1) // 2 for length in lengths)


def text_work(lengths: Sequence[int]) -> Work:
    """Count one causal forward over sequences of these lengths."""
    return Work(tokens=sum(lengths), token_pairs=causal_pairs(lengths))


def packed_work(segments: Iterable[Sequence[int]]) -> Work:
    """Count one forward over rows in which completions share a prompt (`training.shared_prefix`).

    Args:
        segments: For each token of each row: 0 for the prompt, 1, 2, … for its completions, negative for padding. A
            completion sees the prompt and itself.
    """
    work = Work()
    for row in segments:
        lengths = Counter(segment for segment in row if segment >= 0)
        prompt = lengths.pop(0, 0)
        completions = list(lengths.values())
        work.update(
            tokens=prompt + sum(completions),
            token_pairs=causal_pairs([prompt, *completions]) + prompt * sum(completions),
        )
    return work


def decoding_work(prompt_lengths: Sequence[int], completion_lengths: Sequence[int]) -> Work:
    """Count the decoding of completions with a cache. The prefill of the prompts is a forward of its own (`text_work`).

    The prefill gives the first token, so a completion of C tokens takes C - 1 forwards of one token.
    """
    work = Work()
    for prompt, completion in zip(prompt_lengths, completion_lengths, strict=True):
        steps = max(completion - 1, 0)
        work.update(tokens=steps, token_pairs=steps * prompt + causal_pairs([steps]), scored=completion)
    return work


def vision_work(grid_thw: Iterable[Sequence[int]], vision_config: Any) -> Work:
    """Count one forward of the vision tower.

    Args:
        grid_thw: Frame pairs, height and width in patches, of each video or image.
        vision_config: The tower's configuration. Attention is within a frame pair; where there is a `window_size`
            (Qwen2.5-VL) most layers see only windows of that many pixels.
    """
    side = getattr(vision_config, "window_size", 0) // vision_config.patch_size
    work = Work()
    for frames, height, width in grid_thw:
        work.update(
            patches=frames * height * width,
            merged=frames * height * width // vision_config.spatial_merge_size**2,
            frame_pairs=frames * (height * width) ** 2,
            window_pairs=frames * _sum_of_squares(height, side) * _sum_of_squares(width, side),
        )
    return work


def _sum_of_squares(length: int, side: int) -> int:
    """Cut `length` into pieces of `side`, the last one shorter, and add up their squares."""
    return length // side * side**2 + (length % side) ** 2 if side else 0


@dataclass(frozen=True)
class ModelCost:
    """FLOPs of a model for one unit of each kind of work: without a gradient, and with forward and backward."""

    forward: dict[str, float]
    training: dict[str, float]

    def flops(self, work: Work, *, training: bool) -> float:
        """Floating-point operations of some work; `training`: with its backward."""
        per_unit = self.training if training else self.forward
        return sum(count * per_unit[unit] for unit, count in work.items())


def model_cost(model: nn.Module, config: Any) -> ModelCost | None:
    """Work out what a unit of work costs, from the shapes of a model's layers and from which of them are trained.

    Adapters (LoRA) count as the layers they are. A frozen second adapter, the reference of GRPO, does not: it takes the
    policy adapter's place, and is never applied beside it.

    Args:
        model: A Qwen-VL model, wrapped or not; sharded and quantized weights count with their full shape.
        config: Its configuration.

    Returns:
        `None` for a mixture of experts, which applies a different share of its weights to each token.
    """
    if getattr(config.get_text_config(), "num_experts", None):
        return None
    size, trained = Counter[str](), Counter[str]()
    for name, module in model.named_modules():
        num_weights = _num_weights(module)
        if num_weights and not _is_idle(name, module):
            size[_part_of(name)] += num_weights
            trained[_part_of(name)] += num_weights if module.weight.requires_grad else 0
    with_gradient = {_part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    forward: defaultdict[str, float] = defaultdict(float)
    training: defaultdict[str, float] = defaultdict(float)
    below = False
    for part in PARTS:
        # Within patch_embed and head there is nothing below their one layer that a gradient could be for.
        through = below or (part in with_gradient and part not in ("patch_embed", "head"))
        below = below or part in with_gradient
        costs = {UNITS[part]: 2.0 * size[part], **_attention_cost(part, config)}
        for unit, cost in costs.items():
            forward[unit] += cost
            training[unit] += cost * (3 if unit.endswith("pairs") else 2) if through else cost
        training[UNITS[part]] += 2 * trained[part]
    return ModelCost(dict(forward), dict(training))


def _part_of(name: str) -> str:
    part = part_of(name)
    if part == "vision_tower":
        return "patch_embed" if "patch_embed" in name.split(".") else "blocks"
    if part == "merger":
        return "merger"
    return "head" if "lm_head" in name.split(".") else "layers"


def _num_weights(module: nn.Module) -> int:
    """Size of a layer's weight matrix, also where the weight itself is sharded or packed; 0 if it has none."""
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        return module.in_channels * module.out_channels * math.prod(module.kernel_size) // module.groups
    return 0


def _is_idle(name: str, module: nn.Module) -> bool:
    """Tell whether PEFT keeps a layer that the policy does not apply: a replaced original, a frozen adapter."""
    steps = name.split(".")
    is_adapter = any(step.startswith("lora_") for step in steps)
    return "original_module" in steps or (is_adapter and not module.weight.requires_grad)


def _attention_cost(part: str, config: Any) -> dict[str, float]:
    """FLOPs of a part's attention per pair of positions: 2 x width for the score, 2 x width for the weighted value."""
    if part == "blocks":
        vision = config.vision_config
        full = getattr(vision, "fullatt_block_indexes", None)
        num_full = vision.depth if full is None else len(full)
        width = vision.hidden_size
        return {"frame_pairs": 4.0 * width * num_full, "window_pairs": 4.0 * width * (vision.depth - num_full)}
    if part == "layers":
        text = config.get_text_config()
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return {"token_pairs": 4.0 * head_dim * text.num_attention_heads * text.num_hidden_layers}
    return {}
