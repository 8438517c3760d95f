"""LoRA and QLoRA: where adapters go, how they are found on disk and put on their base.

An adapter folder is what PEFT writes (`adapter_config.json`, `adapter_model.safetensors`); its config names the base
checkpoint. LoRA: Hu et al., arXiv 2106.09685; QLoRA (4-bit base, nf4, double quantization): Dettmers et al., arXiv
2305.14314.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper, NoMatchingPeftModuleError, load_peft_weights
from transformers import BitsAndBytesConfig
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import find_adapter_config_file

from video_thinker.config import PeftArguments, check_choice
from video_thinker.errors import ConfigError
from video_thinker.models.parts import PARTS, REFERENCE_ADAPTER, belongs_to, is_adapter_weight
from video_thinker.models.weights import check_finite, not_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def adapter_base(path: str) -> str | None:
    """Read which base checkpoint an adapter was trained on; `None` if there is no adapter at `path`.

    Raises:
        ConfigError: the adapter's config is damaged or does not name its base.
    """
    try:
        config_file = find_adapter_config_file(path)
    except OSError:  # no folder, and no name the hub could have: `check_model_path` says so
        return None
    if config_file is None:
        return None
    try:
        base = json.loads(Path(config_file).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (json.JSONDecodeError, AttributeError) as error:
        raise ConfigError(f"{config_file}: not an adapter's config ({error}); save the adapter again.") from error
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"{config_file}: base_model_name_or_path={base!r} does not say which checkpoint the adapter was trained "
            "on; write the folder or hub name of its base there."
        )
    return base


def check_peft_arguments(path: str, args: PeftArguments) -> None:
    """Refuse combinations that cannot train, before anything is loaded.

    Args:
        path: The checkpoint or adapter that training starts from.
        args: The settings.

    Raises:
        ConfigError: a new adapter on top of one, a 4-bit model without an adapter, or no bitsandbytes or GPU for it.
    """
    for part in args.lora_parts:
        check_choice("lora_parts", part, PARTS)
    is_adapter = adapter_base(path) is not None
    if is_adapter and args.use_peft:
        raise ConfigError(
            f"use_peft=true, but model_name_or_path={path!r} is an adapter, whose training goes on without that key; "
            f"drop use_peft, or start a new adapter on what `video-thinker merge {path} OUT` writes."
        )
    if not args.load_in_4bit:
        return
    if not (args.use_peft or is_adapter):
        raise ConfigError("load_in_4bit=true: 4-bit weights cannot be trained; set use_peft=true for QLoRA.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "load_in_4bit=true needs the package bitsandbytes, which is not installed; install the extra `qlora`, or "
            "set load_in_4bit=false for LoRA."
        )
    if not torch.accelerator.is_available():
        raise ConfigError("load_in_4bit=true needs a GPU, and none is visible here; set load_in_4bit=false for LoRA.")


def quantization_config(args: PeftArguments) -> BitsAndBytesConfig | None:
    """Build QLoRA's quantization of the language model's linear layers, or `None` without `load_in_4bit`."""
    if not args.load_in_4bit:
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=args.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=args.bnb_4bit_compute_dtype,
        llm_int8_skip_modules=[r"(.*\.)?visual", "lm_head"],  # for 4 bits, too; matched from a module's full name on
    )


def lora_config(model: PreTrainedModel | PeftModel, args: PeftArguments) -> LoraConfig | None:
    """Build the config of a new adapter on a model, or `None` without `use_peft`.

    Raises:
        ConfigError: a target or module to save does not exist in the model, or cannot be trained.
    """
    if not args.use_peft:
        return None
    if args.lora_modules_to_save:
        _check_modules_to_save(model, args.lora_modules_to_save)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=_target_modules(model, args),
        modules_to_save=args.lora_modules_to_save,
    )


def _named(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _target_modules(model: PreTrainedModel | PeftModel, args: PeftArguments) -> list[str]:
    """List the linear layers of the chosen parts; the output layer never gets an adapter."""
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not model.get_output_embeddings()
        and any(belongs_to(name, part) for part in args.lora_parts)
    ]
    wanted = args.lora_target_modules
    for target in wanted or []:
        if not any(_named(name, target) for name in linear):
            there = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise ConfigError(
                f"lora_target_modules: {target!r} is no linear layer of {type(model).__name__} in lora_parts="
                f"{args.lora_parts}; there are {', '.join(there) or 'none'}."
            )
    return [name for name in linear if wanted is None or any(_named(name, target) for target in wanted)]


def _check_modules_to_save(model: PreTrainedModel | PeftModel, wanted: list[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    is_tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    tied = {"lm_head", "embed_tokens"} if is_tied else set()
    for module in wanted:
        if not any(_named(name, module) for name in names):
            raise ConfigError(f"lora_modules_to_save: {type(model).__name__} has no module named {module!r}.")
        if module in tied:
            raise ConfigError(
                f"lora_modules_to_save: {module!r} is tied (embed_tokens and lm_head are one weight in this model), "
                "and a trained copy of one would part them; leave it out."
            )


def load_adapter(base: PreTrainedModel, path: str, *, trainable: bool = False) -> PeftModel:
    """Put an adapter on its base model.

    Args:
        base: The model, with the weights the adapter was trained on.
        path: The adapter's folder or hub name.
        trainable: Whether its training goes on.

    Raises:
        ConfigError: the adapter was made for another model: modules are missing or have other shapes.
        CheckpointError: its weights are not finite.
    """
    where = f"{path}: the adapter does not fit its base {base.name_or_path!r} ({type(base).__name__})"
    fix = "give the base it was trained on as base_model_name_or_path in its adapter_config.json."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a page of names that do not fit; the error below is short
            model = PeftModel.from_pretrained(
                base,
                path,
                is_trainable=trainable,
                autocast_adapter_dtype=not is_deepspeed_zero3_enabled(),  # as TRL for a new one: ZeRO-3 wants one type
                ignore_mismatched_sizes=True,
            )
    except NoMatchingPeftModuleError as error:
        raise ConfigError(f"{where}: {str(error)[:200]}; {fix}") from error
    weights = load_peft_weights(path, device="cpu")
    check_finite(f"{path}: the adapter", not_finite(weights.items()))
    saved = {name: tuple(weight.shape) for name, weight in weights.items()}
    there = {name: tuple(weight.shape) for name, weight in get_peft_model_state_dict(model).items()}
    wrong = [name for name in sorted(saved.keys() | there.keys()) if saved.get(name) != there.get(name)]
    if wrong:
        name = wrong[0]
        raise ConfigError(
            f"{where}: {len(wrong)} of {len(saved)} weights differ, the first {name}: {saved.get(name, 'none')} in the "
            f"adapter, {there.get(name, 'none')} on the base; {fix}"
        )
    return model


def prepare_reference_adapter(model: PreTrainedModel | PeftModel) -> None:
    """Adjust TRL's frozen copy of an adapter trained before, if there is one: the KL term's reference, the SFT policy.

    It gets the policy's type (TRL leaves float32, which ZeRO-3 cannot gather beside bfloat16), and no folder of its
    own in every checkpoint: a run that goes on makes it anew from what it started with.
    """
    if not isinstance(model, PeftModel) or REFERENCE_ADAPTER not in model.peft_config:
        return
    for name, parameter in model.named_parameters():
        if f".{REFERENCE_ADAPTER}." in name:
            policy = model.get_parameter(name.replace(f".{REFERENCE_ADAPTER}.", ".default."))
            parameter.data = parameter.data.to(policy.dtype)
    model.save_pretrained = functools.partial(  # type: ignore[method-assign]  # of this one model
        model.save_pretrained, selected_adapters=["default"]
    )


def whole_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Give a model's weights under the names of a checkpoint, with an adapter's part added.

    The model is left as it is: adding an adapter to the weights and taking it away again would change their last bits
    at every step. An adapter's reference copy, which the KL term reads, is no part of the policy.
    """
    if not isinstance(model, PeftModel):
        yield from model.named_parameters()
        return
    base = model.get_base_model()
    for name, parameter in base.named_parameters():
        owner, _, last = name.rpartition(".")
        if ".original_module." in name or ".modules_to_save." in name:
            continue
        parent, _, leaf = owner.rpartition(".")
        if leaf != "base_layer":
            if not is_adapter_weight(name):
                yield name, parameter
            continue
        layer: Any = base.get_submodule(parent)
        if last == "weight":
            adapters = [one for one in layer.active_adapters if one in layer.lora_A]
            parameter = sum((layer.get_delta_weight(one).to(parameter.dtype) for one in adapters), start=parameter)
        yield f"{parent}.{last}", parameter
    for name, module in base.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            saved: Any = module.modules_to_save
            for last, parameter in saved[module.active_adapter].named_parameters():
                yield f"{name}.{last}", parameter
