"""Files decoded by several threads at once, so that Ctrl-C ends all of them now and not after their time limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from video_thinker.data.decoding.process import end_decoding

T = TypeVar("T")
R = TypeVar("R")

POLL_S = 0.1


def map_files(function: Callable[[T], R], files: Sequence[T], num_threads: int) -> Iterator[R]:
    """Call a function, which opens a media file, on each of the files; give the results in their order.

    An exception, of a call or in the consumer, ends the calls that are running and begins no other one.
    """
    with ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(function, file) for file in files]
        try:
            for future in futures:
                yield future.result()
        finally:
            _stop(futures)


def _stop(futures: Sequence[Future[R]]) -> None:
    running = [future for future in futures if not future.cancel()]
    while wait(running, timeout=0).not_done:
        end_decoding()  # again, since a call may have started a new child
        wait(running, timeout=POLL_S)
