"""Several processes on one evaluation: each answers its share of the batches and writes its own predictions.

Nothing is exchanged between them, so they are plain subprocesses: `video-thinker eval … num_processes=N process=I`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
POLL_S = 0.2

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Leave Ctrl-C to the process that started this one, and end when that one ends, however it ends; see prctl(2).

    A terminal sends Ctrl-C to all of them. The parent says its one line and ends the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def eval_command(argv: Sequence[str]) -> list[str]:
    """Give the command line of `video-thinker eval`."""
    return [sys.executable, "-m", "video_thinker.cli", "eval", *argv]


def process_environment(process: int, num_processes: int, devices: Sequence[str]) -> dict[str, str]:
    """Give a process one of the GPUs, or without GPUs its share of the CPU cores, unless OMP_NUM_THREADS is set.

    It shows no progress bars: the process that started it has one for all.
    """
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[process % len(devices)]
    else:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    return environment


def visible_devices(num_gpus: int) -> list[str]:
    """Name the GPUs this process may use, as `CUDA_VISIBLE_DEVICES` does."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:num_gpus] if names else [str(number) for number in range(num_gpus)]


def run_processes(
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    on_poll: Callable[[], None] = lambda: None,
) -> list[int]:
    """Run commands side by side until all have ended; one that fails does not stop the others.

    Args:
        commands: Command lines.
        environments: Their environments.
        on_poll: Called a few times per second, and once at the end.

    Returns:
        Their exit codes; -N after signal N.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command, environment in zip(commands, environments, strict=True):
            processes.append(subprocess.Popen(command, env=dict(environment), preexec_fn=die_with_parent))  # noqa: PLW1509
        while any(process.poll() is None for process in processes):
            time.sleep(POLL_S)
            on_poll()
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
    on_poll()
    return [process.wait() for process in processes]


def failed_code(codes: Sequence[int]) -> int:
    """Give one exit code for several: 0 if all are, else the largest, where a signal counts as 1."""
    return max((1 if code < 0 else code for code in codes), default=0)


class LineCounter:
    """Counts the lines that files gain; each call reads only what is new."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Files that are not there yet are empty."""
        self._read = dict.fromkeys(paths, 0)
        self.num_lines = 0

    def count(self) -> int:
        """Number of lines in all files so far."""
        for path, offset in self._read.items():
            if path.exists():
                with path.open("rb") as file:
                    file.seek(offset)
                    new = file.read()
                self._read[path] = offset + len(new)
                self.num_lines += new.count(b"\n")
        return self.num_lines
