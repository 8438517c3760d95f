"""Evaluate a model on splits of items. `video-thinker eval CONFIG [key=value …]`.

Every prediction is on disk before the next batch begins; the same command takes an interrupted run up again and ends
with the same figures (`batching.py` says why). `num_processes` processes share the items (`processes.py`), and their
predictions are brought together and scored at the end (`results.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import yaml
from tqdm import tqdm

from video_thinker.config import ModelArguments, ServerArguments, VideoArguments, check_choice
from video_thinker.data.annotations import load_samples
from video_thinker.data.checks import check_all_texts
from video_thinker.data.decoding.process import files_in_work
from video_thinker.data.golds import check_golds
from video_thinker.data.readers import resolve_backend
from video_thinker.data.texts import SpecialTokens
from video_thinker.errors import ConfigError, DecodeError, VideoThinkerError
from video_thinker.evaluation.metrics import grade
from video_thinker.evaluation.preflight import check_media
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
from video_thinker.evaluation.schedule import Chain, deal, plan_chains
from video_thinker.evaluation.streamed import answer_streamed
from video_thinker.evaluation.tables import print_metrics
from video_thinker.generation.backend import Backend, StreamingBackend, make_backend
from video_thinker.generation.controls import CONTROLS, apply_control
from video_thinker.generation.engine import EngineArguments, Sampling
from video_thinker.keys.rules import Count, CountOrZero, NotNegative, Seed, Share, above_to
from video_thinker.keys.settings import combine_settings, make_arguments, parse_config
from video_thinker.models.fingerprint import model_fingerprint
from video_thinker.models.loading import check_model_path, load_special_tokens, resolve_attn_implementation
from video_thinker.prompts import PROMPT_STYLES
from video_thinker.runs.files import file_sha256
from video_thinker.runs.lock import run_lock
from video_thinker.runs.predictions import Graded, Prediction, PredictionFile, has_answers, open_output_dir
from video_thinker.runs.watchdog import UNWATCHED, Watchdog
from video_thinker.schema import VideoSample

logger = logging.getLogger(__name__)


@dataclass
class EvalArguments(EngineArguments, ServerArguments):
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
        if self.backend == "openai" and self.engine != "local":
            raise ConfigError(f"engine={self.engine} samples in this process, backend=openai asks a server: drop one.")
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


def open_backend(
    model_args: ModelArguments, video_args: VideoArguments, args: EvalArguments, *, answered: bool = False
) -> Backend:
    """Make the backend that a config asks for; `answered` if the run has completions already.

    Raises:
        ConfigError: there is no such model, or an option is unknown or does not fit the model.
    """
    if args.backend == "openai":
        from video_thinker.generation.openai import OpenAIBackend

        return OpenAIBackend.connect(model_args, video_args, args, args.generation, answered=answered)
    return make_backend(model_args, video_args, args)


def predict_batch(
    backend: Backend,
    batch: Sequence[VideoSample],
    control: str,
    *,
    seed: int,
    wanted: set[str] | None = None,
    watchdog: Watchdog = UNWATCHED,
) -> list[Prediction]:
    """Answer a batch under a control. A sample whose media cannot be read gives a failed prediction.

    If none of the ids in `wanted` can be read, only these failures are given and the model is not asked. A backend
    whose completions are independent is asked for no others.
    """
    drawn_with = batch_seed(seed, batch)
    if backend.independent and wanted is not None:
        batch = [sample for sample in batch if sample.id in wanted]
    predictions: dict[str, Prediction] = {}
    prompts = []
    for sample in batch:
        watchdog.beat("reading media", [sample.id])
        try:
            prompts.append(backend.load_prompt(sample))
        except DecodeError as error:
            predictions[sample.id] = Prediction(sample.id, error=str(error))
    if any(wanted is None or prompt.sample.id in wanted for prompt in prompts):
        shown = [apply_control(p, control, seed=seed, mean_color=backend.mean_color) for p in prompts]
        watchdog.beat("generating completions", [prompt.sample.id for prompt in prompts])
        completions = backend.generate(shown, seed=drawn_with)
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


@dataclass
class Answers:
    """One result in the making: the predictions of `samples` under `control`, those that are there and new ones."""

    key: str
    samples: Sequence[VideoSample]
    control: str
    file: PredictionFile
    done: dict[str, Graded] = field(default_factory=dict)

    @classmethod
    def resume(
        cls, key: str, samples: Sequence[VideoSample], control: str, file: PredictionFile, there: dict[str, Prediction]
    ) -> Answers:
        """Take up the predictions that are `there`."""
        by_id = {sample.id: sample for sample in samples}
        done = {name: grade(prediction, by_id[name]) for name, prediction in there.items() if name in by_id}
        return cls(key, samples, control, file, done)

    def missing(self, batch: Sequence[VideoSample]) -> set[str]:
        """Ids of a batch without an answer. What failed in an earlier run is tried again: its file may be repaired."""
        return {s.id for s in batch if s.id not in self.done or self.done[s.id].prediction.error is not None}

    def complete(
        self, backend: Backend, batch: Sequence[VideoSample], *, seed: int, watchdog: Watchdog = UNWATCHED
    ) -> int:
        """Answer, grade and store what is missing of a batch; give the number of new rows.

        Raises:
            VideoThinkerError: the backend can answer nothing more. What it had answered is stored; what failed since
                is not, and is asked for by the next run.
        """
        wanted, by_id = self.missing(batch), {sample.id: sample for sample in batch}
        predictions = predict_batch(backend, batch, self.control, seed=seed, wanted=wanted, watchdog=watchdog)
        new = [grade(p, by_id[p.problem_id]) for p in predictions if p.problem_id in wanted]
        stopped: VideoThinkerError | None = getattr(backend, "stopped", None)  # one that cannot stop need not have it
        if stopped is not None:
            new = [graded for graded in new if graded.prediction.error is None]
        self._keep(new)
        if stopped is not None:
            raise stopped
        return len(new)

    def store(self, prediction: Prediction, sample: VideoSample) -> None:
        """Grade and store the prediction of a sample."""
        self._keep([grade(prediction, sample)])

    def _keep(self, new: Sequence[Graded]) -> None:
        self.file.append([graded for graded in new if self.done.get(graded.prediction.problem_id) != graded])
        self.done |= {graded.prediction.problem_id: graded for graded in new}

    @property
    def graded(self) -> list[Graded]:
        """All samples that have a prediction, in their order."""
        return [self.done[sample.id] for sample in self.samples if sample.id in self.done]


def answer_chains(
    get_backend: Callable[[], Backend],
    work: Sequence[tuple[Sequence[Answers], Sequence[Chain]]],
    *,
    seed: int,
    step_timeout_s: float = 0.0,
) -> None:
    """Answer all that is missing, with a progress bar.

    Controls of one split go through a chain one after the other, so that they share its decoded frames. The backend is
    made when it is first needed, so a finished run loads no model.

    Args:
        get_backend: Makes the backend, once.
        work: For each split its results (one per control) and the chains of its samples.
        seed: Of sampling and of the shuffled frames.
        step_timeout_s: End the process when nothing moves for so long; 0 is never.
    """
    tasks = [(answers, batch) for results, chains in work for c in chains for answers in results for batch in c.batches]
    todo = [(answers, batch) for answers, batch in tasks if answers.missing(batch)]
    if todo:
        get_backend()  # before the bar, whose estimate of the time left is about answering
    num_done = sum(len(batch) - len(answers.missing(batch)) for answers, batch in tasks)
    bar = progress_bar(sum(len(batch) for _, batch in tasks), num_done)
    with bar as progress, Watchdog(step_timeout_s, files_in_work=files_in_work).watching() as watchdog:
        backend = get_backend() if todo else None
        if isinstance(backend, StreamingBackend):
            for result in answer_streamed(backend, todo, seed=seed, watchdog=watchdog):
                progress.set_description_str(result.key, refresh=False)
                progress.update()
            return
        for answers, batch in todo:
            progress.set_description_str(answers.key, refresh=False)
            progress.update(answers.complete(get_backend(), batch, seed=seed, watchdog=watchdog))


def progress_bar(total: int, num_done: int) -> tqdm[Any]:
    """Make a progress bar with the time left."""
    return tqdm(total=total, initial=num_done, unit="item", smoothing=0.05)


def evaluate_split(
    get_backend: Callable[[], Backend],
    samples: Sequence[VideoSample],
    control: str,
    file: PredictionFile,
    *,
    batch_size: int,
    seed: int,
    name: str = "",
    step_timeout_s: float = 0.0,
) -> list[Graded]:
    """Answer every sample of one split that has no answer yet, and grade all of them, in the order of `samples`."""
    answers = Answers.resume(name, samples, control, file, file.read())
    answer_chains(
        get_backend, [([answers], plan_chains(samples, batch_size))], seed=seed, step_timeout_s=step_timeout_s
    )
    return answers.graded


def main(argv: list[str]) -> int:
    """Run an evaluation; exit code 1 if too many items failed, or a process did."""
    model_args, video_args, args = parse_config((ModelArguments, VideoArguments, EvalArguments), argv)
    metrics, code = run_evaluation(model_args, video_args, args, argv)
    if args.process is not None:
        return 0
    print_metrics(metrics, title=model_args.model_name_or_path)
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
    if args.backend == "local":
        check_model_path(model_args.model_name_or_path)
    splits = {name: load_samples(path)[: args.num_samples] for name, path in files.items()}
    # A server keeps its tokenizer to itself.
    tokens = load_special_tokens(model_args.model_name_or_path) if args.backend == "local" else SpecialTokens()
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
        get_backend = functools.cache(lambda: open_backend(model_args, video_args, args, answered=answered))
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
