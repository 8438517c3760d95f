"""What a launcher's variables must be, checked by the scripts before anything is started."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from tests.conftest import REPO


def run(script: str, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHON": "/bin/echo", **variables}
    command = ["bash", str(REPO / "scripts" / script), *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NUM_PROCESSES": "two"}, "NUM_PROCESSES=two: must be a whole number from 1"),
        ({"NUM_PROCESSES": "0"}, "NUM_PROCESSES=0: must be"),
        ({"NUM_PROCESSES": "-1"}, "NUM_PROCESSES=-1: must be"),
        ({"NUM_PROCESSES": "1.5"}, "NUM_PROCESSES=1.5: must be"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT=http: must be a whole number from 1 to 65535"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000: must be"),
        ({"NNODES": "0"}, "NNODES=0: must be"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "x"}, "NODE_RANK=2: must be below NNODES=2"),
        ({"OMP_NUM_THREADS": "many"}, "OMP_NUM_THREADS=many: must be"),
    ],
)
def test_a_wrong_variable_is_refused_in_one_line(variables, message):
    done = run("launch.sh", "sft", "a.yaml", **variables)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_a_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = run("launch.sh", "sft", "a.yaml", NUM_PROCESSES="2", MASTER_PORT=port)
    assert done.returncode == 2 and f"MASTER_PORT={port}: a program on this machine listens there" in done.stderr


def test_more_processes_than_gpus_are_refused(tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho GPU 0\necho GPU 1\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run("launch.sh", "sft", "a.yaml", NUM_PROCESSES="3", PATH=path)
    assert done.returncode == 2 and "NUM_PROCESSES=3, but this machine shows 2 GPUs" in done.stderr
    assert "--nproc_per_node 2" in run("launch.sh", "sft", "a.yaml", NUM_PROCESSES="2", PATH=path).stdout
    assert "--nproc_per_node 1" in run("launch.sh", "sft", "a.yaml", CUDA_VISIBLE_DEVICES="1", PATH=path).stdout


@pytest.mark.parametrize(
    "variable", ["SEED=x", "SEED=-1", "NUM_QUESTIONS=0", "SFT_STEPS=0", "GRPO_STEPS=1.5", "NUM_SAMPLES=none"]
)
def test_the_quickstart_checks_its_variables(variable):
    name, _, value = variable.partition("=")
    done = run("quickstart.sh", **{name: value})
    assert done.returncode == 2 and f"{name}={value}: must be a whole number" in done.stderr
