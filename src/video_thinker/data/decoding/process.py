"""The parent: opens a media file in a child process, which is killed when the file keeps its caller waiting too long.

Decoders are C code: on some files they hang, crash or take all memory, and no exception, signal handler or thread of
this process can end that. So a child opens and decodes the file (`child.py`). Children are kept for later files: each
caller takes an idle one or starts one, so there are as many as files are decoded at a time. They end with this process.

A process that is forked (a data worker of PyTorch) leaves its parent's children alone and starts its own.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from video_thinker import errors
from video_thinker.config import DEFAULT_MEDIA_TIMEOUT_S
from video_thinker.data.decoding.failures import cannot_decode, check_file
from video_thinker.data.decoding.protocol import FrameSlot, receive_message, send_message
from video_thinker.errors import ConfigError, DecodeError, MediaMemoryError

START_TIMEOUT_S = 120.0
"""For the interpreter and the imports, which may come from a cold network disk. They do not count for a file."""

END_TIMEOUT_S = 5.0
"""A child that sits in the kernel, as on a dead network disk, dies late; nobody waits for that."""

_CHILD = (  # Ctrl-C and SLURM signal the whole job: the step in work still needs its frames, and the lifeline ends us
    "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]; "
    "import sys; sys.path[:] = {path!r}; from video_thinker.data.decoding.child import main; main({socket}, {slot})"
)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """A file to open, and what messages say about it.

    Args:
        path: The media file.
        factory: "module:name" of what makes its reader from `(path, *arguments)`. A reader has `facts`, anything that
            can be pickled, and `frames_at(times_s)`, an iterator over (time in seconds, uint8 (H, W, 3)).
        arguments: See `factory`.
        modules: Imported before the time is taken.
        decoder: The name of the decoder, for messages.
        remedy: What else a user can do than fix the file, e.g. "choose another video_backend".
        sample_id: The sample that wants the file.
        timeout_s: Seconds the file may keep its caller waiting in all, to be opened and decoded; `None` for no limit.
    """

    path: Path
    factory: str
    arguments: tuple[Any, ...] = ()
    modules: tuple[str, ...] = ()
    decoder: str = ""
    remedy: str = "drop its rows"
    sample_id: str = ""
    timeout_s: float | None = DEFAULT_MEDIA_TIMEOUT_S

    def describe(self, codec: str = "") -> str:
        """Name sample, decoder and codec, for the end of a sentence."""
        sample = f"sample {self.sample_id!r}, " if self.sample_id else ""
        return f"({sample}decoder {self.decoder}{f', codec {codec}' if codec else ''})"


class _Child:
    """One child and our end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.slot = FrameSlot.make()
        inherited = {"socket": theirs.fileno(), "slot": self.slot.fileno()}
        path = [entry or str(Path.cwd()) for entry in sys.path]
        command = [sys.executable, "-W", "ignore", "-c", _CHILD.format(path=path, **inherited)]
        self.connection = ours
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=list(inherited.values()),
            env={**os.environ, **_ONE_THREAD},
            process_group=0,  # Ctrl-C in the terminal is for the command
        )
        theirs.close()

    def let_go(self) -> None:
        """Close our ends, which ends the child."""
        self.connection.close()
        self.slot.close()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def kill(self) -> int | None:
        """End the child and give its exit code; `None` if it does not end in `END_TIMEOUT_S`."""
        self.process.kill()
        code = self.wait()
        self.let_go()
        return code

    def wait(self) -> int | None:
        """Wait for a child that is ending; give its exit code."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(END_TIMEOUT_S)
        return None

    def forget(self) -> None:
        """Let go of a child that is not this process's own but that of the process it was forked from."""
        self.let_go()
        self.process.returncode = 0  # what it is now is not for this process to ask


