"""Shapes of models, without their weights: which config a checkpoint has, how many parameters, how many vision tokens.

A model is built from its config on the meta device: every tensor has its shape and type, none has memory. So parameters
are counted, not estimated, for whatever transformers and PEFT build.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen3VLConfig
from transformers.initialization import no_init_weights

from video_thinker.config import PeftArguments
from video_thinker.errors import ConfigError
from video_thinker.models.adapters import adapter_base, lora_config
from video_thinker.models.parts import belongs_to, is_adapter_weight

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

_QWEN2_5_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}
_QWEN2_5_ROPE = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
_QWEN3_VISION = {"num_heads": 16, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
_QWEN3_ROPE = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True, "rope_theta": 5e6}


def _qwen2_5_vl(hidden_size: int, vocab_size: int, *, tie_word_embeddings: bool, **text: Any) -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": hidden_size,
            "vocab_size": vocab_size,
            "rope_parameters": _QWEN2_5_ROPE,
            "tie_word_embeddings": tie_word_embeddings,
            **text,
        },
        vision_config={**_QWEN2_5_VISION, "out_hidden_size": hidden_size},
        tie_word_embeddings=tie_word_embeddings,
        dtype="bfloat16",
    )


def _qwen3_vl(
    hidden_size: int, intermediate_size: int, vision: dict[str, Any], *, tie_word_embeddings: bool
) -> Qwen3VLConfig:
    return Qwen3VLConfig(
        text_config={
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "rope_parameters": _QWEN3_ROPE,
            "tie_word_embeddings": tie_word_embeddings,
        },
        vision_config={**_QWEN3_VISION, **vision, "out_hidden_size": hidden_size},
        tie_word_embeddings=tie_word_embeddings,
        dtype="bfloat16",
    )


def _known_configs() -> dict[str, PretrainedConfig]:
    """Shapes of public checkpoints, from the `config.json` of each repository on the hub."""
    return {
        "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_5_vl(
            2048,
            151936,
            tie_word_embeddings=True,
            intermediate_size=11008,
            num_hidden_layers=36,
            num_attention_heads=16,
            num_key_value_heads=2,
        ),
        "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2_5_vl(
            3584,
            152064,
            tie_word_embeddings=False,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
        ),
        "Qwen/Qwen3-VL-4B-Instruct": _qwen3_vl(
            2560,
            9728,
            {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]},
            tie_word_embeddings=True,
        ),
        "Qwen/Qwen3-VL-8B-Instruct": _qwen3_vl(
            4096,
            12288,
            {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]},
            tie_word_embeddings=False,
        ),
    }


KNOWN_SHAPES = tuple(_known_configs())


SUPPORTED_FAMILIES = ("qwen2_5_vl", "qwen3_vl")
QUANTIZED = ("awq", "gptq", "fp8", "int4", "int8", "4bit", "8bit", "gguf", "mlx", "nf4", "w4a16", "w8a8", "bnb")


def known_shape(path: str) -> str | None:
    """Find the public checkpoint a name stands for: "outputs/sft/qwen2_5_vl_7b_lora" is a Qwen2.5-VL-7B.

    Raises:
        ConfigError: the name is that of a quantized copy.
    """
    name = Path(path).name.lower()
    for known in KNOWN_SHAPES:
        words = re.findall(r"[a-z0-9]+", known[5:].lower().removesuffix("-instruct"))
        if re.search(r"[^a-z0-9]*".join(words) + r"(?![a-z0-9])", name):
            if found := set(QUANTIZED).intersection(re.split(r"[^a-z0-9]+", name)):
                raise _quantized(path, found.pop())
            return known
    return None


def _quantized(path: str, method: str) -> ConfigError:
    return ConfigError(
        f"model_name_or_path={path!r}: quantized weights ({method}) are not planned, and a full training cannot start "
        "from them; name the unquantized checkpoint, with load_in_4bit=true and use_peft=true for QLoRA."
    )


def _check_family(config: PretrainedConfig, path: str) -> None:
    """Refuse a model that would be planned as something that it is not.

    Raises:
        ConfigError: the family is not supported, or the weights are quantized.
    """
    if config.model_type not in SUPPORTED_FAMILIES:
        raise ConfigError(
            f"model_name_or_path={path!r}: model_type={config.model_type!r} is not planned; planned are "
            f"{', '.join(SUPPORTED_FAMILIES)}: Qwen2.5-VL and Qwen3-VL, dense, of any size."
        )
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        settings = quantization if isinstance(quantization, dict) else quantization.to_dict()
        raise _quantized(path, str(settings.get("quant_method", "of an unknown kind")))


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: the one that a folder holds, or a new one.

    Attributes:
        folder: Where it lies.
        settings: Keys and values of `PeftArguments`, for a new one.
    """

    folder: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    def add_to(self, model: PreTrainedModel) -> PeftModel:
        """Put it on a model of the meta device, as training does.

        Raises:
            ConfigError: a module that `settings` name does not exist.
        """
        if self.folder:
            config = PeftConfig.from_pretrained(self.folder)
            config.inference_mode = False
        else:
            config = lora_config(model, PeftArguments(use_peft=True, **dict(self.settings)))
        # The adapter stays on the meta device, too.
        adapted: PeftModel = get_peft_model(model, config, low_cpu_mem_usage=True)
        return adapted


