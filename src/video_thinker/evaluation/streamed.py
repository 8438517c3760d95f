"""Answering samples by an engine that is kept full: no batch waits for its slowest completion.

Samples come in the order of their batches, so that questions on one file follow each other and it is decoded once. Each
prediction is on disk when its completion has ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import DecodeError
from video_thinker.generation.backend import StreamingBackend
from video_thinker.generation.controls import apply_control
from video_thinker.generation.streaming import LookAhead, Request, sample_seed, stream
from video_thinker.runs.predictions import Prediction
from video_thinker.runs.watchdog import Watchdog
from video_thinker.schema import VideoSample


class Result(Protocol):
    """One result in the making: samples under a control."""

    key: str
    control: str

    def missing(self, batch: Sequence[VideoSample]) -> set[str]:
        """Ids of a batch without an answer."""
        ...

    def store(self, prediction: Prediction, sample: VideoSample) -> None:
        """Grade and store the prediction of a sample."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """A sample that is to be answered for a result: its prompt, or why there is none."""

    result: Result
    sample: VideoSample
    prompt: EncodedPrompt | None = None
    duration_s: float | None = None
    error: str | None = None


def read_ahead(
    backend: StreamingBackend, tasks: Sequence[tuple[Result, Sequence[VideoSample]]], seed: int
) -> Iterator[Ready]:
    """Read and encode what has no answer yet, in the order of the tasks."""
    for result, batch in tasks:
        wanted = result.missing(batch)
        for sample in batch:
            if sample.id not in wanted:
                continue
            try:
                prompt = backend.load_prompt(sample)
            except DecodeError as error:
                yield Ready(result, sample, error=str(error))
                continue
            shown = apply_control(prompt, result.control, seed=seed, mean_color=backend.mean_color)
            yield Ready(result, sample, backend.encode(shown), prompt.duration_s or sample.duration_s)


def answer_streamed(
    backend: StreamingBackend,
    tasks: Sequence[tuple[Result, Sequence[VideoSample]]],
    *,
    seed: int,
    watchdog: Watchdog,
) -> Iterator[Result]:
    """Answer, grade and store what is missing; gives the result that has a new row, for each row.

    Args:
        backend: Answers.
        tasks: Results with batches of their samples. As many prompts are in work as the largest batch has.
        seed: Of sampling and of the shuffled frames.
        watchdog: Told of every sample that was read or answered.
    """
    limit = max((len(batch) for _, batch in tasks), default=1)
    ahead = LookAhead(read_ahead(backend, tasks, seed))
    at_work: dict[int, Ready] = {}
    keys = itertools.count()
    failed: list[Ready] = []

    def take(wait: bool) -> Request | None:
        if wait:
            watchdog.beat("reading media", [])
        while (ready := ahead.take(wait=wait)) is not None:
            if ready.prompt is None:
                failed.append(ready)
                continue
            key = next(keys)
            at_work[key] = ready
            watchdog.beat("generating completions", [one.sample.id for one in at_work.values()])
            return Request(key, ready.prompt, sample_seed(seed, ready.sample.id))
        return None

    def store_failed() -> Iterator[Result]:
        while failed:
            one = failed.pop(0)
            one.result.store(Prediction(one.sample.id, error=one.error), one.sample)
            yield one.result

    try:
        for key, sampled in stream(backend.engine, take, backend.sampling, limit):
            ready = at_work.pop(key)
            watchdog.beat("generating completions", [one.sample.id for one in at_work.values()])
            yield from store_failed()
            said = backend.completion(sampled)
            row = Prediction(ready.sample.id, said.text, said.num_tokens, said.finished, ready.duration_s)
            ready.result.store(row, ready.sample)
            yield ready.result
        yield from store_failed()
    finally:
        ahead.close()
