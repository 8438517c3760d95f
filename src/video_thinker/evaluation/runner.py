"""Evaluate a model on splits of items. `video-thinker eval CONFIG [key=value …]`.

Every prediction is on disk before the next batch begins; the same command takes an interrupted run up again and ends
with the same figures. Batches are cut from the split's own order, before anything is known about earlier runs, so that
a sample always meets the same neighbors and the same random numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from video_thinker.config import ModelArguments, VideoArguments, check_choice, parse_config
from video_thinker.data.annotations import load_samples
from video_thinker.data.video import resolve_backend
from video_thinker.errors import ConfigError, DecodeError
from video_thinker.evaluation.backend import Backend, GenerationSettings, make_backend
from video_thinker.evaluation.controls import CONTROLS, apply_control
from video_thinker.evaluation.metrics import Graded, Prediction, compute_metrics, grade, mean
from video_thinker.evaluation.predictions import (
    PredictionFile,
    file_sha256,
    model_fingerprint,
    open_output_dir,
    read_json,
    write_json,
)
from video_thinker.evaluation.tables import print_metrics
from video_thinker.modeling import check_model_path
from video_thinker.prompts import PROMPT_STYLES
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)


@dataclass
class EvalArguments:
    """Which splits are evaluated, and how completions are drawn."""

    output_dir: str = field(metadata={"help": "Folder for predictions, metrics.json and manifest.json."})
    splits: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Name -> items file (JSON or JSONL), e.g. {id: a.json, ood: b.json}."}
    )
    video: list[str] = field(
        default_factory=lambda: ["real"], metadata={"help": "What the model sees: real, blank, shuffled, none."}
    )
    num_samples: int | None = field(default=None, metadata={"help": "Only the first items of each split."})
    batch_size: int = field(default=8, metadata={"help": "Prompts answered at once."})
    max_new_tokens: int = field(default=1024, metadata={"help": "Longest completion; a longer one is cut off."})
    temperature: float = field(default=0.0, metadata={"help": "0 is greedy."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling; used if temperature is above 0."})
    seed: int = field(default=0, metadata={"help": "Of sampling and of the shuffled frames."})
    max_failed: float = field(
        default=0.01, metadata={"help": "Largest share of items without a completion before the exit code is 1."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Drop the predictions that are in output_dir."})

    def __post_init__(self) -> None:
        """Check what argparse cannot. Raises `ConfigError`."""
        self.splits = parse_splits(self.splits)
        self.video = [self.video] if isinstance(self.video, str) else list(dict.fromkeys(self.video))
        for control in self.video:
            check_choice("video", control, CONTROLS)
        if self.batch_size < 1 or (self.num_samples is not None and self.num_samples < 1):
            raise ConfigError(f"batch_size={self.batch_size}, num_samples={self.num_samples}: must be at least 1.")
        self.generation = GenerationSettings(self.max_new_tokens, self.temperature, self.top_p)


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


def result_key(split: str, control: str) -> str:
    """Name of a result in metrics.json and of its predictions file: "id", or "id.blank" under a control."""
    return split if control == "real" else f"{split}.{control}"


def describe_settings(model_args: ModelArguments, video_args: VideoArguments, args: EvalArguments) -> dict[str, Any]:
    """List what every number depends on, flat; `batch_size` is not in it and may change between a run's parts."""
    check_choice("prompt_style", video_args.prompt_style, tuple(PROMPT_STYLES))
    style = PROMPT_STYLES[video_args.prompt_style]
    sampling = ("fps", "num_frames", "min_frames", "max_frames", "min_pixels", "max_pixels")
    return {
        "model_sha256": model_fingerprint(model_args.model_name_or_path),
        "dtype": model_args.dtype,
        "attn_implementation": model_args.attn_implementation,
        **{name: getattr(video_args, name) for name in sampling},
        "video_backend": resolve_backend(video_args.video_backend),
        "prompt_style": video_args.prompt_style,
        "prompt_sha256": hashlib.sha256(repr(style).encode()).hexdigest(),
        **dataclasses.asdict(args.generation),
        "seed": args.seed,
    }


