"""What a GRPO config says about sampling, and what does not go together, found before the first step."""

from __future__ import annotations

from typing import Any

from video_thinker.errors import ConfigError
from video_thinker.generation.engine import Sampling
from video_thinker.training.arguments import VideoGRPOConfig
from video_thinker.training.dynamic_sampling import check_dynamic_sampling
from video_thinker.training.steps import check_rows_for_grpo
from video_thinker.training.token_budget import check_budget


def sampling_settings(args: VideoGRPOConfig) -> Sampling:
    """Take out of a config how completions are drawn."""
    length: Any = args.max_completion_length  # TRL types it as optional and needs it
    options: Any = args.generation_kwargs or {}
    return Sampling(
        max_new_tokens=length,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        min_p=args.min_p,
        options={
            "repetition_penalty": args.repetition_penalty,
            "cache_implementation": args.cache_implementation,
            **options,
        },
    )


def check_settings(trainer: Any) -> None:
    """Refuse settings that do not go together.

    Args:
        trainer: A `VideoGRPOTrainer` about to train.

    Raises:
        ConfigError: naming them.
    """
    args = trainer.args
    check_dynamic_sampling(args)
    adaptive = getattr(trainer, "use_adaptive_entropy", False)
    check_budget(args, adaptive_entropy=adaptive, aux_loss=getattr(trainer, "aux_loss_enabled", False))
    if args.feature_cache_dir and not trainer.features.is_used:
        raise ConfigError(
            f"feature_cache_dir={args.feature_cache_dir!r}: features are kept of a frozen tower only; add `freeze: "
            "[vision_tower, merger]` and leave share_vision and share_prefill on, or remove feature_cache_dir."
        )
    check_rows_for_grpo(args, len(trainer.train_dataset), "train_dataset")
