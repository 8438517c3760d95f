"""One run, one folder: a second one is refused, naming the first; a dead process blocks nobody."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import REPO
from video_thinker.errors import ConfigError
from video_thinker.runs import lock
from video_thinker.runs.lock import LOCK_FILE, run_lock


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Most tests hold the lock themselves: a process that lives is not waited for."""
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits"))


@pytest.mark.parametrize(("held", "wanted", "free"), [(True, True, True), (True, False, False), (False, True, False)])
def test_a_folder_that_is_being_written_is_refused(tmp_path, held, wanted, free):
    with run_lock(tmp_path, shared=held):
        if free:
            with run_lock(tmp_path, shared=wanted):
                pass
        else:
            with pytest.raises(ConfigError, match="another run is working there"), run_lock(tmp_path, shared=wanted):
                pass
    with run_lock(tmp_path) as taken:
        taken.take(shared=True)
        with run_lock(tmp_path, shared=True):
            pass


HOLD = """
import sys
from pathlib import Path
from video_thinker.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_holder_is_named_and_a_dead_one_blocks_nobody(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(REPO / "src")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError) as refused, run_lock(tmp_path):
            pass
        assert f"process {other.pid} on {socket.gethostname()}, since 20" in str(refused.value)
        other.send_signal(signal.SIGKILL)
        other.wait()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_a_lock_file_of_an_earlier_version_is_no_hindrance(tmp_path, monkeypatch):
    (tmp_path / LOCK_FILE).write_text("")
    with run_lock(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()} on"), run_lock(tmp_path):
        pass
    monkeypatch.setattr(lock, "LOCK_TIMEOUT_S", 0.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with run_lock(tmp_path, shared=True):
        (tmp_path / LOCK_FILE).write_text("[1]")
        with pytest.raises(ConfigError, match="it does not say which"), run_lock(tmp_path):
            pass


def test_the_workers_of_a_dead_process_are_waited_for(tmp_path, monkeypatch):
    waited = []
    with run_lock(tmp_path) as taken:
        with subprocess.Popen(["true"]) as dead:
            dead.wait()
        (tmp_path / LOCK_FILE).write_text(json.dumps({"pid": dead.pid, "host": socket.gethostname(), "since": "now"}))

        def sleep(seconds):
            waited.append(seconds)
            taken.release()

        monkeypatch.setattr(time, "sleep", sleep)
        with run_lock(tmp_path):
            assert len(waited) == 1
