"""What a run logs: every metric is there and right, and measuring changes no number of the training."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import torch
import yaml

from video_thinker.completions import read_rows
from video_thinker.data.collate import SampleEncoder
from video_thinker.errors import ConfigError
from video_thinker.flops import causal_pairs
from video_thinker.training import grpo, sft
from video_thinker.training.grpo import VideoGRPOTrainer
from video_thinker.training.telemetry import PHASES, Telemetry

pytestmark = pytest.mark.integration
STAGES = {"sft": sft, "grpo": grpo}
G = 4
MEASURED = {
    *(f"time/{phase}" for phase in (*PHASES, "step")),
    "perf/tokens_per_s",
    "perf/samples_per_s",
    "perf/tflops",
    "data/wait_share",
    "memory/host_rss_gib",
}
LOGGED = {
    "sft": {"loss", "grad_norm", "learning_rate", "mean_token_accuracy", "entropy", "num_tokens"},
    "grpo": {
        "loss",
        "grad_norm",
        "learning_rate",
        "reward",
        "reward_std",
        *(f"rewards/{name}_reward/{what}" for name in ("accuracy", "format", "length") for what in ("mean", "std")),
        "frac_reward_zero_std",
        "groups/all_correct",
        "groups/all_wrong",
        "groups/mixed",
        "kl",
        "entropy",
        "clip_ratio/region_mean",
        "completions/clipped_ratio",
        *(f"completions/{what}_length" for what in ("mean", "min", "max", "mean_terminated")),
        "step_time",
        "num_tokens",
    },
}


@pytest.fixture
def run(tiny_model_dir: Path, media_root: Path, items_file: Path, tmp_path: Path):
    """Run a stage through its command; gives its log entries of training."""
    common = {
        "model_name_or_path": str(tiny_model_dir),
        "dtype": "float32",
        "attn_implementation": "sdpa",
        "train_file": str(items_file),
        "media_root": str(media_root),
        "prompt_style": "trace_concise",
        "fps": 4.0,
        "max_pixels": 56 * 56,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "max_steps": 2,
        "canary_steps": 2,
        "gradient_accumulation_steps": 2,
    }
    special = {
        "sft": {"per_device_train_batch_size": 2},
        "grpo": {
            "reward_funcs": ["accuracy", "format", "length"],
            "reward_params": {"length": {"min_tokens": 0, "max_tokens": 7, "min_accuracy": 0.0}},
            "num_generations": G,
            "per_device_train_batch_size": G,
            "max_completion_length": 10,
            "beta": 0.04,
            "log_completions_steps": 1,
        },
    }

    def do(stage: str, name: str = "run", **options) -> list[dict]:
        output_dir = tmp_path / name
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**common, **special[stage], **options, "output_dir": str(output_dir)}))
        assert STAGES[stage].main([str(path)]) == 0
        history = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
        return [entry for entry in history if "loss" in entry]

    return do


@pytest.mark.parametrize("stage", STAGES)
def test_every_metric_is_logged_and_phases_add_up_to_the_step(run, stage):
    entries = run(stage, peak_tflops=0.5)
    assert len(entries) == 2
    for entry in entries:
        wanted = MEASURED | LOGGED[stage] | {"perf/mfu"}
        assert wanted <= entry.keys(), wanted - entry.keys()
        assert all(math.isfinite(entry[key]) for key in wanted)
        phases = [entry[f"time/{phase}"] for phase in PHASES]
        assert all(seconds >= 0 for seconds in phases)
        assert sum(phases) == pytest.approx(entry["time/step"], rel=1e-4)
        assert entry["perf/mfu"] == pytest.approx(entry["perf/tflops"] / 0.5)
        assert 0.05 < entry["memory/host_rss_gib"] < 64
        worked = {"decode", "vision", "forward", "backward", "optimizer"}
        worked |= {"generation", "scoring", "reward"} if stage == "grpo" else set()
        for phase in {*PHASES} - {"other"}:
            assert (entry[f"time/{phase}"] > 0) == (phase in worked), phase