@dataclass(frozen=True, eq=False)
class ModelShape:
    """What is known of a model before its weights are there.

    Attributes:
        config: The transformers config.
        source: Where it was taken from, for the reader.
        adapter: The adapter that the path holds, if it is an adapter's folder.
    """

    config: PretrainedConfig
    source: str
    adapter: Adapter | None = None


@functools.lru_cache
def load_shape(path: str) -> ModelShape:
    """Find a model's shape without a network: its folder's `config.json`, or the table of public checkpoints.

    Raises:
        ConfigError: the path is no folder with a config, and its name stands for no known checkpoint.
    """
    folder = Path(path)
    base = adapter_base(path) if folder.is_dir() else None  # a name alone would be asked of the hub
    if base is not None:
        shape = load_shape(base)
        return ModelShape(shape.config, f"the adapter {path} on {shape.source}", Adapter(folder=path))
    if (folder / "config.json").is_file():
        return ModelShape(_read_config(folder, path), str(folder / "config.json"))
    known = known_shape(path)
    if known is None:
        raise ConfigError(
            f"model_name_or_path={path!r}: no config.json there, and the name stands for none of the known models "
            f"and sizes ({', '.join(KNOWN_SHAPES)}); give --shape one of them, or a folder with the config.json of a "
            "Qwen2.5-VL or Qwen3-VL of another size."
        )
    if path == known:
        return ModelShape(_known_configs()[known], f"known shape of {known}")
    if "lora" in Path(path).name.lower():
        source = f"known shape of {known} with an adapter of the default settings, by the name {path}"
        return ModelShape(_known_configs()[known], source, Adapter())
    return ModelShape(_known_configs()[known], f"known shape of {known}, by the name {path}")


def _read_config(folder: Path, path: str) -> PretrainedConfig:
    """Read a folder's `config.json`. Raises `ConfigError` if it is none, or of a model that is not planned."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:  # damaged, or a family that transformers does not know
        cause = " ".join(str(error).split())[:200]
        raise ConfigError(f"{folder / 'config.json'}: cannot be used ({cause}); copy the checkpoint again.") from error
    _check_family(config, path)
    return config


def vision_factor(config: PretrainedConfig) -> int:
    """Side in pixels of the square that becomes one vision token: patch size x spatial merge size."""
    return int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)


def video_grid(config: PretrainedConfig, num_frames: int, max_pixels: int) -> tuple[int, int, int]:
    """Lay out the largest video of a run in patches (temporal, height, width).

    Frames are laid out as one row of vision tokens: the count is what matters here, and it is the largest that
    `max_pixels` allows, for whatever aspect ratio.
    """
    vision = config.vision_config
    tokens_per_frame = max(1, max_pixels // vision_factor(config) ** 2)
    pairs = -(-num_frames // vision.temporal_patch_size)
    return pairs, vision.spatial_merge_size, vision.spatial_merge_size * tokens_per_frame


def video_tokens(config: PretrainedConfig, grid: tuple[int, int, int]) -> int:
    """Count the vision tokens of one video in the language model's sequence."""
    return int(grid[0] * grid[1] * grid[2] // config.vision_config.spatial_merge_size**2)


def with_depth(config: PretrainedConfig, depth: int) -> PretrainedConfig:
    """Copy a config with `depth` layers in the language model and in the vision tower, all of them alike."""
    values = config.to_dict()
    text, vision = values["text_config"], values["vision_config"]
    text["num_hidden_layers"], vision["depth"] = depth, depth
    text.pop("layer_types", None)  # derived from the number of layers
    if "fullatt_block_indexes" in vision:  # windows change the number of attention calls, not the memory they keep
        vision["fullatt_block_indexes"] = list(range(depth))
    if "deepstack_visual_indexes" in vision:
        vision["deepstack_visual_indexes"] = list(range(len(vision["deepstack_visual_indexes"])))
    return type(config).from_dict(values)


def build_meta_model(
    config: PretrainedConfig, *, dtype: torch.dtype, attn_implementation: str = "sdpa"
) -> PreTrainedModel:
    """Build a model on the meta device: its parameters have shapes and no memory."""
    config = copy.deepcopy(config)  # building writes the type into it
    with torch.device("meta"), no_init_weights():
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation=attn_implementation
        )
    model.tie_weights()
    return model


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model, tied ones once: how many, and in bytes of the type they are held in."""

    total: int
    trainable: int
    bytes: int
    trainable_bytes: int
    language_trainable: int
    adapter: int = 0


def count_parameters(model: torch.nn.Module) -> ParameterCount:
    """Count the parameters of a model, on the meta device or real."""
    named = list(model.named_parameters())
    trainable = [(name, p) for name, p in named if p.requires_grad]

    def count(parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> int:
        return sum(p.numel() for _, p in parameters)

    return ParameterCount(
        total=count(named),
        trainable=count(trainable),
        bytes=sum(p.numel() * p.element_size() for _, p in named),
        trainable_bytes=sum(p.numel() * p.element_size() for _, p in trainable),
        language_trainable=count((name, p) for name, p in trainable if belongs_to(name, "language_model")),
        adapter=count((name, p) for name, p in named if is_adapter_weight(name)),
    )
