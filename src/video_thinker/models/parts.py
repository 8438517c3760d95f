"""The parts of a video-language model by the names of its parameters, for freezing, adapters, and the printed table.

Qwen2.5-VL and Qwen3-VL share one layout, also below the prefix of a PEFT model (`base_model.model.`):

    model.visual.blocks.0.attn.qkv.weight                     vision_tower
    model.visual.merger.mlp.0.weight                          merger
    model.visual.deepstack_merger_list.0.linear_fc1.weight    merger (Qwen3-VL)
    model.language_model.layers.0.self_attn.q_proj.weight     language_model
    model.language_model.embed_tokens.weight, lm_head.weight  embeddings
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

PARTS = ("vision_tower", "merger", "language_model")
"""What a config can name. The embeddings and the output layer go with the language model."""

REFERENCE_ADAPTER = "ref"
"""Name that TRL's GRPOTrainer gives its frozen copy of an adapter that was trained before."""

_MERGERS = {"merger", "deepstack_merger_list"}
_EMBEDDINGS = {"embed_tokens", "lm_head"}


def part_of(name: str) -> str:
    """Name the part a parameter or module belongs to: one of `PARTS`, "embeddings", or "other"."""
    steps = set(name.split("."))
    if "visual" in steps:
        return "merger" if steps & _MERGERS else "vision_tower"
    if steps & _EMBEDDINGS:
        return "embeddings"
    return "language_model" if "language_model" in steps else "other"


def belongs_to(name: str, part: str) -> bool:
    """Tell whether a parameter is in a part of `PARTS`."""
    return part_of(name) == part or (part == "language_model" and part_of(name) == "embeddings")


def is_adapter_weight(name: str) -> bool:
    """Tell whether PEFT added a parameter: a LoRA matrix, or the trained copy of one of `modules_to_save`."""
    return any(step.startswith("lora_") or step == "modules_to_save" for step in name.split("."))


@dataclass
class PartCount:
    """Parameters of one row of the table."""

    total: int = 0
    trainable: int = 0
    dtypes: set[str] = field(default_factory=set)


def num_parameters(parameter: Parameter) -> int:
    """Count a parameter's values, also where `numel` does not: sharded by ZeRO-3, or two to a byte in 4 bits."""
    if hasattr(parameter, "ds_numel"):
        return int(parameter.ds_numel)
    if type(parameter).__name__ == "Params4bit":
        return 2 * parameter.numel() * parameter.element_size()
    return parameter.numel()


def _row_name(name: str) -> str:
    part = part_of(name).replace("_", " ")
    if not is_adapter_weight(name):
        return part
    return f"{'reference adapter' if REFERENCE_ADAPTER in name.split('.') else 'adapter'} in {part}"


def count_parameters(model: Module) -> dict[str, PartCount]:
    """Count parameters by part, adapters apart; a tied parameter counts once ("embeddings" are lm_head's, too)."""
    counts: dict[str, PartCount] = {}
    for name, parameter in model.named_parameters():
        row = counts.setdefault(_row_name(name), PartCount())
        row.total += num_parameters(parameter)
        row.trainable += num_parameters(parameter) if parameter.requires_grad else 0
        is_4bit = type(parameter).__name__ == "Params4bit"
        row.dtypes.add("4-bit" if is_4bit else str(parameter.dtype).removeprefix("torch."))
    return counts


def parameter_table(model: Module) -> str:
    """Tabulate what is trained, in aligned text.

    Example:
        part                       parameters   trainable  dtype
        vision tower              665,304,576           0  bfloat16
        adapter in language model  40,370,176  40,370,176  float32
    """
    counts = count_parameters(model)
    total = PartCount(sum(c.total for c in counts.values()), sum(c.trainable for c in counts.values()))
    rows = [("part", "parameters", "trainable", "dtype")]
    for name, count in [*counts.items(), ("total", total)]:
        rows.append((name, f"{count.total:,}", f"{count.trainable:,}", ", ".join(sorted(count.dtypes))))
    first, second, third = (max(len(row[column]) for row in rows) for column in range(3))
    return "\n".join(f"{a:<{first}}  {b:>{second}}  {c:>{third}}  {d}".rstrip() for a, b, c, d in rows)
