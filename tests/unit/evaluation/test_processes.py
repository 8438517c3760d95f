from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from video_thinker.evaluation.processes import (
    LineCounter,
    failed_code,
    process_environment,
    run_processes,
    visible_devices,
)


def test_one_that_fails_does_not_stop_the_others(tmp_path):
    commands = [["sh", "-c", "exit 3"], ["sh", "-c", "kill -9 $$"], ["sh", "-c", f"sleep 0.3; echo > {tmp_path}/done"]]
    codes = run_processes(commands, [os.environ] * 3)
    assert codes == [3, -9, 0] and (tmp_path / "done").exists()


def test_one_exit_code_for_several():
    assert [failed_code(codes) for codes in ([], [0, 0], [0, 2], [1, 2, -9], [-9, 0])] == [0, 0, 2, 2, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    pid_file = tmp_path / "pid"
    code = (
        "import os; from video_thinker.evaluation.processes import run_processes; "
        f"run_processes([['sh', '-c', 'echo $$ > {pid_file}; exec sleep 60']], [os.environ])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 20
    while not pid_file.exists() or not pid_file.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    stat = Path(f"/proc/{int(pid_file.read_text())}/stat")
    while stat.exists() and stat.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the process outlived its parent"
        time.sleep(0.01)


def test_each_process_gets_a_gpu_or_its_share_of_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert [process_environment(i, 3, ["4", "6"])["CUDA_VISIBLE_DEVICES"] for i in range(3)] == ["4", "6", "4"]
    assert process_environment(0, 4, [])["OMP_NUM_THREADS"] == "2"
    assert process_environment(0, 20, [])["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert process_environment(0, 4, [])["OMP_NUM_THREADS"] == "5"


def test_the_gpus_are_those_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_devices(2) == ["2", "5"] and visible_devices(0) == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_devices(3) == ["0", "1", "2"]


def test_lines_are_counted_as_they_come(tmp_path):
    counter = LineCounter([tmp_path / "a", tmp_path / "b"])
    assert counter.count() == 0
    (tmp_path / "a").write_text("1\n2\nhal")
    assert counter.count() == 2
    (tmp_path / "b").write_text("1\n")
    with (tmp_path / "a").open("a") as file:
        file.write("f\n")
    assert counter.count() == counter.count() == 4
