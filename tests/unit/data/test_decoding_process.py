"""The decoding process: what a reader in it gives and raises, what ends it, and that nothing of it is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from video_thinker.data.decoding import process
from video_thinker.data.decoding.process import MediaRequest, open_reader
from video_thinker.errors import ConfigError, DecodeError, MediaMemoryError

REPO = Path(__file__).parents[3]
TIMES_S = [0.1, 0.2, 0.3, 0.4]
HANG_LIMIT_S = 60


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(name: str, **options) -> MediaRequest:
    """Ask for a file, which is made; it is its name that the fake reader reads."""
    Path(name).write_text("not empty")
    options = {"timeout_s": 60.0, "decoder": "fake", "sample_id": "v7", **options}
    return MediaRequest(Path(name), "tests.fake_readers:FakeReader", **options)


def read(name: str, **options) -> tuple[int, list[int]]:
    """Read a file: the child's process id, and the tenths of seconds that its frames show."""
    with open_reader(request(name, **options)) as reader:
        return reader.facts["pid"], [int(frame[-1, -1, -1]) for _, frame in reader.frames_at(TIMES_S)]


def until(condition) -> bool:
    """Wait for something that another process does; false after `HANG_LIMIT_S`."""
    end_s = time.monotonic() + HANG_LIMIT_S
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    return bool(condition())


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_frames_come_with_their_times_from_one_child_without_torch():
    process._CHILDREN.end()  # one that torchcodec was used in has torch
    with open_reader(request("a", arguments=((300, 500),))) as reader:
        frames = list(reader.frames_at(TIMES_S))
        again = list(reader.frames_at([2.5]))
        assert reader.facts["pid"] != os.getpid() and not reader.facts["torch"]
    assert [time_s for time_s, _ in frames] == TIMES_S
    for time_s, frame in [*frames, *again]:
        assert frame.dtype == np.uint8 and np.array_equal(frame, np.full((300, 500, 3), round(time_s * 10), np.uint8))
    assert read("b") == (reader.facts["pid"], [1, 2, 3, 4])


def test_relative_paths_are_those_of_the_parent_now(folder, monkeypatch):
    pid, _ = read("a")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    with open_reader(request("clip")) as reader:
        assert reader.facts["pid"] == pid and reader.facts["there"]


@pytest.mark.parametrize("when", ["open", "frames"])
@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("hang", DecodeError, r"decoding did not end within 0.5 s \(sample 'v7', decoder fake\).*media_timeout_s"),
        ("segfault", DecodeError, r"crashed \(SIGSEGV\) \(sample 'v7', decoder fake\)"),
        ("exit", DecodeError, r"crashed \(exit code 3\)"),
        ("sigkill", MediaMemoryError, r"not enough memory.*was killed.*need not be broken"),
    ],
)
def test_a_child_that_hangs_or_dies_is_an_error_and_the_next_file_gets_a_new_one(what, error, words, when):
    before, _ = read("a")
    with pytest.raises(error, match=rf"{what}_{when}: .*{words}") as caught:
        read(f"{what}_{when}", timeout_s=0.5 if what == "hang" else 60.0)
    assert isinstance(caught.value, MemoryError) == (error is MediaMemoryError)
    after, levels = read("a")
    assert after != before and levels == [1, 2, 3, 4]
    assert not alive(before)


@pytest.mark.parametrize("when", ["open", "frames"])
@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("decode", DecodeError, r"^decode_\w+: cannot decode \(sample 'v7': the stream is cut off\); fix the file"),
        ("config", ConfigError, "^no such setting$"),
        ("value", DecodeError, r"^value_\w+: cannot decode \(sample 'v7': a wrong value\)"),
        ("own", DecodeError, r"^own_\w+: cannot decode \(sample 'v7': in its words\)"),
        ("wordless", DecodeError, r"^wordless_\w+: cannot decode \(sample 'v7': EOFError\)"),
        ("memory", MediaMemoryError, "memory_.*not enough memory.*sample 'v7'"),
        ("own-memory", MediaMemoryError, "own-memory_.*not enough memory.*sample 'v7'"),
        ("bad-alloc", MediaMemoryError, "bad-alloc_.*not enough memory.*std::bad_alloc"),
    ],
)
def test_what_a_reader_raises_is_raised_here_and_its_child_is_kept(what, error, words, when):
    before, _ = read("a")
    with pytest.raises(error, match=words) as caught:
        read(f"{what}_{when}")
    assert type(caught.value) is error
    assert read("a") == (before, [1, 2, 3, 4])


