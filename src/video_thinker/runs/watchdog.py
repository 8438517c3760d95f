"""A watchdog: when nothing moves any more, say on which sample and file, and end the process.

A hang has no traceback: a rank waits for another one, a file lies on a network disk that went away, C code never comes
back, and the job burns its hours. Every process watches itself. Runs without torch.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

EXIT_STUCK = 75

FilesInWork = Callable[[], Sequence[str]]


class Watchdog:
    """Ends the process with exit code 75 when no beat has come for `timeout_s` seconds.

    Args:
        timeout_s: Longest time between two beats; 0 turns the watchdog off.
        option: The key that sets it, for the message.
        who: What to call this process.
        files_in_work: Names the media files that are being decoded at the moment.
    """

    def __init__(
        self,
        timeout_s: float,
        option: str = "step_timeout_s",
        who: str = "this process",
        files_in_work: FilesInWork = tuple,
    ) -> None:
        """See the class."""
        self.timeout_s, self.option, self.who = timeout_s, option, who
        self.doing = "starting"
        self.sample_ids: Sequence[str] = ()
        self._files_in_work = files_in_work
        self._last_beat: float | None = None
        self._thread: threading.Thread | None = None

    def beat(self, doing: str, sample_ids: Sequence[str] | None = None) -> None:
        """Note that work goes on: what is done now, and on which samples (`None`: the same as before)."""
        self.doing = doing
        if sample_ids is not None:
            self.sample_ids = tuple(dict.fromkeys(sample_ids))
        self._last_beat = time.monotonic()

    def message(self) -> str:
        """Say where this process is stuck."""
        samples = ", ".join(self.sample_ids) or "none yet"
        files = ", ".join(self._files_in_work()) or "none"
        return (
            f"{self.who} is stuck: nothing has moved for {self.timeout_s:g} s ({self.option}){self.place()}, "
            f"{self.doing}; samples: {samples}. Files being decoded: {files}. Raise {self.option} if it takes longer."
        )

    def place(self) -> str:
        """Say where in the work this is, as " in step 3"; empty where there are no steps."""
        return ""

    def start(self) -> None:
        """Begin to watch."""
        self.beat(self.doing)
        if self.timeout_s and self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._last_beat = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @contextmanager
    def watching(self) -> Iterator[Watchdog]:
        """Watch while a block runs."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def _watch(self) -> None:
        while (last_beat := self._last_beat) is not None:
            if time.monotonic() - last_beat > self.timeout_s:
                stack = traceback.format_stack(sys._current_frames()[threading.main_thread().ident or 0])
                sys.stderr.write(f"\nStuckError: {self.message()}\n{self.who} is here:\n{''.join(stack)}\n")
                sys.stderr.flush()
                os._exit(EXIT_STUCK)
            time.sleep(min(1.0, self.timeout_s / 10))


UNWATCHED = Watchdog(0)
"""Beats that nobody looks at."""
