"""Loading a model or an adapter with its base, and the processor; freezing parts; the attention implementation."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from video_thinker.data.encode import SampleEncoder, build_encoder
from video_thinker.data.texts import SpecialTokens
from video_thinker.errors import ConfigError
from video_thinker.keys.rules import ATTENTION_IMPLEMENTATIONS, DTYPES
from video_thinker.memory import is_out_of_memory
from video_thinker.models.adapters import adapter_base, load_adapter
from video_thinker.models.names import check_model_name
from video_thinker.models.parts import PARTS, belongs_to, is_adapter_weight, num_parameters, parameter_table
from video_thinker.models.positions import PositionRule, use_released_positions
from video_thinker.models.weights import load_whole

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, ProcessorMixin, Trainer

    from video_thinker.config import VideoArguments

logger = logging.getLogger(__name__)

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


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


def check_model_path(path: str) -> str:
    """Refuse a path or hub name where no model is, before anything is loaded.

    Returns:
        The full checkpoint: `path` itself, or the base of the adapter that lies there.

    Raises:
        ConfigError: there is no checkpoint and no adapter, or not the base of the adapter.
    """
    _check_name(path, f"model_name_or_path={path!r}: ")
    base = adapter_base(path)
    if base is None:
        return path
    fix = f"; put its base there, or correct base_model_name_or_path in {Path(path) / 'adapter_config.json'}."
    _check_name(base, f"model_name_or_path={path!r} is an adapter on base_model_name_or_path={base!r}: ", fix)
    return base


def _check_name(name: str, subject: str, fix: str = ".") -> None:
    try:
        check_model_name(name)
    except ConfigError as error:
        raise ConfigError(f"{subject}{str(error).removesuffix('.')}{fix}") from None


def load_processor(path: str) -> ProcessorMixin:
    """Load the processor that belongs to a checkpoint; that of an adapter without one is its base's.

    Raises:
        ConfigError: nothing can be loaded from `path`, or the checkpoint has no video processor, so it is not a
            video-language model.
    """
    base = check_model_path(path)
    source = path if any((Path(path) / name).is_file() for name in PROCESSOR_FILES) else base
    try:
        processor: ProcessorMixin = AutoProcessor.from_pretrained(source)
    except OSError as error:
        raise _not_found(path, source, error) from error
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(path, "processor", error) from error
    if not hasattr(processor, "video_processor"):
        raise ConfigError(f"model_name_or_path={path!r}: its {type(processor).__name__} has no video processor.")
    return processor


def _unreadable(path: str, part: str, error: Exception) -> ConfigError:
    said = " ".join(str(error).split())[:200]
    return ConfigError(
        f"model_name_or_path={path!r}: its {part} cannot be loaded ({said}); is it a checkpoint of a supported family, "
        "with all files of its tokenizer and processor? Copy or download it again."
    )


def load_special_tokens(path: str) -> SpecialTokens:
    """Load what the texts of samples must not hold, from a checkpoint's tokenizer.

    Raises:
        ConfigError: as `load_processor`.
    """
    return SpecialTokens.of_tokenizer(load_processor(path).tokenizer)


def load_positions(path: str) -> PositionRule:
    """Read how a checkpoint, or an adapter's base, numbers its tokens.

    Raises:
        ConfigError: there is no such checkpoint, or its family is not supported.
    """
    base = check_model_path(path)
    try:
        config = AutoConfig.from_pretrained(base)
    except OSError as error:
        raise _not_found(path, base, error) from error
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(path, "config.json", error) from error
    return PositionRule.from_config(config)


def load_encoder(path: str, args: VideoArguments) -> SampleEncoder:
    """Load what turns samples into the inputs of a checkpoint or an adapter, without its weights.

    Raises:
        ConfigError: nothing can be loaded from `path`, its family is not supported, or the sampling does not fit it.
    """
    return build_encoder(load_processor(path), args, load_positions(path))


def _not_found(path: str, source: str, error: OSError) -> ConfigError:
    if is_out_of_memory(error):
        raise error
    what = "" if source == path else f"its base {source!r} is "
    cause = " ".join(str(error).split())[:200]
    return ConfigError(f"model_name_or_path={path!r}: {what}neither a folder here nor a model the hub gave ({cause}).")


def model_init_kwargs(dtype: str, attn_implementation: str) -> dict[str, str]:
    """Build the keyword arguments of `from_pretrained` for a config's `dtype` and `attn_implementation`.

    Raises:
        ConfigError: either value is unknown.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is unknown; choose one of {', '.join(DTYPES)}.")
    return {"dtype": dtype, "attn_implementation": resolve_attn_implementation(attn_implementation)}


