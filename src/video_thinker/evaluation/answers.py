"""From samples to graded predictions, batch by batch. What is answered is on disk before the next batch begins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from video_thinker.data.decoding.process import files_in_work
from video_thinker.errors import DecodeError, VideoThinkerError
from video_thinker.evaluation.metrics import grade
from video_thinker.evaluation.schedule import Chain, plan_chains
from video_thinker.evaluation.streamed import answer_streamed
from video_thinker.generation.backend import Backend, StreamingBackend
from video_thinker.generation.controls import apply_control
from video_thinker.runs.predictions import Graded, Prediction, PredictionFile
from video_thinker.runs.watchdog import UNWATCHED, Watchdog
from video_thinker.schema import VideoSample


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
