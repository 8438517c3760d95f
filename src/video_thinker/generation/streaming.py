"""Continuous batching: an engine is kept full of prompts, each of which is made ready while others are sampled.

A thread reads and encodes prompts ahead, a few at most (`LookAhead`); so what waits is bounded, and so is what is in
work. Nothing waits for the slowest of a batch.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import EngineError
from video_thinker.generation.engine import Sampled, Sampling, StreamingEngine

T = TypeVar("T")

AHEAD = 4
"""Prompts that are ready before the engine has room for them: pixels take far more memory than their files."""

POLL_S = 0.1
"""How often a thread that waits for room looks whether it is still wanted."""

END_S = 2.0
"""How long `LookAhead.close` waits: a file may keep its reader busy for minutes."""

SPARE_STEPS = 1000
"""Steps beyond those that all tokens in work need, after which the engine is taken to hang."""


def sample_seed(seed: int, sample_id: str) -> int:
    """Derive the seed of one sample's completion, in 31 bits: its neighbors change nothing."""
    return int.from_bytes(hashlib.sha256(repr((seed, sample_id)).encode()).digest()[:4], "big") >> 1


class LookAhead(Generic[T]):
    """Takes items from an iterator in a thread, before they are asked for.

    Args:
        items: Iterated in the thread, once.
        ahead: So many items wait at most.
    """

    def __init__(self, items: Iterable[T], ahead: int = AHEAD) -> None:
        """See the class; the thread begins at once."""
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=ahead)
        self._ended = False  # the last one was taken
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(items,), name="look-ahead", daemon=True)
        self._thread.start()

    def take(self, *, wait: bool) -> T | None:
        """Take the next item; `None` if there are no more, or, unless `wait`, if none is ready.

        What the iterator raises is raised here, at its place.
        """
        if self._ended:
            return None
        try:
            item, error = self._queue.get(block=wait)
        except queue.Empty:
            return None
        if item is None:
            self._ended = True
        if error is not None:
            raise error
        return item

    def close(self) -> None:
        """End the thread when it has finished the item it is at; nobody waits long for that."""
        self._unwanted.set()
        self._thread.join(END_S)

    def _work(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put(item, None):
                    return
            self._put(None, None)
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that takes
            self._put(None, error)

    def _put(self, item: T | None, error: BaseException | None) -> bool:
        """Wait for room; false if nobody wants items any more."""
        while not self._unwanted.is_set():
            try:
                self._queue.put((item, error), timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to complete: `key` is the caller's name for it, `seed` that of its sampling."""

    key: int
    prompt: EncodedPrompt
    seed: int


def stream(
    engine: StreamingEngine, take: Callable[[bool], Request | None], sampling: Sampling, limit: int
) -> Iterator[tuple[int, Sampled]]:
    """Keep an engine full; gives completions with the keys of their requests, in the order in which they end.

    Args:
        engine: Samples.
        take: Gives the next request; asked to wait (`True`) only where the engine has nothing to do. `None`: there are
            no more, or none is ready.
        sampling: How completions are drawn.
        limit: Prompts in work at a time.

    Raises:
        ConfigError: the engine cannot do what `sampling` asks for, or a prompt does not fit.
        EngineError: the engine hangs, or gives something else than was asked for.
    """
    at_work: dict[str, Request] = {}
    num_steps = 0
    try:
        while True:
            while len(at_work) < limit and (request := take(not at_work)) is not None:
                at_work[engine.submit(request.prompt, sampling, request.seed)] = request
            if not at_work:
                return
            num_steps += 1
            ended = list(engine.step())
            for name, completions in ended:
                if name not in at_work or len(completions) != 1:
                    raise EngineError(f"the engine gave {len(completions)} completions of {name}; one was asked for.")
                num_steps = 0
                yield at_work.pop(name).key, completions[0]
            if num_steps > SPARE_STEPS + sum(
                len(one.prompt.input_ids) + sampling.max_new_tokens for one in at_work.values()
            ):
                raise EngineError(
                    f"the engine made {num_steps} steps, enough for every token, and none of {len(at_work)} prompts "
                    "has ended. Start the command again; it goes on with what has no answer yet."
                )
    finally:
        if at_work:
            engine.abort(list(at_work))
