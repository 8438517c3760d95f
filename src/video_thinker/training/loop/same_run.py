"""What must be the same when a run goes on in another sitting: every setting that decides a step, and the data.

A key is fixed unless it is listed here. So a key of a new version of TRL is fixed, too: refusing a change that would do
no harm costs a question, and going on with other numbers costs the run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_thinker.config import DataArguments
from video_thinker.data.conversation import media_path
from video_thinker.errors import ConfigError, DataError
from video_thinker.runs.files import write_text
from video_thinker.runs.record import SAMPLES_FILE
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)

FREE = frozenset(
    ("output_dir", "logging_dir", "resume", "resume_from_checkpoint", "overwrite", "report_to", "run_name", "project")
    + ("local_rank", "log_level", "log_level_replica", "log_on_each_node", "disable_tqdm", "do_train", "do_eval")
    + ("do_predict", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics", "debug")
    + (
        "push_to_hub",
        "hub_token",
        "hub_private_repo",
        "hub_model_id",
        "hub_strategy",
        "hub_always_push",
        "hub_revision",
    )
)
"""Where a run lies and who is told about it: may change without a word."""

HONOURED = frozenset(
    ("media_root", "media_timeout_s", "media_cache_mib", "frame_cache_dir", "frame_cache_gib", "feature_cache_dir")
    + ("feature_cache_gib", "max_decode_errors", "eval_file", "max_length", "max_prompt_length", "step_timeout_s")
    + ("canary_steps", "canary_min_gap", "telemetry", "peak_tflops", "log_completions_steps", "num_logged_completions")
    + (
        "log_completions",
        "log_multimodal",
        "num_completions_to_print",
        "log_unique_prompts",
        "log_completions_hub_repo",
    )
    + ("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "attn_implementation")
    + (
        "include_num_input_tokens_seen",
        "include_for_metrics",
        "eval_strategy",
        "eval_steps",
        "eval_delay",
        "eval_on_start",
    )
    + ("per_device_eval_batch_size", "num_generations_eval", "eval_accumulation_steps", "eval_do_concat_batches")
    + ("eval_use_gather_object", "batch_eval_metrics", "prediction_loss_only", "bf16_full_eval", "fp16_full_eval")
    + (
        "save_strategy",
        "save_steps",
        "save_on_each_node",
        "save_total_limit",
        "save_only_model",
        "load_best_model_at_end",
    )
    + ("metric_for_best_model", "greater_is_better", "enable_jit_checkpoint", "restore_callback_states_from_checkpoint")
    + ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "dataloader_in_order")
    + ("dataloader_multiprocessing_context", "ddp_timeout", "ddp_backend", "ddp_bucket_cap_mb", "ddp_broadcast_buffers")
    + ("max_grad_norm", "max_tokens_per_forward", "torch_empty_cache_steps", "gradient_checkpointing", "share_prefix")
    + ("gradient_checkpointing_kwargs", "activation_checkpointing", "activation_checkpointing_kwargs", "use_cache")
    + ("activation_offloading", "torch_compile", "torch_compile_backend", "torch_compile_mode", "tf32", "use_cpu")
    + ("ignore_data_skip", "full_determinism", "dataset_num_proc")
)
"""Taken from the config in every sitting: a change holds from there on, and the log says so."""

LENGTH = ("num_train_epochs", "max_steps")
"""How long a run is: may change, and then the schedule of the learning rate does, too."""

OPTIMIZER = frozenset(
    ("learning_rate", "weight_decay", "optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2")
    + ("adam_epsilon", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio")
)
"""In the optimizer's state of a checkpoint: a change would be read, and not used."""

MEDIA_FIELDS = 3
"""Of a media file in `samples.jsonl`: path, size, time."""

CONSTANT_SCHEDULES = ("constant", "constant_with_warmup")


