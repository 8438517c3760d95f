"""Both stages on real videos, where a developer has them beside the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import every_family
from video_thinker.training import grpo, sft

pytestmark = pytest.mark.integration


@every_family
def test_three_steps_of_sft_then_grpo_on_real_clips(shared_dir, tiny_model_dir, tmp_path):
    common = {
        "dtype": "float32",
        "train_file": str(shared_dir / "annotations" / "real_clips.json"),
        "media_root": str(shared_dir / "videos"),
        "prompt_style": "trace",
        "max_frames": 8,
        "max_pixels": 16 * 28 * 28,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "max_steps": 3,
        "logging_steps": 1,
        "save_strategy": "no",
        "canary_steps": 1,
    }
    stages = (
        (sft, {"model_name_or_path": str(tiny_model_dir), "per_device_train_batch_size": 2}),
        (
            grpo,
            {
                "model_name_or_path": str(tmp_path / "sft"),
                "per_device_train_batch_size": 4,
                "num_generations": 2,
                "max_completion_length": 16,
                "temperature": 1.0,
                "beta": 0.04,
                "reward_funcs": ["accuracy", "format", "temporal_iou", "length"],
            },
        ),
    )
    for stage, settings in stages:
        name = stage.__name__.rsplit(".", 1)[-1]
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump({**common, **settings, "output_dir": str(tmp_path / name)}))
        assert stage.main([str(config)]) == 0
        history = json.loads((Path(tmp_path) / name / "trainer_state.json").read_text())["log_history"]
        steps = [entry for entry in history if "loss" in entry]
        assert len(steps) == 3 and all(entry["canary/log_prob_gap"] > 1e-4 for entry in steps)
    assert {f"rewards/{r}_reward/mean" for r in ("accuracy", "format", "temporal_iou", "length")} <= steps[0].keys()
