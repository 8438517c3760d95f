"""The scripts, as a user starts them, with a config and overrides; one run has Python itself and not the launcher."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests import launcher

pytestmark = pytest.mark.e2e


def run(*command: str, expected: int = 0, python: str | None = None) -> str:
    done = launcher.script(*command, env={"PYTHON": python} if python else None)
    output = done.stdout + done.stderr
    assert done.returncode == expected, output
    return output


@pytest.fixture(scope="module")
def overrides(tiny_model_dir, items_file, media_root) -> list[str]:
    return [f"train_file={items_file}", f"media_root={media_root}", "report_to=none", "max_pixels=3136", "fps=4.0"]


def test_sft_then_grpo(overrides, tiny_model_dir, tmp_path):
    sft, grpo = tmp_path / "sft", tmp_path / "grpo"
    output = run(
        "scripts/run_sft_video.sh",
        "configs/sft/toy.yaml",
        *overrides,
        f"model_name_or_path={tiny_model_dir}",
        f"output_dir={sft}",
        "max_steps=2",
        "per_device_train_batch_size=3",
        "logging_steps=1",
        python=sys.executable,
    )
    assert "attn_implementation" not in output and "step 2/2  loss" in output
    output = run(
        "scripts/run_grpo_video.sh",
        "configs/grpo/toy.yaml",
        *overrides,
        f"model_name_or_path={sft}",
        f"output_dir={grpo}",
        "max_steps=2",
        "num_generations=4",
        "per_device_train_batch_size=8",
        "max_completion_length=8",
        "attn_implementation=auto",
    )
    assert "attn_implementation: auto -> sdpa" in output
    assert "blind canary at step 0" in output
    history = json.loads((grpo / "trainer_state.json").read_text())["log_history"]
    assert any("rewards/format_reward/mean" in entry for entry in history)
    assert (grpo / "model.safetensors").is_file() and (grpo / "run.yaml").is_file()


def test_mistakes_give_one_paragraph_and_exit_code_2(overrides, tmp_path):
    output = run("scripts/run_grpo_video.sh", "configs/grpo/toy.yaml", "learning_rat=1", expected=2)
    assert "did you mean 'learning_rate'" in output and "Traceback" not in output
    no_model = f"model_name_or_path={tmp_path}/no_sft"
    output = run("scripts/run_grpo_video.sh", "configs/grpo/toy.yaml", *overrides, no_model, expected=2)
    assert "no config.json there" in output and "Traceback" not in output
    assert "usage" in run("scripts/run_sft_video.sh", expected=2)


def test_help_names_every_command():
    output = run(sys.executable, "-m", "video_thinker.cli", "--help")
    for command in ("sft", "grpo", "eval", "ask", "validate", "toy build"):
        assert f"\n  {command}" in output
    assert "unknown command 'nonsense'" in run(sys.executable, "-m", "video_thinker.cli", "nonsense", expected=2)


def test_missing_file_does_not_leave_half_a_run(overrides, tiny_model_dir, tmp_path):
    out = tmp_path / "out"
    output = run(
        "scripts/run_sft_video.sh",
        "configs/sft/toy.yaml",
        f"model_name_or_path={tiny_model_dir}",
        f"train_file={tmp_path}/nothing.jsonl",
        f"output_dir={out}",
        expected=2,
    )
    assert "nothing.jsonl" in output and not Path(out).exists()
