"""`video-thinker difficulty CONFIG [key=value …]`: keep the items that a checkpoint answers right sometimes.

GRPO learns nothing from a question whose completions are all right or all wrong: its advantages are zero. So k
completions are sampled for each item, and the items whose pass rate lies in a band are kept.

    OUTPUT_DIR/
      manifest.json             the settings the rates depend on; a folder is never continued with others
      predictions/pass_0.jsonl  the first completion of each item, and so on; continued on rerun
      pass_rates.jsonl          {"problem_id": "q7", "pass_rate": 0.25, "passes": 2, "completions": 8, "kept": true}
      items.jsonl               the kept rows of the items file, as they were, with `pass_rate`
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table

from video_thinker.config import ModelArguments, VideoArguments, check_choice
from video_thinker.data.annotations import load_samples
from video_thinker.data.checks import check_all_texts
from video_thinker.data.golds import check_golds
from video_thinker.data.raw_files import RawRow, iter_rows
from video_thinker.data.readers import resolve_backend
from video_thinker.errors import ConfigError, DataError
from video_thinker.evaluation.answers import evaluate_split
from video_thinker.evaluation.preflight import check_media, special_tokens_of
from video_thinker.generation.arguments import AnswerArguments
from video_thinker.generation.backend import Backend
from video_thinker.generation.engine import Sampling
from video_thinker.generation.opening import open_backend
from video_thinker.keys.rules import Count, NotNegative, Seed, Share, above_to
from video_thinker.keys.settings import parse_config
from video_thinker.models.fingerprint import model_fingerprint
from video_thinker.prompts import PROMPT_STYLES
from video_thinker.runs.files import file_sha256, write_text
from video_thinker.runs.lock import run_lock
from video_thinker.runs.predictions import Graded, PredictionFile, has_answers, open_output_dir

logger = logging.getLogger(__name__)

PASS_SCORE = 1.0
"""The score of a completion that passes; a partial one does not."""


@dataclass
class DifficultyArguments(AnswerArguments):
    """Which items are sampled how often, and which pass rates are kept."""

    items_file: str = field(metadata={"help": "Items to choose from, JSON or JSONL."})
    output_dir: str = field(metadata={"help": "Folder for completions, pass rates and the kept items."})
    num_generations: Count = field(default=8, metadata={"help": "Completions sampled for each item."})
    min_pass_rate: Share = field(default=0.125, metadata={"help": "Least share of right completions that is kept."})
    max_pass_rate: Share = field(default=0.875, metadata={"help": "Largest share of right completions that is kept."})
    batch_size: Count = field(default=8, metadata={"help": "Prompts answered at once."})
    max_new_tokens: Count = field(default=1024, metadata={"help": "Longest completion; a longer one is cut off."})
    temperature: NotNegative = field(default=1.0, metadata={"help": "That of the GRPO rollouts."})
    top_p: Annotated[float, above_to(0, 1)] = field(default=1.0, metadata={"help": "Nucleus sampling."})
    seed: Seed = field(default=0, metadata={"help": "Of sampling; every completion of an item has its own."})
    max_failed: Share = field(
        default=0.01, metadata={"help": "Largest share of items without a rate before the exit code is 1."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Drop the completions that are in output_dir."})
    step_timeout_s: float = field(
        default=3600.0, metadata={"help": "Abort, saying where, when nothing moves for so many seconds; 0 is off."}
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot. Raises `ConfigError`."""
        super().__post_init__()
        if not 0 <= self.min_pass_rate <= self.max_pass_rate <= 1:
            raise ConfigError(
                f"min_pass_rate={self.min_pass_rate}, max_pass_rate={self.max_pass_rate}: "
                "0 <= min_pass_rate <= max_pass_rate <= 1 must hold."
            )
        if self.num_generations < 1 or self.batch_size < 1:
            raise ConfigError(
                f"num_generations={self.num_generations}, batch_size={self.batch_size}: must be at least 1."
            )
        self.generation = Sampling(self.max_new_tokens, self.temperature, self.top_p)
        if self.temperature == 0 and self.num_generations > 1:
            raise ConfigError(f"temperature=0: all {self.num_generations} completions would be the same; raise it.")


@dataclass(frozen=True, slots=True)
class PassRate:
    """How often an item was answered right; `pass_rate` is `None` where no completion could be scored."""

    problem_id: str
    pass_rate: float | None
    passes: int
    completions: int


def pass_rates(graded: Sequence[Sequence[Graded]]) -> list[PassRate]:
    """Compute the pass rate of each item from its completions, `graded[pass][item]`.

    Completions that failed (unreadable media) or cannot be scored (unusable gold) are left out, never counted as wrong.
    """
    rates = []
    for completions in zip(*graded, strict=True):
        scores = [one.score.value for one in completions if one.score is not None and one.score.value is not None]
        passes = sum(score >= PASS_SCORE for score in scores)
        rate = passes / len(scores) if scores else None
        rates.append(PassRate(completions[0].sample.id, rate, passes, len(scores)))
    return rates


def in_band(rate: PassRate, args: DifficultyArguments) -> bool:
    """Say whether an item is kept."""
    return rate.pass_rate is not None and args.min_pass_rate <= rate.pass_rate <= args.max_pass_rate