def predict_batch(
    backend: Backend, batch: Sequence[VideoSample], control: str, *, seed: int, wanted: set[str] | None = None
) -> list[Prediction]:
    """Answer a batch under a control. A sample whose media cannot be read gives a failed prediction.

    If none of the ids in `wanted` can be read, only these failures are given and the model is not asked.
    """
    predictions: dict[str, Prediction] = {}
    prompts = []
    for sample in batch:
        try:
            prompts.append(backend.load_prompt(sample))
        except DecodeError as error:
            predictions[sample.id] = Prediction(sample.id, error=str(error))
    if any(wanted is None or prompt.sample.id in wanted for prompt in prompts):
        shown = [apply_control(p, control, seed=seed, mean_color=backend.mean_color) for p in prompts]
        completions = backend.generate(shown, seed=batch_seed(seed, batch))
        for prompt, completion in zip(prompts, completions, strict=True):
            predictions[prompt.sample.id] = Prediction(
                prompt.sample.id,
                completion.text,
                completion.num_tokens,
                completion.finished,
                prompt.duration_s or prompt.sample.duration_s,
                completion.error,
            )
    return [predictions[sample.id] for sample in batch if sample.id in predictions]


def batch_seed(seed: int, batch: Sequence[VideoSample]) -> int:
    """Derive the seed of a batch from what is in it, so that it does not depend on the batches before."""
    digest = hashlib.sha256(repr((seed, [sample.id for sample in batch])).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def evaluate_split(
    get_backend: Callable[[], Backend],
    samples: Sequence[VideoSample],
    control: str,
    file: PredictionFile,
    *,
    batch_size: int,
    seed: int,
    name: str = "",
) -> list[Graded]:
    """Answer every sample that has no answer yet, and grade all of them, in the order of `samples`.

    A sample that failed in an earlier run is tried again: its file may have been repaired. The backend is made when it
    is first needed, so rescoring a finished run loads no model.
    """
    by_id = {sample.id: sample for sample in samples}
    done = {key: grade(prediction, by_id[key]) for key, prediction in file.read().items() if key in by_id}
    finished = {key for key, graded in done.items() if graded.prediction.error is None}
    if done:
        logger.info("%s: %d of %d predictions are there already", file.path, len(finished), len(samples))
    with tqdm(total=len(samples), initial=len(finished), desc=name, unit="item") as progress:
        for start in range(0, len(samples), batch_size):
            batch = samples[start : start + batch_size]
            wanted = {sample.id for sample in batch} - finished
            if not wanted:
                continue
            predictions = predict_batch(get_backend(), batch, control, seed=seed, wanted=wanted)
            new = [grade(p, by_id[p.problem_id]) for p in predictions if p.problem_id in wanted]
            file.append([graded for graded in new if done.get(graded.prediction.problem_id) != graded])
            done |= {graded.prediction.problem_id: graded for graded in new}
            progress.update(len(new))
            accuracy = mean(graded.score.value for graded in done.values() if graded.score)
            progress.set_postfix(accuracy="-" if accuracy is None else f"{accuracy:.3f}")
    return [done[sample.id] for sample in samples]


def exit_code(metrics: dict[str, dict[str, Any]], max_failed: float) -> int:
    """1 if more than `max_failed` of a result's items have no completion, and say so; else 0."""
    bad = {key: m for key, m in metrics.items() if m["num_failed"] > max_failed * m["num_samples"]}
    for key, figures in bad.items():
        logger.error(
            "%s: %d of %d items failed, more than max_failed=%g; the rows with an `error` in its predictions say why",
            key,
            figures["num_failed"],
            figures["num_samples"],
            max_failed,
        )
    return 1 if bad else 0


def main(argv: list[str]) -> int:
    """Run an evaluation; exit code 1 if too many items failed."""
    model_args, video_args, args = parse_config((ModelArguments, VideoArguments, EvalArguments), argv)
    check_model_path(model_args.model_name_or_path)
    splits = {name: load_samples(path)[: args.num_samples] for name, path in args.splits.items()}
    output_dir = Path(args.output_dir)
    open_output_dir(
        output_dir,
        describe_settings(model_args, video_args, args),
        {
            name: {"file": args.splits[name], "sha256": file_sha256(args.splits[name]), "num_samples": len(samples)}
            for name, samples in splits.items()
        },
        {**dataclasses.asdict(model_args), **dataclasses.asdict(video_args), **dataclasses.asdict(args)},
        overwrite=args.overwrite,
    )

    @functools.cache
    def get_backend() -> Backend:
        return make_backend(model_args, video_args, args)

    metrics = {}
    for split, samples in splits.items():
        for control in args.video:
            key = result_key(split, control)
            file = PredictionFile(output_dir / "predictions" / f"{key}.jsonl")
            graded = evaluate_split(
                get_backend, samples, control, file, batch_size=args.batch_size, seed=args.seed, name=key
            )
            metrics[key] = compute_metrics(graded)
            write_json(output_dir / "metrics.json", {**read_json(output_dir / "metrics.json"), **metrics})
    print_metrics(metrics, title=model_args.model_name_or_path)
    return exit_code(metrics, args.max_failed)