def load_model(
    path: str,
    *,
    dtype: str = "auto",
    attn_implementation: str = "auto",
    trainable: bool = False,
    quantization_config: Any = None,
    init_kwargs: Mapping[str, Any] | None = None,
) -> PreTrainedModel | PeftModel:
    """Load a video-language model, or an adapter together with its base.

    Args:
        path: Folder or hub name of a checkpoint or an adapter.
        dtype: The weights' type; "auto" is that of the checkpoint.
        attn_implementation: One of `ATTENTION_IMPLEMENTATIONS`.
        trainable: Whether an adapter is loaded to go on with its training.
        quantization_config: Of transformers, or none.
        init_kwargs: More for `from_pretrained`: `model_init_kwargs` of a config.

    Raises:
        ConfigError: the path holds no checkpoint, an option is unknown or given twice, or the adapter does not fit its
            base.
        CheckpointError: tensors are missing, unexpected, of other shapes or not finite.
    """
    base = check_model_path(path)
    own = {**model_init_kwargs(dtype, attn_implementation), "quantization_config": quantization_config}
    given = dict(init_kwargs or {})
    if twice := sorted((own.keys() | {"torch_dtype"}) & given.keys()):
        raise ConfigError(
            f"model_init_kwargs has {', '.join(twice)}, which are set by keys of the config (dtype, "
            "attn_implementation, load_in_4bit), so that policy and reference agree; move them there."
        )
    try:
        where = f"model_name_or_path={path!r}" + ("" if base == path else f": its base {base!r}")
        model = load_whole(AutoModelForImageTextToText, base, where, **own, **given)
    except OSError as error:
        raise _not_found(path, base, error) from error
    use_released_positions(model)
    return model if base == path else load_adapter(model, path, trainable=trainable)


def freeze(model: PreTrainedModel | PeftModel, parts: list[str]) -> int:
    """Stop gradients of the named parts of a model: "vision_tower", "merger", "language_model" (with embeddings).

    Returns:
        The number of parameters that stay trainable.

    Raises:
        ConfigError: a part is unknown, the model has no such parameters, adapter weights lie in it (all of an adapter
            is trained), or nothing is left to train.
    """
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"freeze: {part!r} is unknown; choose from {', '.join(PARTS)}.")
        matched = {name: p for name, p in model.named_parameters() if belongs_to(name, part)}
        if not matched:
            raise ConfigError(f"freeze: {type(model).__name__} has no parameters of the part {part!r}.")
        adapter = [name for name, parameter in matched.items() if is_adapter_weight(name) and parameter.requires_grad]
        if adapter:
            raise ConfigError(
                f"freeze: {part!r} holds {len(adapter)} adapter weights ({adapter[0]}, …), and all weights of an "
                "adapter are trained; take the part out of freeze, or out of lora_parts and lora_modules_to_save."
            )
        for parameter in matched.values():
            parameter.requires_grad_(False)
    trainable = sum(num_parameters(p) for p in model.parameters() if p.requires_grad)
    if not trainable:
        raise ConfigError(f"freeze={parts}: nothing is left to train; take a part out.")
    return trainable


def prepare_training(trainer: Trainer, frozen_parts: list[str]) -> None:
    """Freeze parts of a trainer's model and print what is trained, once per run."""
    model: Any = trainer.model  # Transformers allows any module, and none
    freeze(model, frozen_parts)
    if trainer.is_world_process_zero():
        logger.info("what is trained:\n%s", parameter_table(model))


def vision_token_ids(processor: ProcessorMixin) -> list[int]:
    """List the ids a policy must never sample: one sampled video pad has no pixels behind it and breaks scoring."""
    vocabulary = processor.tokenizer.get_vocab()
    return sorted(vocabulary[token] for token in VISION_TOKENS if token in vocabulary)