def write_selection(rates: Sequence[PassRate], args: DifficultyArguments) -> int:
    """Write the pass rates and the kept rows, each with its rate; give the number of kept ones."""
    folder = Path(args.output_dir)
    by_id = {rate.problem_id: rate for rate in rates}
    lines = [{**dataclasses.asdict(rate), "kept": in_band(rate, args)} for rate in rates]
    kept = []
    for row in iter_rows(args.items_file):
        if isinstance(row, DataError):
            raise row
        item = _fields(row)
        rate = by_id[str(item["problem_id"])]
        if in_band(rate, args):
            kept.append({**item, "pass_rate": rate.pass_rate})
    for name, rows in (("pass_rates.jsonl", lines), ("items.jsonl", kept)):
        write_text(folder / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(kept)


def _fields(row: RawRow) -> dict[str, Any]:
    if not isinstance(row.value, dict):
        raise DataError(f"{row.location}: a row is a JSON object; fix the row.")
    return row.value


def describe_settings(
    model_args: ModelArguments, video_args: VideoArguments, args: DifficultyArguments
) -> dict[str, Any]:
    """List what a completion depends on, flat; the band and the number of completions may change on rerun."""
    check_choice("prompt_style", video_args.prompt_style, tuple(PROMPT_STYLES))
    sampling = ("prompt_style", "fps", "num_frames", "min_frames", "max_frames", "min_pixels", "max_pixels")
    settings = {
        **{name: getattr(video_args, name) for name in sampling},
        "prompt_sha256": hashlib.sha256(repr(PROMPT_STYLES[video_args.prompt_style]).encode()).hexdigest(),
        "video_backend": resolve_backend(video_args.video_backend),
        **{name: getattr(args, name) for name in ("max_new_tokens", "temperature", "top_p")},
        "seed": args.seed,
    }
    if args.backend == "openai":
        from video_thinker.generation.openai import describe_server

        return {**settings, **describe_server(model_args, video_args, args, ["real"])}
    return {
        "model_sha256": model_fingerprint(model_args.model_name_or_path),
        "dtype": model_args.dtype,
        "attn_implementation": model_args.attn_implementation,
        **({"engine": args.engine} if args.engine != "local" else {}),
        **settings,
        # A batch of the local engine shares one stream of random numbers, so its size decides what is sampled.
        **({"batch_size": args.batch_size} if args.engine == "local" else {}),
    }


def print_rates(rates: Sequence[PassRate], num_kept: int, args: DifficultyArguments) -> None:
    """Print how many items have which pass rate."""
    counts = Counter(rate.pass_rate for rate in rates)
    table = Table(title=f"Pass rates over {args.num_generations} completions; {num_kept} of {len(rates)} items kept")
    for column in ("pass rate", "items", "kept"):
        table.add_column(column, justify="right")
    for rate in sorted(counts, key=lambda value: -1.0 if value is None else value):
        name = "no rate" if rate is None else f"{rate:.3f}"
        kept = rate is not None and args.min_pass_rate <= rate <= args.max_pass_rate
        table.add_row(name, str(counts[rate]), "yes" if kept else "")
    Console().print(table)


def _pass_file(args: DifficultyArguments, number: int) -> PredictionFile:
    return PredictionFile(Path(args.output_dir) / "predictions" / f"pass_{number}.jsonl")


def main(argv: list[str]) -> int:
    """Run the command; exit code 1 if too many items have no pass rate."""
    model_args, video_args, args = parse_config((ModelArguments, VideoArguments, DifficultyArguments), argv)
    tokens = special_tokens_of(model_args, args)
    samples = load_samples(args.items_file)
    check_all_texts(samples, tokens)
    check_golds(samples, args.items_file)
    split = {"file": args.items_file, "sha256": file_sha256(args.items_file), "num_samples": len(samples)}
    with run_lock(Path(args.output_dir)):
        open_output_dir(
            Path(args.output_dir),
            describe_settings(model_args, video_args, args),
            {"items": split},
            {**dataclasses.asdict(model_args), **dataclasses.asdict(video_args), **dataclasses.asdict(args)},
            overwrite=args.overwrite,
        )

        answered = has_answers(Path(args.output_dir))

        @functools.cache
        def get_backend() -> Backend:
            return open_backend(model_args, video_args, args, args.generation, answered=answered)

        files = [_pass_file(args, number) for number in range(args.num_generations)]
        done = set.intersection(*({i for i, one in file.read().items() if one.error is None} for file in files))
        todo = [sample for sample in samples if sample.id not in done]
        local = args.backend == "local"
        takes_frames = local or args.media == "frames"
        check_media({"items": samples}, {"items": todo}, video_args, args.max_failed, samples_frames=takes_frames)
        graded = []
        for number, file in enumerate(files):
            seed = args.seed * 10_000 + number
            name = f"{number + 1}/{args.num_generations}"
            graded.append(
                evaluate_split(
                    get_backend,
                    samples,
                    "real",
                    file,
                    batch_size=args.batch_size,
                    seed=seed,
                    name=name,
                    step_timeout_s=args.step_timeout_s if local else 0.0,  # requests have request_timeout_s
                )
            )
        rates = pass_rates(graded)
        num_kept = write_selection(rates, args)
    print_rates(rates, num_kept, args)
    kept_file = Path(args.output_dir) / "items.jsonl"
    logger.info("the kept items are in %s; next: video-thinker grpo CONFIG train_file=%s", kept_file, kept_file)
    without = [rate.problem_id for rate in rates if rate.pass_rate is None]
    if without:
        logger.warning(
            "%d items have no pass rate and are left out, the first %r; see predictions", len(without), without[0]
        )
    return int(len(without) > args.max_failed * len(rates))
