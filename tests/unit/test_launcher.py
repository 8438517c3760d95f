"""A program of the launcher behaves like one that `subprocess` starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests import launcher
from tests.launcher import PIPE, STDOUT

WAITS = "import time; print('ready', flush=True); time.sleep(300)"


def test_it_has_a_folder_an_environment_pipes_and_a_code_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GONE", "1")
    code = (
        "import os, sys; print(os.getcwd(), os.environ['GIVEN'], 'GONE' in os.environ, sys.argv, sys.stdin.read());"
        "print('wrong', file=sys.stderr); sys.exit(7)"
    )
    environment = {"GIVEN": "x", "GONE": None}
    done = launcher.run(["-c", code, "a"], cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (7, "wrong\n")
    assert done.stdout == f"{tmp_path} x False ['-c', 'a'] \n"
    assert launcher.run(["-c", "raise ValueError('no')"]).returncode == 1


def test_libraries_are_there_and_its_threads_work():
    code = (
        "import sys; ready = 'torch' in sys.modules; import torch; x = torch.randn(300, 300, requires_grad=True)\n"
        "(x @ x).sum().backward(); print(ready, x.grad.shape[0], torch.initial_seed(), __name__)"
    )
    one, two = (launcher.run(["-c", code]) for _ in range(2))
    assert one.stdout == two.stdout and one.stdout.startswith("True 300 "), one.stderr


def test_modules_and_files_run_as_main(tmp_path):
    file = tmp_path / "main.py"
    file.write_text("import sys\nif __name__ == '__main__':\n    print(sys.argv[1:], sys.path[0])\n")
    assert launcher.run([file, "x"]).stdout == f"['x'] {tmp_path}\n"
    done = launcher.run(["-m", "video_thinker.cli", "nonsense"])
    assert done.returncode == 2 and "unknown command 'nonsense'" in done.stderr and "RuntimeWarning" not in done.stderr


def test_atexit_handlers_run():
    assert launcher.run(["-c", "import atexit; atexit.register(print, 'last')"]).stdout == "last\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it(number):
    with launcher.Popen(["-c", WAITS], stdout=PIPE, stderr=STDOUT) as program:
        assert program.stdout.readline() == "ready\n" and program.poll() is None
        assert os.getpgid(program.pid) == os.getsid(program.pid) == program.pid != os.getpgid(0)
        os.killpg(program.pid, number)
        assert program.wait(60) == -number
    assert not psutil.pid_exists(program.pid)


def test_ctrl_c_interrupts_it():
    with launcher.Popen(["-c", WAITS], stdout=PIPE, stderr=PIPE) as program:
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in program.communicate(60)[1]
    assert program.returncode == -signal.SIGINT


def test_ranks_form_a_group_and_a_failed_one_ends_it():
    code = (
        "import torch, torch.distributed as dist; dist.init_process_group('gloo')\n"
        "x = torch.ones(1) * dist.get_rank(); dist.all_reduce(x); print(int(x)); dist.destroy_process_group()"
    )
    done = launcher.ranks(2, ["-c", code])
    assert [(rank.returncode, rank.stdout) for rank in done] == [(0, "1\n")] * 2, done
    done = launcher.ranks(2, ["-c", "import os, time; time.sleep(300 * int(os.environ['RANK'])); raise SystemExit(3)"])
    assert [rank.returncode for rank in done] == [3, -signal.SIGKILL]


def test_nothing_is_left_when_pytest_is_killed(tmp_path):
    """A process that starts a launcher and a program, and is killed."""
    code = (
        "from tests import launcher; server = launcher.start_server()\n"
        f"program = launcher.Popen(['-c', {WAITS!r}], stdout=launcher.PIPE); program.stdout.readline()\n"
        "print(server.pid, program.pid, flush=True); import time; time.sleep(300)"
    )
    environment = {**os.environ, launcher.PRELOAD: ""}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=launcher.REPO, env=environment, stdout=PIPE, text=True) as tests:
        processes = [psutil.Process(int(pid)) for pid in tests.stdout.readline().split()]
        tests.kill()
    gone, alive = psutil.wait_procs(processes, timeout=60)
    assert len(gone) == 2 and not alive