class _Children:
    """The children of this process: idle ones, and all."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._idle: list[_Child] = []
        self._all: weakref.WeakSet[_Child] = weakref.WeakSet()

    def start(self) -> _Child:
        """Start a child."""
        with self.lock:  # a fork meanwhile would copy an end of its socket that nobody closes
            child = _Child()
            self._all.add(child)
        return child

    def take_idle(self) -> _Child | None:
        """Take an idle child, if there is one that lives."""
        with self.lock:
            while self._idle:
                child = self._idle.pop()
                if child.process.poll() is None:
                    return child
                child.let_go()
        return None

    def give_back(self, child: _Child) -> None:
        """Keep a child for later files, unless there are idle ones enough."""
        with self.lock:
            if len(self._idle) < max(4, os.cpu_count() or 1):
                self._idle.append(child)
                return
        child.kill()

    def end(self) -> None:
        """End the idle children."""
        with self.lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def kill_busy(self) -> None:
        """Kill the children that decode; whoever waits for them gets an error."""
        with self.lock:
            for child in set(self._all) - set(self._idle):
                child.process.kill()

    def forget(self) -> None:
        """Let go of all, in a process that was forked."""
        self.lock = threading.Lock()
        for child in list(self._all):
            child.forget()
        self._idle = []
        self._all = weakref.WeakSet()


_CHILDREN = _Children()
atexit.register(_CHILDREN.end)
os.register_at_fork(
    before=lambda: _CHILDREN.lock.acquire(),
    after_in_parent=lambda: _CHILDREN.lock.release(),
    after_in_child=_CHILDREN.forget,
)


class _Wait:
    """The time that a child may keep its parent waiting: it runs only while the parent waits."""

    def __init__(self, seconds: float | None) -> None:
        self.left_s = seconds

    @contextmanager
    def on(self, connection: socket.socket) -> Iterator[None]:
        """Set the socket's time limit to what is left, and take off what was used. Raises `TimeoutError`."""
        if self.left_s is not None and self.left_s <= 0:
            raise TimeoutError
        connection.settimeout(self.left_s)
        start_s = time.monotonic()
        try:
            yield
        finally:
            if self.left_s is not None:
                self.left_s -= time.monotonic() - start_s

    def receive(self, connection: socket.socket, buffer: memoryview) -> None:
        """Fill `buffer`; see `receive_exactly`."""
        while buffer:
            with self.on(connection):
                received = connection.recv_into(buffer)
            if received == 0:
                raise EOFError
            buffer = buffer[received:]


class RemoteReader:
    """A reader in a child; see `MediaRequest`. `facts` are those of the reader there."""

    def __init__(self, child: _Child, request: MediaRequest) -> None:
        """Take over a child that `_prepare` has made ready for the request."""
        self.facts: Any = None
        self.codec = ""
        """For messages, once it is known."""
        self._child, self._request = child, request
        self._wait = _Wait(request.timeout_s)
        self._reusable = False  # whether the child waits for its next request

    def open(self) -> None:
        """Wait for the reader. Raises as `open_reader`."""
        self.facts = self._receive()[1]
        self._reusable = True

    def release(self) -> None:
        """Keep the child for later files, or end it where it is in the middle of something."""
        if self._reusable:
            with suppress(ConnectionError):  # it has ended; the next one to take it will see
                send_message(self._child.connection, ("close",))
            _CHILDREN.give_back(self._child)
        else:
            self._child.kill()

    def frames_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
        """Give the reader's frames, uint8 (H, W, 3), with their times in seconds, one by one.

        Raises:
            DecodeError: the time is up, the decoder has crashed, or what the reader raises.
            MediaMemoryError: there is not enough memory.
        """
        self._reusable = False
        self._send("frames", list(times_s))
        while (message := self._receive())[0] == "frame":
            _, time_s, shape = message
            frame_HWC = self._child.slot.array(shape).copy()
            self._send("taken")
            yield time_s, frame_HWC
        self._reusable = True

    def _send(self, *message: Any) -> None:
        try:
            send_message(self._child.connection, message)
        except (TimeoutError, ConnectionError):  # a child that lives always reads
            raise self._ended() from None

    def _receive(self) -> tuple[Any, ...]:
        try:
            message = receive_message(self._child.connection, self._wait.receive)
        except TimeoutError:
            raise self._too_late() from None
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if message[0] == "error":
            self._reusable = True
            raise _rebuild(self._request, message[1], message[2])
        return message

    def _too_late(self) -> DecodeError:
        self._child.kill()
        request = self._request
        return DecodeError(
            f"{request.path}: decoding did not end within {request.timeout_s:g} s {request.describe(self.codec)}; "
            f"fix the file, {request.remedy}, or raise media_timeout_s."
        )

    def _ended(self) -> DecodeError | MediaMemoryError:
        code, request = self._child.wait(), self._request
        if code == -signal.SIGKILL:
            return _out_of_memory(request, "the decoding process was killed, as the system does when memory runs out")
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return DecodeError(
            f"{request.path}: the decoder crashed ({how}) {request.describe(self.codec)}; fix the file, or "
            f"{request.remedy}."
        )


