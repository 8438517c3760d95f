"""What samples and scores a rollout, made so that rows of one prompt share its work where model and config allow it."""

from __future__ import annotations

import functools
import logging
from typing import Any

from accelerate.utils import gather_object
from peft import PeftModel
from trl.models import unwrap_model_for_generation

from video_thinker.errors import ConfigError
from video_thinker.generation.engine import Engine
from video_thinker.generation.engine_client import ServerEngine, open_client
from video_thinker.generation.local import LocalEngine, find_unshared
from video_thinker.generation.sleep import OPTIONS, SleepingEngine, require_sleep_mode
from video_thinker.generation.vllm import VLLMEngine
from video_thinker.models.feature_cache import FeatureCache
from video_thinker.models.layers import SHARE_PREFILL_LAYERS, unshared_causes
from video_thinker.models.tower_calls import find_vision_model
from video_thinker.models.vision import FrozenFeatures
from video_thinker.training.loop.process_group import largest
from video_thinker.training.packing import use_packed_attention
from video_thinker.training.rollout import chunk_size
from video_thinker.training.scoring import Scorer

logger = logging.getLogger(__name__)


def share_work(trainer: Any, engine: Engine | None, scorer: Scorer | None) -> tuple[FrozenFeatures, Engine, Scorer]:
    """Make what computes features, what samples and what scores, so that they share work; those given are kept.

    Args:
        trainer: A `VideoGRPOTrainer` that knows its `sampling`.
        engine: Of the user; features are not shared with it.
        scorer: Of the user.
    """
    shared = shares_prompts(trainer)
    local = engine is None and trainer.args.engine == "local"
    features = make_features(trainer, shares_prompts=shared and local)
    engine = engine or make_engine(trainer, features, shares_prompts=shared)
    scorer = scorer or make_scorer(trainer, features)
    if scorer.shares_prefix:
        prepare_packing(trainer)
    return features, engine, scorer


def make_features(trainer: Any, *, shares_prompts: bool) -> FrozenFeatures:
    """Make what computes the features of a frozen tower once per rollout."""
    args = trainer.args
    return FrozenFeatures(
        find_vision_model(trainer.model),
        trainer.accelerator.autocast,
        cache=FeatureCache(args.feature_cache_dir, args.feature_cache_gib) if args.feature_cache_dir else None,
        enabled=args.share_vision and shares_prompts,
    )


def make_engine(trainer: Any, features: FrozenFeatures, *, shares_prompts: bool) -> Engine:
    """Make the engine that samples from the model that is trained.

    Raises:
        ConfigError: vLLM is not installed, the prompts' longest length is open, or the engine cannot sleep.
    """
    args = trainer.args
    if args.engine == "vllm":
        if args.max_prompt_length is None and args.engine_max_tokens is None:
            raise ConfigError(
                "engine=vllm reserves memory for the longest prompt, and max_prompt_length is null: name a number of "
                "tokens, or engine_max_tokens, which has the completion in it."
            )
        if args.engine_sleep:
            require_sleep_mode()
        engine = VLLMEngine(
            trainer.encoder.processor,
            checkpoint_of(trainer.model),
            max_tokens=args.engine_max_tokens or args.max_prompt_length + args.max_completion_length,
            dtype=str(trainer.model.dtype).removeprefix("torch."),
            temperature=args.temperature,
            open_model=functools.partial(open_for_generation, trainer),
            end_token_ids=trainer.eos_token_ids,
            gpu_memory_share=args.engine_gpu_memory_share,
            # the weights come from the trainer
            options={"load_format": "dummy", **(OPTIONS if args.engine_sleep else {}), **(args.engine_options or {})},
        )
        return SleepingEngine(engine) if args.engine_sleep else engine
    if args.engine_sleep:
        raise ConfigError(f"engine_sleep=true, but engine={args.engine} has no memory of its own: drop engine_sleep.")
    if args.engine == "server":
        return connect_engine(trainer)
    return LocalEngine(
        trainer.encoder.processor,
        open_model=functools.partial(open_for_generation, trainer),
        features=features,
        share_prompts=shares_prompts,
        end_token_ids=trainer.eos_token_ids,
        pad_to_multiple_of=trainer.pad_to_multiple_of,
    )


def connect_engine(trainer: Any) -> ServerEngine:
    """Connect with the server whose engine samples; it gets the weights after each step, from rank 0.

    Raises:
        ConfigError: the server has another model.
        EngineError: it is away.
    """
    model = trainer.model
    return ServerEngine(
        open_client(trainer.args, model.config, str(model.dtype).removeprefix("torch.")),
        trainer.encoder.processor,
        model.config.get_text_config().vocab_size,
        end_token_ids=trainer.eos_token_ids,
        open_model=functools.partial(open_for_generation, trainer),
        gather=lambda own: list(gather_object([own])),
        is_main=trainer.accelerator.is_main_process,
    )


def checkpoint_of(model: Any) -> str:
    """Name the folder or hub name that a model, or an adapter's base, was loaded from."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return str(base.config.name_or_path)


def make_scorer(trainer: Any, features: FrozenFeatures) -> Scorer:
    """Make the scorer with the sharing that the config asks for."""
    args = trainer.args
    return Scorer(
        find_vision_model(trainer.model),
        trainer.accelerator.autocast,
        features=features,
        share_prefix=args.share_prefix,
        max_tokens=args.max_tokens_per_forward,
        length_order=args.length_order,
        agree=functools.partial(largest, trainer.accelerator),
        on_packed=trainer.performance.meter.expect_packed,
    )


def prepare_packing(trainer: Any) -> None:
    """Register the attention of packed rows, and say where a micro-batch is too small to hold whole groups."""
    args = trainer.args
    chunk = chunk_size(args.per_device_train_batch_size, args.num_generations)
    if chunk < min(args.per_device_train_batch_size, args.num_generations):
        logger.warning(
            "per_device_train_batch_size=%d and num_generations=%d: only %d rows of a prompt stay together, so "
            "less is shared; take one that divides the other",
            args.per_device_train_batch_size,
            args.num_generations,
            chunk,
        )
    use_packed_attention(trainer.model, trainer.ref_model)


def shares_prompts(trainer: Any) -> bool:
    """Tell whether a prompt is read once for its completions; what keeps it from that is logged, if it was asked for.

    Args:
        trainer: A `VideoGRPOTrainer` that knows its `sampling`.
    """
    causes = [f"generation_kwargs has {cause}" for cause in find_unshared(trainer.sampling.options)]
    causes += unshared_causes(trainer.model.config, SHARE_PREFILL_LAYERS)
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3 and not trainer.args.ds3_gather_for_generation:
        causes.append("ds3_gather_for_generation is false")
    if causes and trainer.args.share_prefill:
        logger.warning("share_prefill is off: %s; so is the sharing of a frozen tower's features", ", ".join(causes))
    return trainer.args.share_prefill and not causes


def open_for_generation(trainer: Any, model: Any) -> Any:
    """Gather a sharded model's weights, and turn off what training needs and sampling does not."""
    return unwrap_model_for_generation(
        model,
        trainer.accelerator,
        gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
        gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
    )
