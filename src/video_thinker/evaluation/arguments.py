"""The keys of `video-thinker eval`, and what its figures depend on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml

from video_thinker.config import ModelArguments, VideoArguments, check_choice
from video_thinker.data.readers import resolve_backend
from video_thinker.errors import ConfigError
from video_thinker.generation.arguments import AnswerArguments
from video_thinker.generation.controls import CONTROLS
from video_thinker.generation.engine import Sampling
from video_thinker.keys.rules import Count, CountOrZero, NotNegative, Seed, Share, above_to
from video_thinker.models.fingerprint import model_fingerprint
from video_thinker.models.loading import resolve_attn_implementation
from video_thinker.prompts import PROMPT_STYLES


@dataclass
class EvalArguments(AnswerArguments):
    """Which splits are evaluated, and how completions are drawn."""

    output_dir: str = field(metadata={"help": "Folder for predictions, metrics.json and manifest.json."})
    splits: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Name -> items file (JSON or JSONL), e.g. {id: a.json, ood: b.json}."}
    )
    video: list[str] = field(
        default_factory=lambda: ["real"], metadata={"help": "What the model sees: real, blank, shuffled, none."}
    )
    num_samples: Count | None = field(default=None, metadata={"help": "Only the first items of each split."})
    batch_size: Count = field(default=8, metadata={"help": "Prompts answered at once."})
    max_new_tokens: Count = field(default=1024, metadata={"help": "Longest completion; a longer one is cut off."})
    temperature: NotNegative = field(default=0.0, metadata={"help": "0 is greedy."})
    top_p: Annotated[float, above_to(0, 1)] = field(
        default=1.0, metadata={"help": "Nucleus sampling; used if temperature is above 0."}
    )
    seed: Seed = field(default=0, metadata={"help": "Of sampling and of the shuffled frames."})
    max_failed: Share = field(
        default=0.01, metadata={"help": "Largest share of items without a completion before the exit code is 1."}
    )
    num_processes: CountOrZero = field(
        default=0, metadata={"help": "Processes that share the items; 0 is one per GPU, one without GPUs."}
    )
    process: CountOrZero | None = field(
        default=None,
        metadata={
            "help": "Answer only the share of this process, from 0, of num_processes; `score` then brings all together."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Drop the predictions that are in output_dir."})
    step_timeout_s: float = field(
        default=3600.0, metadata={"help": "Abort, saying where, when nothing moves for so many seconds; 0 is off."}
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot. Raises `ConfigError`."""
        super().__post_init__()
        self.splits = parse_splits(self.splits)
        self.video = [self.video] if isinstance(self.video, str) else list(dict.fromkeys(self.video))
        for control in self.video:
            check_choice("video", control, CONTROLS)
        if self.batch_size < 1 or (self.num_samples is not None and self.num_samples < 1):
            raise ConfigError(f"batch_size={self.batch_size}, num_samples={self.num_samples}: must be at least 1.")
        if not self.step_timeout_s >= 0:
            raise ConfigError(f"step_timeout_s={self.step_timeout_s}: must be at least 0, which is off.")
        if self.num_processes < 0:
            raise ConfigError(f"num_processes={self.num_processes}: must be at least 1, or 0 for one per GPU.")
        if self.process is not None and (self.overwrite or not 0 <= self.process < self.num_processes):
            raise ConfigError(
                f"process={self.process}, num_processes={self.num_processes}, overwrite={self.overwrite}: a process is "
                "one of 0 to num_processes - 1, and must not remove what the others have written."
            )
        self.generation = Sampling(self.max_new_tokens, self.temperature, self.top_p)


def parse_splits(splits: dict[str, Any] | str | None) -> dict[str, str]:
    """Read `splits`, a mapping from the config file or its YAML text from the command line.

    Raises:
        ConfigError: it is missing, no mapping of names to files, or a name cannot be a file name.
    """
    value = yaml.safe_load(splits) if isinstance(splits, str) else splits
    if not isinstance(value, dict) or not value:
        raise ConfigError(
            f"splits={splits!r}: must map names to items files, e.g. splits='{{id: data/eval/id/a.json}}'."
        )
    for name, path in value.items():
        # "." separates a split from its control in the keys of metrics.json, "/" would leave the folder.
        if not isinstance(name, str) or not isinstance(path, str) or not name or set(name) & set("./\\"):
            raise ConfigError(
                f"splits: {name!r}: {path!r} is not a name (without . / \\) with the path of an items file."
            )
    return value


def describe_settings(model_args: ModelArguments, video_args: VideoArguments, args: EvalArguments) -> dict[str, Any]:
    """List what every number depends on, flat; `batch_size` is not in it and may change between a run's parts."""
    check_choice("prompt_style", video_args.prompt_style, tuple(PROMPT_STYLES))
    style = PROMPT_STYLES[video_args.prompt_style]
    sampling = ("fps", "num_frames", "min_frames", "max_frames", "min_pixels", "max_pixels")
    settings = {
        **{name: getattr(video_args, name) for name in sampling},
        "video_backend": resolve_backend(video_args.video_backend),
        "prompt_style": video_args.prompt_style,
        "prompt_sha256": hashlib.sha256(repr(style).encode()).hexdigest(),
        **{name: getattr(args, name) for name in ("max_new_tokens", "temperature", "top_p")},
        "seed": args.seed,
    }
    if args.backend == "openai":
        from video_thinker.generation.openai import describe_server

        return {**settings, **describe_server(model_args, video_args, args, args.video)}
    return {
        "model_sha256": model_fingerprint(model_args.model_name_or_path),
        "dtype": model_args.dtype,
        "attn_implementation": resolve_attn_implementation(model_args.attn_implementation),
        **({"engine": args.engine} if args.engine != "local" else {}),
        **settings,
    }
