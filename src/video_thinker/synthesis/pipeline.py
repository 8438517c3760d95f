"""Task -> result, many at a time and in order.

A result is a pure function of its task, the settings and the replies; the replies are in the cache. So a run that was
killed is simply run again: what was answered is read, what was not is asked, and the results are the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from video_thinker.data.annotations import to_row
from video_thinker.datasets.annotated import CaptionedVideo
from video_thinker.errors import DecodeError
from video_thinker.schema import VideoSample
from video_thinker.synthesis.arguments import Endpoint, SynthesisArguments
from video_thinker.synthesis.asking import Attempt, Conversation
from video_thinker.synthesis.client import BudgetReachedError, ChatClient, UnreachableError, Usage
from video_thinker.synthesis.curation import TRACE, CurationSettings, write_curated_trace
from video_thinker.synthesis.prompts import prompt_version
from video_thinker.synthesis.questions import STAGE, QuestionSettings, write_question
from video_thinker.synthesis.tasks import Task

T = TypeVar("T")
R = TypeVar("R")

WINDOW = 4
"""Samples in work per request slot: enough to keep the slots busy while results wait for the ones before them."""

ACCEPTED, REJECTED, UNFINISHED = "accepted", "rejected", "unfinished"


@dataclass
class Result:
    """What became of one task. `reason` says why there is no item; `gold` is the true answer."""

    task: Task
    status: str
    sample: VideoSample | None = None
    reason: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    usage: dict[str, Usage] = field(default_factory=dict)
    gold: str | None = None

    def row(self, endpoints: dict[str, Endpoint]) -> dict[str, Any]:
        """Write a result as a row of results.jsonl."""
        item = None
        if self.sample is not None:
            item = {**to_row(self.sample), "provenance": self.provenance(endpoints)}
        return {
            "id": self.task.id,
            "source": self.task.source,
            "status": self.status,
            "reason": self.reason,
            "video": {
                "path": self.task.video.path,
                "digest": self.task.video.digest,
                "num_frames": self.task.video.num_frames,
            },
            "gold": self.gold,
            "attempts": [dataclasses.asdict(attempt) for attempt in self.attempts],
            "usage": {role: dataclasses.asdict(usage) for role, usage in sorted(self.usage.items())},
            "item": item,
        }

    def provenance(self, endpoints: dict[str, Endpoint]) -> dict[str, Any]:
        """Say what an item was made from, by which models, and how often it took."""
        counts = {stage: sum(attempt.stage == stage for attempt in self.attempts) for stage in (STAGE, TRACE)}
        return {
            "source": self.task.source,
            "annotation": self.task.annotation.id,
            **{role: endpoints[role].model for role in endpoints if role in self.usage},
            "question_attempts": counts[STAGE],
            "trace_attempts": counts[TRACE],
            "prompt_version": prompt_version(),
        }


def curation_settings(args: SynthesisArguments) -> CurationSettings:
    """Pick the settings of the curation."""
    return CurationSettings(**{f.name: getattr(args, f.name) for f in dataclasses.fields(CurationSettings)})


async def make_sample(task: Task, client: ChatClient, args: SynthesisArguments) -> Result:
    """Run one task through its stages; what cannot be asked now is left unfinished, for another run.

    Raises:
        TeacherError: a server refuses the requests as such, which no other sample can change.
    """
    conversation = Conversation(client, task.id, args.max_unusable)
    result = Result(task, UNFINISHED, attempts=conversation.attempts, usage=conversation.usage)
    try:
        sample = await _question(conversation, task, args)
        if sample is None:
            result.status, result.reason = REJECTED, _last_reason(conversation, STAGE)
            return result
        result.gold = sample.answer
        traced = await write_curated_trace(conversation, sample, task.video, curation_settings(args))
    except (BudgetReachedError, UnreachableError) as error:
        result.reason = str(error)
        return result
    except DecodeError as error:
        result.status, result.reason = REJECTED, f"video: {error}"
        return result
    if traced is None:
        result.status, result.reason, result.sample = REJECTED, _last_reason(conversation, TRACE), sample
    else:
        result.status, result.sample = ACCEPTED, traced
    return result


async def _question(conversation: Conversation, task: Task, args: SynthesisArguments) -> VideoSample | None:
    if not isinstance(task.annotation, CaptionedVideo):
        return dataclasses.replace(task.annotation, process=None)
    if task.letters is None:
        raise AssertionError(f"{task.id}: a captioned video without a plan for its letters")
    settings = QuestionSettings(args.max_attempts, task.number, args.questions_per_video)
    return await write_question(conversation, task.annotation, task.video, task.letters, settings)


def _last_reason(conversation: Conversation, stage: str) -> str:
    reasons = [attempt.reason for attempt in conversation.attempts if attempt.stage == stage]
    return f"{stage} failed {len(reasons)} times; the last time: {reasons[-1]}"


async def map_in_order(function: Callable[[T], Awaitable[R]], items: Iterable[T], *, window: int) -> AsyncIterator[R]:
    """Run `function` on up to `window` items at once; give the results in the order of the items."""
    running: deque[asyncio.Task[R]] = deque()
    try:
        for item in items:
            running.append(asyncio.ensure_future(function(item)))
            if len(running) >= window:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def run_tasks(tasks: Iterable[Task], client: ChatClient, args: SynthesisArguments) -> AsyncIterator[Result]:
    """Give the results of all tasks in order, until too many are left unfinished; the rest is then not begun."""
    num_unfinished = 0

    async def work(task: Task) -> Result:
        nonlocal num_unfinished
        if num_unfinished > args.max_unfinished:
            return Result(task, UNFINISHED, reason="not begun: too many samples before it were left unfinished")
        result = await make_sample(task, client, args)
        num_unfinished += result.status == UNFINISHED
        return result

    async for result in map_in_order(work, tasks, window=WINDOW * args.concurrency):
        yield result
