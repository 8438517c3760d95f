from __future__ import annotations

import json

import pytest

from tests import launcher
from tests.conftest import REPO

pytestmark = pytest.mark.e2e


def test_the_gpu_benchmark_runs_on_a_cpu_and_the_plan_holds(tmp_path):
    out = tmp_path / "numbers.json"
    case = ["--case", "tiny-full-grpo", "--steps", "2", "--device", "cpu"]
    done = launcher.run([REPO / "benchmarks" / "gpu_training.py", *case, "--out", out])
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


def run_benchmark(name: str, *arguments: str) -> str:
    """Run it; the processes that it starts itself, of `sys.executable`, are forks, too."""
    file, python = str(REPO / "benchmarks" / name), str(launcher.python_file())
    code = f"import runpy, sys; sys.executable, sys.argv[0] = {python!r}, {file!r}\n"
    done = launcher.run(["-c", f"{code}runpy.run_path({file!r}, run_name='__main__')", *arguments])
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_step_benchmark_counts_and_compares(tmp_path):
    out = tmp_path / "step.json"
    printed = run_benchmark("grpo_step.py", "--quick", "--cases", "1", "--repeats", "1", "--json", str(out))
    result = json.loads(out.read_text())
    assert set(result["ratios"]) == {"step", "scoring", "generation"}
    (case,) = result["cases"]
    prompt, completions = case["prompt_tokens"], case["num_generations"] * case["completion_length"]
    # The reference's and the policy's forward: all rows with their prompt, or the prompt once.
    assert case["work"]["stock"]["scoring"]["tokens"] == 2 * (case["num_generations"] * prompt + completions)
    assert case["work"]["all"]["scoring"]["tokens"] == 2 * (prompt - 1 + completions)
    assert case["work"]["stock"]["scoring"]["flops"] > 2 * case["work"]["all"]["scoring"]["flops"] > 0
    assert all(floor > 0 for floor in case["floor_s"].values()) and case["peak_gib"].keys() == {"stock", "all"}
    assert "| all |" in printed
    picture = tmp_path / "step.png"
    run_benchmark("grpo_step.py", "--draw", str(out), "--plot", str(picture))
    assert picture.stat().st_size > 5000


def test_the_decoding_benchmark_reads_every_way(media_root, tmp_path):
    out = tmp_path / "decoding.json"
    printed = run_benchmark("decoding.py", "--video", str(media_root / "a.mp4"), "--repeats", "1", "--json", str(out))
    decoded, sampled = json.loads(out.read_text()).values()
    assert "decord" in decoded and len(decoded) >= 2 and sampled.keys() == {"load_video", "frame cache"}
    for ways in (decoded, sampled):
        assert all(figures["cpu_s"] > 0 and figures["clock_s"] > 0 for figures in ways.values())
        first = next(iter(ways.values()))
        for way, figures in ways.items():
            assert figures["ratio"] == pytest.approx(figures["cpu_s"] / first["cpu_s"], rel=0.01), way
    assert "| frame cache |" in printed
