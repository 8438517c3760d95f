"""Evaluate a model on splits of items. `video-thinker eval CONFIG [key=value …]`.

Every prediction is on disk before the next batch begins; the same command takes an interrupted run up again and ends
with the same figures (`batching.py` says why). `num_processes` processes share the items (`processes.py`), and their
predictions are brought together and scored at the end (`results.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from video_thinker.config import ModelArguments, VideoArguments
from video_thinker.data.annotations import load_samples
from video_thinker.data.checks import check_all_texts
from video_thinker.data.golds import check_golds
from video_thinker.evaluation.answers import Answers, answer_chains, progress_bar
from video_thinker.evaluation.arguments import EvalArguments, describe_settings, parse_splits
from video_thinker.evaluation.preflight import check_media, special_tokens_of
from video_thinker.evaluation.processes import (
    LineCounter,
    eval_command,
    failed_code,
    process_environment,
    run_processes,
    visible_devices,
)
from video_thinker.evaluation.results import (
    conclude,
    exit_code,
    merge_result,
    prediction_file,
    read_result,
    result_key,
)
from video_thinker.evaluation.schedule import deal, plan_chains
from video_thinker.evaluation.tables import print_metrics
from video_thinker.generation.backend import Backend
from video_thinker.generation.opening import open_backend
from video_thinker.keys.settings import combine_settings, make_arguments, parse_config
from video_thinker.prompts import PROMPT_STYLES
from video_thinker.runs.files import file_sha256
from video_thinker.runs.lock import run_lock
from video_thinker.runs.predictions import has_answers, open_output_dir
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Run an evaluation; exit code 1 if too many items failed, or a process did."""
    model_args, video_args, args = parse_config((ModelArguments, VideoArguments, EvalArguments), argv)
    metrics, code = run_evaluation(model_args, video_args, args, argv)
    if args.process is not None:
        return 0
    print_metrics(metrics, title=model_args.model_name_or_path)
    out = args.output_dir
    logger.info("the results are in %s; next: video-thinker report %s --out %s", out, out, Path(out) / "report.html")
    return max(code, exit_code(metrics, args.max_failed))


def evaluate(config: str | Path | Mapping[str, Any] | None = None, **settings: Any) -> dict[str, dict[str, Any]]:
    """Evaluate a model on splits of samples, as `video-thinker eval` does; also takes an interrupted run up again.

    Args:
        config: A config file (`configs/eval/…`), or its keys with their values.
        **settings: Keys of a config; they win over `config`. `model_name_or_path`, `splits` (name -> file) and
            `output_dir` are needed: `evaluate(model_name_or_path="runs/grpo", splits={"id": "id.jsonl"}, …)`.

    Returns:
        Figures by result, as in `metrics.json`: `{"id": {"accuracy": 0.72, "ci95": [0.68, 0.76], …}, "id.blank": …}`;
        `metrics.compute_metrics` says what they are. A result without a prediction for each sample is not in it.

    Raises:
        ConfigError: a key is misspelt, a value is wrong, there is no such model, or the folder holds another
            evaluation.
        DataError: a row of a split is malformed, or no gold of a split can be graded.
    """
    types = (ModelArguments, VideoArguments, EvalArguments)
    values, where = combine_settings(types, config, settings)
    model_args, video_args, args = make_arguments(types, values, where)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"  # what further processes read, if there are any
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return run_evaluation(model_args, video_args, args, [str(path)])[0]


