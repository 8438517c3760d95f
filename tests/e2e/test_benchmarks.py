from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

REPO = Path(__file__).parents[2]


def test_the_gpu_benchmark_runs_on_a_cpu_and_the_plan_holds(tmp_path):
    out = tmp_path / "numbers.json"
    command = [sys.executable, "benchmarks/gpu_training.py", "--case", "tiny-full-grpo", "--steps", "2"]
    done = subprocess.run(
        [*command, "--device", "cpu", "--out", str(out)], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    (case,) = report["cases"]
    assert report["attention"].startswith("not run")
    assert case["attn_implementation"] == "sdpa"
    assert {"rollout", "scoring", "backward", "optimizer"} <= case["seconds_per_step"].keys() & case["peak_gib"].keys()
    assert all(seconds > 0 for seconds in case["seconds_per_step"].values())
    for phase, predicted in case["predicted_gib"].items():
        assert predicted == pytest.approx(case["peak_gib"][phase], rel=0.2), phase
    assert 0.85 < case["predicted_over_measured"] < 1.15