def check_same_settings(checkpoint: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the settings of an earlier sitting (`run_config`) with those of this one.

    Raises:
        ConfigError: one that decides what a step computes is another.
    """
    changed = {
        key: (earlier[key], value)
        for key, value in now.items()
        if key in earlier and key not in FREE and earlier[key] != value
    }
    refused = [key for key in changed if key not in HONOURED and key not in LENGTH]
    refused.sort(key=lambda key: key != "world_size")  # other keys follow from it
    for key in refused[:1]:
        old, new = changed[key]
        others = f" (also changed: {', '.join(refused[1:])})" if refused[1:] else ""
        why = "it decides what a step sees or computes"
        if key in OPTIMIZER:
            why = "the optimizer's state in the checkpoint holds it, so that the new value would not be used"
        raise ConfigError(
            f"{checkpoint} was made with {key}={old!r}, this run has {key}={new!r}{others}; {why}: the run cannot "
            f"continue with it. Keep {key}, or start a run of its own: another output_dir, with "
            f"model_name_or_path={checkpoint}."
        )
    for key, (old, new) in changed.items():
        if key in LENGTH:
            _say_what_length_changes(checkpoint, key, old, new, str(now.get("lr_scheduler_type")))
        else:
            logger.warning("continuing with %s=%r; up to %s it was %r", key, new, checkpoint.name, old)


def _say_what_length_changes(checkpoint: Path, key: str, old: Any, new: Any, schedule: str) -> None:
    if schedule in CONSTANT_SCHEDULES:
        logger.warning(
            "continuing with %s=%r; up to %s it was %r (the schedule is constant)", key, new, checkpoint.name, old
        )
        return
    logger.warning(
        "continuing with %s=%r; up to %s it was %r: from here on the learning rate follows the %s schedule of the "
        "new length. The steps before followed that of the old one, so the result is not that of a run of this length "
        "from the start.",
        key,
        new,
        checkpoint.name,
        old,
        schedule,
    )


def describe_samples(samples: Sequence[VideoSample], media_root: str | None) -> list[dict[str, Any]]:
    """Describe the samples that a run trains on, in their order: a hash of what is said, and what files they show.

    One row: `{"id": "q3", "hash": "5f0c…", "media": [["a.mp4", 48213, 1719830400.0]]}`, a file with its size in bytes
    (`null` if it is not there) and the time of its last change.
    """
    files: dict[Path, tuple[int | None, float | None]] = {}
    rows = []
    for sample in samples:
        content = dataclasses.asdict(sample)
        del content["location"]
        text = json.dumps(content, sort_keys=True, ensure_ascii=True)
        media = []
        for one in sample.media:
            path = media_path(one, media_root)
            if path not in files:
                files[path] = _size_and_time(path)
            media.append([one.path, *files[path]])
        rows.append({"id": sample.id, "hash": hashlib.sha256(text.encode()).hexdigest()[:16], "media": media})
    return rows


def _size_and_time(path: Path) -> tuple[int | None, float | None]:
    try:
        found = path.stat()
    except OSError:
        return None, None
    return found.st_size, found.st_mtime


def check_same_samples(
    args: Any, checkpoint: Path | None, samples: Sequence[VideoSample], data_args: DataArguments
) -> None:
    """Write down what a run trains on; of a run that goes on, compare it with what its earlier sitting wrote.

    Args:
        args: The training arguments; the first process does this.
        checkpoint: What the run continues from, if it does.
        samples: What it trains on, in the order of the file.
        data_args: Say where they are from.

    Raises:
        DataError: naming the first sample that is another one, or shows another file.
    """
    if args.process_index != 0:
        return
    train_file = data_args.train_file or "train_dataset"
    path = Path(args.output_dir) / SAMPLES_FILE
    rows = describe_samples(samples, data_args.media_root)
    if checkpoint is None:
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    if not path.is_file():
        logger.warning("%s is missing: the data of the earlier sitting are not compared with these", path)
        return
    earlier = _read_earlier(path)
    fix = "Give the data it was begun with, or choose another output_dir."
    where = f"{train_file}: not the data that {checkpoint} was trained on"
    for number, (old, new) in enumerate(zip(earlier, rows, strict=False)):
        if (old["id"], old["hash"]) != (new["id"], new["hash"]):
            what = "has other content" if old["id"] == new["id"] else f"was {old['id']!r}"
            raise DataError(
                f"{where}: sample {number + 1}, {new['id']!r} ({samples[number].location}), {what}; "
                f"{len(earlier)} samples then, {len(rows)} now. {fix}"
            )
        for before, after in zip(old["media"], new["media"], strict=True):
            if before[1] != after[1]:
                raise DataError(
                    f"{where}: {after[0]} of sample {new['id']!r} ({samples[number].location}) had {before[1]} bytes, "
                    f"now {after[1]}. {fix}"
                )
    if len(earlier) != len(rows):
        longer = earlier if len(earlier) > len(rows) else rows
        first = longer[min(len(earlier), len(rows))]["id"]
        raise DataError(f"{where}: {len(earlier)} samples then, {len(rows)} now, from {first!r} on. {fix}")
    _warn_of_touched_files(earlier, rows)


def _read_earlier(path: Path) -> list[dict[str, Any]]:
    """Read what `describe_samples` has written.

    Raises:
        DataError: it is damaged.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(
            set(row) >= {"id", "hash", "media"} and all(len(one) == MEDIA_FIELDS for one in row["media"])
            for row in rows
        ):
            raise ValueError("a row has not the fields id, hash and media")
    except (ValueError, TypeError) as error:  # no JSON, no UTF-8, no rows
        raise DataError(
            f"{path}: is damaged ({' '.join(str(error).split())}); remove it to continue without comparing the data."
        ) from error
    return rows


def _warn_of_touched_files(earlier: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    touched = {
        after[0]
        for old, new in zip(earlier, rows, strict=True)
        for before, after in zip(old["media"], new["media"], strict=True)
        if before[2] != after[2]
    }
    if touched:
        logger.warning(
            "%d media files were written anew since the run began, with the same size (the first: %s); if their "
            "pictures are others, this is not the same run",
            len(touched),
            min(touched),
        )