def _out_of_memory(request: MediaRequest, cause: str) -> MediaMemoryError:
    return MediaMemoryError(
        f"{request.path}: not enough memory to decode it: {cause} {request.describe()}; the file need not be broken: "
        "free memory, decode fewer files at a time (dataloader_num_workers, --workers), or make it smaller."
    )


def _rebuild(request: MediaRequest, class_name: str, words: str) -> Exception:
    """Make the exception again that a reader has raised.

    Want of memory and our own errors keep their class. All others, of which each decoder has its own, and a reader's
    `DecodeError` that says the cause only, become one that names file, sample and cause.
    """
    module, _, name = class_name.rpartition(".")
    if module == "builtins" and name == "MemoryError":
        return _out_of_memory(request, words or "the decoder could not get the memory it asked for")
    if module == errors.__name__ and name != DecodeError.__name__:
        found: Exception = getattr(errors, name)(words)
        return found
    if words.startswith(str(request.path)):
        return DecodeError(words)
    return cannot_decode(request.path, request.sample_id, words or name)


def _prepare(child: _Child, request: MediaRequest) -> bool:
    """Send the request and wait until the child has imported what it needs; false if the child has ended instead.

    Raises:
        ConfigError: something cannot be imported, or not in `START_TIMEOUT_S`.
    """
    arguments = (str(request.path), *request.arguments)
    try:
        send_message(child.connection, ("open", request.factory, request.modules, str(Path.cwd()), arguments))
        answer = receive_message(child.connection, _Wait(START_TIMEOUT_S).receive)
    except TimeoutError:
        raise ConfigError(
            f"the decoding process did not start within {START_TIMEOUT_S:g} s; look at the load of the machine and at "
            "the disk of its Python packages."
        ) from None
    except (EOFError, ConnectionError):
        return False
    if answer[0] == "error":
        raise ConfigError(
            f"decoder {request.decoder} cannot be loaded ({answer[1]}: {answer[2]}); install its package again, or "
            f"{request.remedy}."
        )
    return True


def _ready_child(request: MediaRequest) -> _Child:
    """Take an idle child, or start one, and make it ready for the request."""
    child = _CHILDREN.take_idle() or _CHILDREN.start()
    fresh = False
    while True:
        try:
            ready = _prepare(child, request)
        except BaseException:
            child.kill()
            raise
        if ready:
            return child
        code = child.kill()
        if fresh:
            raise ConfigError(f"the decoding process does not start (exit code {code}); what it wrote stands above.")
        child, fresh = _CHILDREN.start(), True


_IN_WORK: dict[int, str] = {}


def files_in_work() -> list[str]:
    """Name the files that this process waits for, with their samples and decoders; for the message about a hang."""
    return list(_IN_WORK.copy().values())


def end_decoding() -> None:
    """End all decoding that this process waits for in any thread, with an error there."""
    _CHILDREN.kill_busy()


@contextmanager
def open_reader(request: MediaRequest) -> Iterator[RemoteReader]:
    """Open a media file in a child process.

    Raises:
        DecodeError: there is no such file, the time is up, the decoder has crashed, or the reader raises anything.
        MediaMemoryError: there is not enough memory; the file need not be broken.
        ConfigError: the child or the decoder's package cannot be loaded, or the reader raises it.
    """
    check_file(request.path, request.sample_id)
    _IN_WORK[id(request)] = f"{request.path} {request.describe()}"
    try:
        reader = RemoteReader(_ready_child(request), request)
        try:
            reader.open()
            yield reader
        finally:
            reader.release()
    finally:
        _IN_WORK.pop(id(request), None)
