"""Loading a model and its processor, freezing parts of it, and the attention implementation that serves it."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from video_thinker.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

logger = logging.getLogger(__name__)

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
ATTENTION_IMPLEMENTATIONS = ("auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
FREEZABLE = {"vision_tower": "visual.", "merger": "visual.merger.", "language_model": "language_model."}
LOCAL_FOLDERS = ("runs", "outputs", "data", "checkpoints")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def resolve_attn_implementation(name: str) -> str:
    """Choose the attention implementation, and say which one it is.

    "auto" is FlashAttention-2 when `flash_attn` is importable and a GPU is there, else SDPA.

    Raises:
        ConfigError: the name is unknown, or needs `flash_attn` and it is not installed.
    """
    if name not in ATTENTION_IMPLEMENTATIONS:
        raise ConfigError(
            f"attn_implementation={name!r} is unknown; choose one of {', '.join(ATTENTION_IMPLEMENTATIONS)}."
        )
    has_flash = importlib.util.find_spec("flash_attn") is not None
    if name == "flash_attention_2" and not has_flash:
        raise ConfigError(
            "attn_implementation='flash_attention_2' needs the package flash-attn, which is not installed; "
            "install the extra `flash-attn`, or use 'auto' or 'sdpa'."
        )
    if name != "auto":
        return name
    chosen = "flash_attention_2" if has_flash and torch.cuda.is_available() else "sdpa"
    why = "flash_attn and a GPU are there" if chosen != "sdpa" else "no flash_attn with a GPU here"
    logger.info("attn_implementation: auto -> %s (%s)", chosen, why)
    return chosen


def check_model_path(path: str) -> None:
    """Refuse a path that looks local and does not exist, before anything is loaded.

    Raises:
        ConfigError: no `config.json` at a path that cannot be a hub name (`owner/name`), or in a folder that exists.
    """
    folder = Path(path)
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1 or path.split("/")[0] in LOCAL_FOLDERS
    if (looks_local or folder.exists()) and not (folder / "config.json").is_file():
        raise ConfigError(
            f"model_name_or_path={path!r}: no config.json there; give a checkpoint folder (has the stage before this "
            "one been run?) or a hub name such as Qwen/Qwen2.5-VL-7B-Instruct."
        )


def load_processor(path: str) -> ProcessorMixin:
    """Load the processor that belongs to a checkpoint.

    Raises:
        ConfigError: nothing can be loaded from `path`, or the checkpoint has no video processor, so it is not a
            video-language model.
    """
    check_model_path(path)
    try:
        processor = AutoProcessor.from_pretrained(path)
    except OSError as error:
        cause = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"model_name_or_path={path!r}: neither a folder here nor a model the hub gave ({cause})."
        ) from error
    if not hasattr(processor, "video_processor"):
        raise ConfigError(f"model_name_or_path={path!r}: its {type(processor).__name__} has no video processor.")
    return processor


def model_init_kwargs(dtype: str, attn_implementation: str) -> dict[str, str]:
    """Build the keyword arguments of `from_pretrained` for a config's `dtype` and `attn_implementation`.

    Raises:
        ConfigError: either value is unknown.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is unknown; choose one of {', '.join(DTYPES)}.")
    return {"dtype": dtype, "attn_implementation": resolve_attn_implementation(attn_implementation)}


def load_model(path: str, *, dtype: str = "auto", attn_implementation: str = "auto") -> PreTrainedModel:
    """Load a video-language model.

    Raises:
        ConfigError: the path holds no checkpoint, or an option is unknown.
    """
    check_model_path(path)
    return AutoModelForImageTextToText.from_pretrained(path, **model_init_kwargs(dtype, attn_implementation))


def freeze(model: PreTrainedModel, parts: list[str]) -> int:
    """Stop gradients of the named parts of a model: "vision_tower" (with its merger), "merger", "language_model".

    Returns:
        The number of parameters that stay trainable.

    Raises:
        ConfigError: a part is unknown or the model has no such parameters.
    """
    for part in parts:
        if part not in FREEZABLE:
            raise ConfigError(f"freeze: {part!r} is unknown; choose from {', '.join(FREEZABLE)}.")
        matched = [p for name, p in model.named_parameters() if FREEZABLE[part] in name]
        if not matched:
            raise ConfigError(f"freeze: {type(model).__name__} has no parameters named like {FREEZABLE[part]!r}.")
        for parameter in matched:
            parameter.requires_grad_(False)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    logger.info("trainable parameters: %s of %s (frozen: %s)", f"{trainable:,}", f"{total:,}", parts or "nothing")
    return trainable


def vision_token_ids(processor: ProcessorMixin) -> list[int]:
    """List the ids a policy must never sample: one sampled video pad has no pixels behind it and breaks scoring."""
    vocabulary = processor.tokenizer.get_vocab()
    return sorted(vocabulary[token] for token in VISION_TOKENS if token in vocabulary)
