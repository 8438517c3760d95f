"""The child: opens one file after the other with the reader it is told, and sends the frames it is asked for.

It imports numpy and the decoder, never torch unless the decoder does. It ends with its parent, however the parent
ends: standard input is a pipe in which nothing is ever written, and the kernel kills the child when its other end
closes, even in the middle of C code that holds the interpreter.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import select
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from video_thinker.data.decoding.protocol import FrameSlot, receive_exactly, receive_message, send_message
from video_thinker.memory import is_out_of_memory

LIFELINE = 0
"""Standard input; see the module."""

OOM_SCORE = 500
"""Of 1000: where memory runs out, the kernel should end the decoder of a huge file and not the training run."""


def end_with_parent() -> None:
    """Arrange that the kernel ends this process when the parent's end of the lifeline closes."""
    if hasattr(fcntl, "F_SETSIG"):  # Linux
        fcntl.fcntl(LIFELINE, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(LIFELINE, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(LIFELINE, fcntl.F_SETFL, fcntl.fcntl(LIFELINE, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([LIFELINE], [], [], 0)[0]:
            os._exit(0)  # it had ended before
    else:
        threading.Thread(target=lambda: os._exit(len(os.read(LIFELINE, 1))), daemon=True).start()


def die_first() -> None:
    """Tell the kernel to end this process before its parent where memory runs out."""
    score = Path("/proc/self/oom_score_adj")
    if score.exists() and int(score.read_text(encoding="utf-8")) < OOM_SCORE:
        score.write_text(str(OOM_SCORE), encoding="utf-8")


def resolve(factory: str) -> Callable[..., Any]:
    """Import what `module:name` names."""
    module, _, name = factory.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def describe(error: Exception) -> tuple[str, str]:
    """Give the class of an exception as "module.Name", and its message. Want of memory is one class in all decoders."""
    if is_out_of_memory(error):
        return "builtins.MemoryError", str(error)
    return f"{type(error).__module__}.{type(error).__qualname__}", str(error)


class Server:
    """Answers the requests of `protocol`.

    Args:
        connection: The child's end of the socket.
        slot: Where frames are put.
    """

    def __init__(self, connection: socket.socket, slot: FrameSlot) -> None:
        """See the class."""
        self._connection, self._slot = connection, slot
        self._reader: Any = None

    def serve(self) -> None:
        """Answer until the parent closes the socket."""
        while True:
            try:
                kind, *arguments = self._receive()
            except (EOFError, ConnectionError):
                return
            try:
                getattr(self, f"_{kind}")(*arguments)
            except ConnectionError:
                return
            except Exception as error:  # noqa: BLE001 - sent to the parent, which raises it there
                self._send("error", *describe(error))

    def _receive(self) -> tuple[Any, ...]:
        return receive_message(self._connection, receive_exactly)

    def _send(self, *message: Any) -> None:
        send_message(self._connection, message)

    def _open(self, factory: str, modules: tuple[str, ...], folder: str, arguments: tuple[Any, ...]) -> None:
        self._reader = None
        os.chdir(folder)  # paths are as the parent's, also where they are relative
        for name in modules:
            importlib.import_module(name)
        make_reader = resolve(factory)
        self._send("imported")
        self._reader = make_reader(*arguments)
        self._send("opened", self._reader.facts)

    def _frames(self, times_s: list[float]) -> None:
        frame_HWC: np.ndarray
        slot_is_free = True
        for time_s, frame_HWC in self._reader.frames_at(times_s):
            if not slot_is_free:
                self._receive()  # "taken"
            self._slot.array(frame_HWC.shape)[...] = frame_HWC
            self._send("frame", time_s, frame_HWC.shape)
            slot_is_free = False
        self._send("end")

    def _taken(self) -> None:
        """Go on: the last frame has been taken, or an error has come after it."""

    def _close(self) -> None:
        self._reader = None


def main(socket_descriptor: int, slot_descriptor: int) -> None:
    """Serve on an inherited socket, with an inherited slot."""
    end_with_parent()
    die_first()
    warnings.simplefilter("ignore")
    quiet = os.open(os.devnull, os.O_WRONLY)
    connection = socket.socket(fileno=socket_descriptor)
    os.dup2(quiet, sys.stderr.fileno())  # FFmpeg writes there what a message of ours says better
    Server(connection, FrameSlot(slot_descriptor)).serve()
