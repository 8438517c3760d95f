"""Python programs as real processes, without the seconds that importing torch, TRL and DeepSpeed takes.

One process imports the libraries, when the first program asks for it, and forks for each program::

    done = launcher.run(["-m", "video_thinker.cli", "validate", file], env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr

`run` and `Popen` take what follows `python` on a command line (`-m MODULE …`, `-c CODE …` or `FILE …`) and behave like
those of `subprocess`: a pid, a session and process group, a folder, an environment, pipes, signals and an exit code of
its own. `ranks` starts the processes of a distributed run without torchrun, and `script` a shell script that finds the
launcher in the place of Python. What differs: variables that a library reads while it is imported, and
`/proc/PID/cmdline`, are those of the launcher. A test of either starts a process with `subprocess`.

All xdist workers share one launcher. It ends with pytest, however pytest ends, and takes its programs along.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired

REPO = Path(__file__).parents[1]
ADDRESS = "VIDEO_THINKER_TEST_LAUNCHER"
PRELOAD = "VIDEO_THINKER_TEST_PRELOAD"
LIBRARIES = (
    "torch.distributed.run deepspeed video_thinker.training.sft video_thinker.training.grpo "
    "video_thinker.evaluation.run video_thinker.diagnostics.validate video_thinker.synthesis.run "
    "deepspeed.runtime.zero.muon.muon_optimizer"  # its `@torch.compile` imports all of inductor in each rank
)
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",  # threads do not survive a fork
    "PYTHONPATH": os.pathsep.join([str(REPO / "src"), str(REPO)]),
}


def start_server() -> subprocess.Popen:
    """Start the launcher, which imports nothing before the first program, and put its address into the environment."""
    address = str(Path(tempfile.mkdtemp(prefix="launcher-")) / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    with listener:
        server = subprocess.Popen(
            [sys.executable, "-c", f"from tests import launcher; launcher.main({listener.fileno()})"],
            cwd=REPO,
            env={**os.environ, **ENVIRONMENT, ADDRESS: address},
            stdin=PIPE,  # whose end tells the launcher that pytest has ended
            start_new_session=True,  # Ctrl-C is for pytest
            pass_fds=[listener.fileno()],
        )
    os.environ[ADDRESS] = address
    python = python_file()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -E -P -S {Path(__file__).resolve()} "$@"\n')
    python.chmod(0o755)
    return server


def python_file() -> Path:
    """Name the file that stands for a Python interpreter in scripts: what it runs is a program of the launcher."""
    return Path(os.environ[ADDRESS]).with_name("python")


def stop_server(server: subprocess.Popen) -> None:
    """End the launcher and its programs."""
    server.stdin.close()
    server.wait(30)
    del os.environ[ADDRESS]


class Popen:
    """A program of the launcher, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        cwd: str | Path = REPO,
        env: Mapping[str, str | None] | None = None,
        stdin: int = DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
        text: bool = True,
    ):
        """Start a program; `env` changes the environment of this process, and None takes a variable away."""
        self.args = [str(word) for word in arguments]
        self.returncode: int | None = None
        changed = {**os.environ, "PYTHONPATH": ENVIRONMENT["PYTHONPATH"], **(env or {})}
        request = {
            "arguments": self.args,
            "cwd": str(cwd),
            "env": {name: value for name, value in changed.items() if value is not None},
        }
        with contextlib.ExitStack() as theirs:
            self.stdin, child_in = self._stream(theirs, stdin, 0, "w", text)
            self.stdout, child_out = self._stream(theirs, stdout, 1, "r", text)
            self.stderr, child_err = (
                (None, child_out) if stderr == STDOUT else self._stream(theirs, stderr, 2, "r", text)
            )
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(os.environ[ADDRESS])
            data = json.dumps(request).encode()
            socket.send_fds(self._connection, [len(data).to_bytes(4, "big")], [child_in, child_out, child_err])
            self._connection.sendall(data)
        self._lines = self._connection.makefile("r")
        self.pid = int(self._lines.readline())

    @staticmethod
    def _stream(theirs: contextlib.ExitStack, kind: int | None, default: int, mode: str, text: bool):
        """Give our end of a stream, or None, and the descriptor that the program gets."""
        if kind is None:
            return None, default
        if kind == DEVNULL:
            return None, theirs.enter_context(Path(os.devnull).open("r+b")).fileno()
        if kind != PIPE:
            return None, kind
        ends = os.pipe()
        ours, child = ends if mode == "r" else ends[::-1]
        theirs.callback(os.close, child)
        return os.fdopen(ours, mode if text else f"{mode}b"), child

    def poll(self) -> int | None:
        with contextlib.suppress(TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise TimeoutExpired(self.args, timeout)
            status = self._lines.readline()
            if not status:
                raise RuntimeError("the launcher of the tests has ended")
            self.returncode = os.waitstatus_to_exitcode(int(status))
            self._lines.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        """Read both outputs to their ends; on a timeout the program is killed."""
        read: dict[str, str] = {}
        streams = {name: stream for name in ("stdout", "stderr") if (stream := getattr(self, name)) is not None}
        threads = [
            threading.Thread(target=lambda name=name: read.update({name: streams[name].read()}), daemon=True)
            for name in streams
        ]
        for thread in threads:
            thread.start()
        try:
            self.wait(timeout)
        except TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
            for thread in threads:
                thread.join(5)
            raise AssertionError(f"{self.args} took over {timeout} s. Its output:\n{read}") from None
        for thread in threads:
            thread.join()
        return read.get("stdout"), read.get("stderr")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Popen:
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def popen(args: Sequence[str], *, env: Mapping[str, str], stdout=None, stderr=None, **_: object) -> Popen:
    """Stand in for `subprocess.Popen` in code that starts Python by itself."""
    python, *arguments = args
    assert python == sys.executable, args
    return Popen(arguments, env=env, stdout=stdout and stdout.fileno(), stderr=stderr and stderr.fileno())


def run(arguments: Sequence[str | Path], *, timeout: float = 300, **options: object) -> CompletedProcess:
    """Run a program to its end and keep its outputs."""
    with Popen(arguments, stdout=PIPE, stderr=PIPE, **options) as program:
        out, error = program.communicate(timeout)
    return CompletedProcess(program.args, program.returncode, out, error)


def script(*command: str | Path, timeout: float = 300, env: Mapping[str, str] | None = None) -> CompletedProcess:
    """Run a shell script of the project; its Python programs are the launcher's."""
    return subprocess.run(
        list(map(str, command)),
        cwd=REPO,
        env={**os.environ, "PYTHON": str(python_file()), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def stand_in(arguments: Sequence[str]) -> int:
    """Be the Python interpreter of a script: start a program of the launcher and pass signals on to it."""
    passed = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, passed)
    program = Popen(arguments, cwd=Path.cwd(), stdin=None)
    for number in passed:
        signal.signal(number, lambda number, _: os.kill(program.pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed)
    code = program.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def ranks(
    num_ranks: int, arguments: Sequence[str | Path], *, timeout: float = 300, env: Mapping[str, str] | None = None
) -> list[CompletedProcess]:
    """Run a program as so many ranks of a gloo group; when one of them fails, the others are killed."""
    group = {"WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks, "MASTER_ADDR": "127.0.0.1"}
    group["MASTER_PORT"] = free_port()
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2 * num_ranks)]
        programs = []
        for rank in range(num_ranks):
            mine = {name: str(value) for name, value in {**group, "RANK": rank, "LOCAL_RANK": rank}.items()}
            out, error = outputs[2 * rank : 2 * rank + 2]
            streams = {"stdout": out.fileno(), "stderr": error.fileno()}
            programs.append(Popen(arguments, env={**(env or {}), **mine}, **streams))
        deadline = time.monotonic() + timeout
        while any(program.poll() is None for program in programs):
            if any(program.returncode for program in programs) or time.monotonic() > deadline:
                for program in programs:
                    program.kill()
            time.sleep(0.02)
        texts = []
        for file in outputs:
            file.seek(0)
            texts.append(file.read())
    return [
        CompletedProcess(program.args, program.returncode, *texts[2 * rank : 2 * rank + 2])
        for rank, program in enumerate(programs)
    ]


# The rest runs in the launcher and in its forks.


def receive(connection: socket.socket) -> tuple[dict, list[int]] | None:
    """Read a request and its three descriptors; None from a client that has ended."""
    header, descriptors, *_ = socket.recv_fds(connection, 4, 3)
    if len(header) < 4:
        return None
    with connection.makefile("rb") as stream:
        return json.loads(stream.read(int.from_bytes(header, "big"))), descriptors


@cache
def preload() -> None:
    for name in os.environ.get(PRELOAD, LIBRARIES).split():
        importlib.import_module(name)
    if "accelerate" in sys.modules:
        from tests.quick_libraries import speed_up

        speed_up()
    gc.freeze()  # so that a collection in a fork does not copy all pages


def serve(listener: socket.socket) -> tuple[dict, list[int]] | None:
    """Fork for each request; returns the request in each fork, and None when pytest has ended."""
    running: dict[int, socket.socket] = {}  # the clients by the pids of their programs
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        for source in (listener, sys.stdin.fileno(), woken):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                reap(running)
            if sys.stdin.fileno() in ready:
                for pid in running:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                return None
            if listener in ready and (request := fork(listener, running)):
                os.close(woken)
                os.close(wake)
                return request


def fork(listener: socket.socket, running: dict[int, socket.socket]) -> tuple[dict, list[int]] | None:
    """Answer one client; in the fork, returns its request."""
    connection, _ = listener.accept()
    request = receive(connection)
    if request is None:
        connection.close()
        return None
    preload()
    pid = os.fork()
    if pid:
        for descriptor in request[1]:
            os.close(descriptor)
        running[pid] = connection
        return None
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.sendall(f"{os.getpid()}\n".encode())
    for theirs in (listener, connection, *running.values()):
        theirs.close()
    return request


def reap(running: dict[int, socket.socket]) -> None:
    """Tell the clients whose programs have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        connection = running.pop(pid)
        with contextlib.suppress(OSError):  # the client has ended before its program
            connection.sendall(f"{status}\n".encode())
        connection.close()


def become(request: dict, descriptors: list[int]) -> None:
    """Turn a fork into the program of a request, and run it."""
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if request["env"].get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # the random and torch modules start as in any process
    kind, *rest = request["arguments"]
    if kind == "-u":
        sys.stdout.reconfigure(write_through=True)
        kind, *rest = rest
    if kind == "-m":
        name, *words = rest
        sys.argv = [name, *words]
        sys.path[0] = request["cwd"]
        if name == "torch.distributed.run":
            fork_workers_of_torchrun()
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        code, *words = rest
        sys.argv = ["-c", *words]
        sys.path[0] = ""
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    elif kind.startswith("-"):
        raise ValueError(f"the launcher of the tests does not know the option {kind}: start a process with subprocess")
    else:
        sys.argv = [kind, *rest]
        sys.path[0] = str(Path(kind).resolve().parent)
        runpy.run_path(kind, run_name="__main__")


def fork_workers_of_torchrun() -> None:
    """Let torchrun start its workers through the launcher, too."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    subprocess_handler.Popen = popen


def finish() -> None:
    """Do what Python does at the end of a program, but for taking apart the libraries, which takes long."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it; the program has closed it
            stream.flush()


def main(descriptor: int) -> None:
    program = serve(socket.socket(fileno=descriptor))
    if program is None:
        shutil.rmtree(Path(os.environ[ADDRESS]).parent, ignore_errors=True)
        os._exit(0)
    code: object = 0
    try:
        become(*program)
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        traceback.print_exc()
        finish()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 as Python itself does
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    finish()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    sys.exit(stand_in(sys.argv[1:]))