def run_evaluation(
    model_args: ModelArguments, video_args: VideoArguments, args: EvalArguments, argv: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], int]:
    """Answer what has no answer yet, and score all of it.

    Args:
        model_args: Which model.
        video_args: Sampling and prompt.
        args: Splits, and how completions are drawn.
        argv: The same settings as a command line, for further processes.

    Returns:
        Result key -> figures of the complete results (none for the share of one process), and an exit code: 1 if a
        result is not complete, or that of a process that failed.
    """
    files = parse_splits(args.splits)
    tokens = special_tokens_of(model_args, args)
    splits = {name: load_samples(path)[: args.num_samples] for name, path in files.items()}
    check_all_texts(itertools.chain.from_iterable(splits.values()), tokens)
    for name, samples in splits.items():
        check_golds(samples, files[name])
    settings = describe_settings(model_args, video_args, args)
    results = {result_key(split, control): samples for split, samples in splits.items() for control in args.video}
    output_dir = Path(args.output_dir)
    with run_lock(output_dir, shared=args.process is not None) as lock:
        config = {**dataclasses.asdict(model_args), **dataclasses.asdict(video_args), **dataclasses.asdict(args)}
        style = PROMPT_STYLES[video_args.prompt_style]
        words = {name: getattr(style, name) for name in ("system", "reminder", "still_reminder")}
        config["prompt"] = {**words, "answers": dict(style.answers)}
        open_output_dir(
            output_dir,
            settings,
            {
                name: {"file": files[name], "sha256": file_sha256(files[name]), "num_samples": len(samples)}
                for name, samples in splits.items()
            },
            {key: value for key, value in config.items() if key not in ("process", "overwrite")},
            overwrite=args.overwrite,
        )
        answered = has_answers(output_dir)
        get_backend = functools.cache(
            lambda: open_backend(model_args, video_args, args, args.generation, answered=answered)
        )
        if args.process is not None:
            _check_media(splits, video_args, args)
            answer_share(get_backend, splits, args)
            return {}, 0
        for key, samples in results.items():  # also parts that a killed run has left
            merge_result(output_dir, key, samples)
        _check_media(splits, video_args, args)
        num_processes = args.num_processes or (max(1, torch.cuda.device_count()) if args.backend == "local" else 1)
        code = 0
        if num_processes == 1:
            answer_share(get_backend, splits, args)
        else:
            lock.take(shared=True)
            code = start_processes(argv, results, output_dir, num_processes)
            lock.take(shared=False)
        metrics = conclude(output_dir, results)
    return metrics, max(code, int(len(metrics) < len(results)))


def _check_media(splits: Mapping[str, Sequence[VideoSample]], video_args: VideoArguments, args: EvalArguments) -> None:
    """Look at the media files of all samples that some control has no answer for."""
    todo = {}
    for name, samples in splits.items():
        answers = [read_result(Path(args.output_dir), result_key(name, control)) for control in args.video]
        done = set.intersection(*({i for i, one in there.items() if one.error is None} for there in answers))
        todo[name] = [sample for sample in samples if sample.id not in done]
    takes_frames = args.backend == "local" or args.media == "frames"
    check_media(splits, todo, video_args, args.max_failed, samples_frames=takes_frames)


def answer_share(
    get_backend: Callable[[], Backend], splits: Mapping[str, Sequence[VideoSample]], args: EvalArguments
) -> None:
    """Answer all of a run, or the share of one of its processes."""
    output_dir, work = Path(args.output_dir), []
    for split, samples in splits.items():
        results = []
        for key, control in ((result_key(split, control), control) for control in args.video):
            file = prediction_file(output_dir, key, args.process)
            results.append(Answers.resume(key, samples, control, file, read_result(output_dir, key)))
            if results[-1].done:
                logger.info("%s: %d of %d predictions are there already", key, len(results[-1].done), len(samples))
        chains = plan_chains(samples, args.batch_size)
        if args.process is not None:
            chains = deal(chains, args.num_processes)[args.process]
        work.append((results, chains))
    # A server's answers have time limits of their own (request_timeout_s).
    limit_s = args.step_timeout_s if args.backend == "local" else 0.0
    answer_chains(get_backend, work, seed=args.seed, step_timeout_s=limit_s)


def start_processes(
    argv: Sequence[str], results: Mapping[str, Sequence[VideoSample]], output_dir: Path, num_processes: int
) -> int:
    """Run the evaluation in several processes; 0, or the exit code of one that failed, which is named in the log."""
    devices = visible_devices(torch.cuda.device_count())
    numbers = range(num_processes)
    own = [f"num_processes={num_processes}", "overwrite=false"]
    parts = LineCounter([prediction_file(output_dir, key, number).path for key in results for number in numbers])
    num_done = sum(p.error is None for key in results for p in read_result(output_dir, key).values())
    with progress_bar(sum(map(len, results.values())), num_done) as progress:

        def show_progress() -> None:
            if new := num_done + parts.count() - progress.n:  # an update by 0 would print a line all the same
                progress.update(new)

        codes = run_processes(
            [eval_command([*argv, *own, f"process={number}"]) for number in numbers],
            [process_environment(number, num_processes, devices) for number in numbers],
            on_poll=show_progress,
        )
    for number, code in enumerate(codes):
        if code:
            logger.error(
                "process %d of %d ended with exit code %d; what it had answered is kept, run the same command again",
                number,
                num_processes,
                code,
            )
    return failed_code(codes)