def test_the_limit_is_for_all_frames_and_not_for_what_is_done_with_them(monkeypatch):
    with pytest.raises(DecodeError, match="did not end within 0.5 s"):
        read("slow", timeout_s=0.5)  # 0.2 s for each frame
    assert read("slow", timeout_s=None)[1] == [1, 2, 3, 4]
    now_s = 0.0
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: now_s))
    with open_reader(request("a", timeout_s=60.0)) as reader:
        for _ in reader.frames_at(TIMES_S):
            now_s += 1000.0
    assert now_s == 4000.0


def test_frames_that_nobody_took_are_not_those_of_the_next_file():
    with open_reader(request("a", arguments=((900, 900),))) as reader:
        next(reader.frames_at([9.0] * 8))
    assert read("b")[1] == [1, 2, 3, 4]


def test_an_idle_child_that_has_died_is_replaced():
    pid, _ = read("a")
    os.kill(pid, signal.SIGKILL)
    assert read("b")[0] != pid


def test_a_decoder_that_cannot_be_imported_is_a_matter_of_the_config():
    with pytest.raises(ConfigError, match=r"decoder fake cannot be loaded .*no_such_decoder"):
        read("a", modules=("no_such_decoder",))


def test_threads_share_children_but_never_one_at_a_time():
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(read, [f"file{number}" for number in range(24)]))
    assert all(levels == [1, 2, 3, 4] for _, levels in found)
    assert len({pid for pid, _ in found}) <= 3


def in_a_fork(results) -> None:
    results.send(read("b"))


def test_a_forked_worker_has_children_of_its_own():
    before, _ = read("a")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    worker = context.Process(target=in_a_fork, args=(theirs,), daemon=True)  # as PyTorch's data workers are
    worker.start()
    assert ours.poll(HANG_LIMIT_S)
    own, levels = ours.recv()
    worker.join(HANG_LIMIT_S)
    assert worker.exitcode == 0 and levels == [1, 2, 3, 4] and own != before
    assert read("c") == (before, [1, 2, 3, 4])
    assert until(lambda: not alive(own))


SCRIPT = """
import os, sys, time
from pathlib import Path
from video_thinker.data.decoding import process
from video_thinker.data.decoding.process import MediaRequest, open_reader
folder = Path(sys.argv[1])
def read(name):
    (folder / name).write_text("not empty")
    with open_reader(MediaRequest(folder / name, "tests.fake_readers:FakeReader", timeout_s=None)) as reader:
        return list(reader.frames_at([0.1, 0.2, 0.3]))
try:
    read("sound")
    if "fork" in sys.argv and os.fork() == 0:
        Path(folder / f"worker.{os.getpid()}").touch()
        time.sleep(300)
    if "end" not in sys.argv:
        read("hang_frames")
except KeyboardInterrupt:
    print("interrupted")
"""


def start_script(folder: Path, *words: str) -> subprocess.Popen:
    path = os.pathsep.join([str(REPO / "src"), str(REPO)])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), *words],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pid_of(folder: Path, name: str) -> int:
    """Wait for the file NAME.PID that a process leaves in the folder."""
    assert until(lambda: list(folder.glob(f"{name}.*")))
    return int(next(folder.glob(f"{name}.*")).suffix[1:])


def test_a_child_in_c_code_ends_when_its_parent_is_killed(tmp_path):
    script = start_script(tmp_path, "fork")
    child, worker = pid_of(tmp_path, "hangs"), pid_of(tmp_path, "worker")
    assert alive(child)
    script.kill()
    script.wait(HANG_LIMIT_S)
    assert until(lambda: not alive(child))
    assert alive(worker)  # a forked process that lives on does not hold the child
    os.kill(worker, signal.SIGKILL)


def test_an_interrupt_of_the_terminal_ends_all_without_a_word_of_the_child(tmp_path):
    script = start_script(tmp_path)
    child = pid_of(tmp_path, "hangs")
    assert os.getpgid(child) != script.pid  # it is not sent to the child
    os.killpg(script.pid, signal.SIGINT)
    assert script.communicate(timeout=HANG_LIMIT_S) == ("interrupted\n", "")
    assert until(lambda: not alive(child))


def test_nothing_is_left_when_the_command_ends(tmp_path):
    script = start_script(tmp_path, "end")
    parent = psutil.Process(script.pid)
    children: set[int] = set()
    while script.poll() is None:
        children |= {child.pid for child in parent.children()}
        time.sleep(0.01)
    assert script.communicate() == ("", "") and script.returncode == 0
    assert children and until(lambda: not any(map(alive, children)))
