"""What a value of a key must be: rules that stand in the annotation of a dataclass field.

fps: Annotated[float, above(0)] = field(default=2.0, …)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Rule:
    """A test of a value beyond its type. `words` go after "must be" and the type: "a number above 0"."""

    holds: Callable[[Any], bool]
    words: str
    choices: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic apply the rule after it has checked the type."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        if not self.holds(value):
            raise ValueError(self.words)
        return value


MOST = 2**32
"""No count and no number of seconds of a config may be larger: further on they overflow tensors and clocks."""


def is_too_large(name: str, value: Any) -> bool:
    """Say whether a count or a number of seconds, or one in a list, is beyond any sense."""
    if isinstance(value, list):
        return any(is_too_large(name, one) for one in value)
    kinds = int | float if name.endswith("_s") else int
    return isinstance(value, kinds) and abs(value) > MOST


def above(least: float) -> Rule:
    """A number larger than `least`."""
    return Rule(lambda value: value > least, f"above {least:g}")


def at_least(least: float) -> Rule:
    """A number not smaller than `least`."""
    return Rule(lambda value: value >= least, f"of at least {least:g}")


def between(least: float, most: float) -> Rule:
    """A number from `least` to `most`, both included."""
    return Rule(lambda value: least <= value <= most, f"from {least} to {most}")


def below(least: float, limit: float) -> Rule:
    """A number from `least` to `limit`, which itself is excluded."""
    return Rule(lambda value: least <= value < limit, f"from {least:g} to below {limit:g}")


def above_to(limit: float, most: float) -> Rule:
    """A number from `limit`, which itself is excluded, to `most`."""
    return Rule(lambda value: limit < value <= most, f"above {limit:g} and at most {most:g}")


def one_of(*choices: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: value in choices, f"one of {', '.join(choices)}", choices)


Count = Annotated[int, at_least(1)]
CountOrZero = Annotated[int, at_least(0)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Share = Annotated[float, between(0, 1)]
Seed = Annotated[int, between(0, 2**32 - 1)]

DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTION_IMPLEMENTATIONS = ("auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
Dtype = Annotated[str, one_of(*DTYPES)]
Attention = Annotated[str, one_of(*ATTENTION_IMPLEMENTATIONS)]
Part = Annotated[str, one_of("vision_tower", "merger", "language_model")]
PromptStyleName = Annotated[str, one_of("trace", "trace_concise", "plain")]
VideoBackend = Annotated[str, one_of("auto", "pyav", "torchcodec", "decord")]

_STEPS = Rule(
    lambda value: 0 < value < 1 or (value >= 1 and float(value).is_integer()),
    "above 0: a whole number of steps, or below 1 as a share of all steps",
)
_COUNT, _ZERO, _NOT_NEGATIVE, _SHARE = at_least(1), at_least(0), at_least(0), between(0, 1)
_SEED = between(0, 2**32 - 1)

_LOG_LEVEL = Annotated[str, one_of("detail", "debug", "info", "warning", "error", "critical", "passive")]

LIBRARY_TYPES: dict[str, Any] = {
    "sft_config.loss_type": Annotated[str, one_of("nll", "dft", "chunked_nll")],
    "grpo_config.loss_type": Annotated[
        str, one_of("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
    ],
    "scale_rewards": bool | Annotated[str, one_of("group", "batch", "none")],
    "importance_sampling_level": Annotated[str, one_of("token", "sequence")],
    "multi_objective_aggregation": Annotated[str, one_of("sum_then_normalize", "normalize_then_sum")],
    "vllm_importance_sampling_mode": Annotated[
        str, one_of("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
    ],
    "vllm_mode": Annotated[str, one_of("server", "colocate")],
    "vllm_model_impl": Annotated[str, one_of("vllm", "transformers")],
    "truncation_mode": Annotated[str, one_of("keep_start", "keep_end")],
    "packing_strategy": Annotated[str, one_of("bfd", "bfd_split", "wrapped")],
    "train_sampling_strategy": Annotated[str, one_of("random", "sequential", "group_by_length", "batch_rebalance")],
    "log_level": _LOG_LEVEL,
    "log_level_replica": _LOG_LEVEL,
    "include_num_input_tokens_seen": bool | Annotated[str, one_of("all", "non_padding", "no")],
    "dataloader_multiprocessing_context": Annotated[str, one_of("fork", "spawn", "forkserver")] | None,
    "ddp_backend": Annotated[str, one_of("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl")] | None,
    "fsdp": bool | str | None,
}
"""Types of keys whose annotation leaves out what is allowed; a key of two libraries is named with its module."""

LIBRARY_RULES: dict[str, Rule] = {
    "max_steps": Rule(
        lambda value: value == -1 or value >= 1, "of at least 1, or -1 (as many as num_train_epochs has)"
    ),
    "num_train_epochs": above(0),
    "learning_rate": above(0),
    "weight_decay": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "adam_beta1": below(0, 1),
    "adam_beta2": below(0, 1),
    "adam_epsilon": above(0),
    "label_smoothing_factor": below(0, 1),
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "logging_steps": _STEPS,
    "save_steps": _STEPS,
    "eval_steps": _STEPS,
    "eval_delay": _NOT_NEGATIVE,
    "save_total_limit": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "dataloader_num_workers": _ZERO,
    "dataloader_prefetch_factor": _COUNT,
    "dataset_num_proc": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
    "ddp_timeout": _COUNT,
    "seed": _SEED,
    "data_seed": _SEED,
    "neftune_noise_alpha": _NOT_NEGATIVE,
    "router_aux_loss_coef": _NOT_NEGATIVE,
    "max_length": _COUNT,
    "num_generations": at_least(2),
    "num_generations_eval": _COUNT,
    "max_completion_length": _COUNT,
    "generation_batch_size": _COUNT,
    "steps_per_generation": _COUNT,
    "num_iterations": _COUNT,
    "temperature": above(0),
    "top_p": above_to(0, 1),
    "top_k": _ZERO,
    "min_p": _SHARE,
    "repetition_penalty": above(0),
    "beta": _NOT_NEGATIVE,
    "epsilon": above(0),
    "epsilon_high": above(0),
    "delta": above(0),
    "sapo_temperature_neg": above(0),
    "sapo_temperature_pos": above(0),
    "ref_model_mixup_alpha": _SHARE,
    "ref_model_sync_steps": _COUNT,
    "top_entropy_quantile": above_to(0, 1),
    "num_completions_to_print": _ZERO,
    "vllm_server_port": between(1, 65535),
    "vllm_group_port": between(1, 65535),
    "vllm_server_timeout": above(0),
    "vllm_gpu_memory_utilization": above_to(0, 1),
    "vllm_max_model_length": _COUNT,
    "vllm_tensor_parallel_size": _COUNT,
}
"""Rules for keys of TRL and Transformers where another value fails late, or trains nonsense without a word."""
