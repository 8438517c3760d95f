"""One run in one folder, of one data set; and none that goes on with numbers that are not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.conftest import early_ends, write_items
from video_thinker import cli
from video_thinker.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from video_thinker.runs.lock import run_lock
from video_thinker.runs.manifest import MANIFEST, write_manifest
from video_thinker.training import grpo, sft
from video_thinker.training import trainer as grpo_trainer
from video_thinker.training.loop.checkpoints import list_checkpoints

pytestmark = pytest.mark.integration
DIVERGING = ["learning_rate=1e30", "max_grad_norm=0", "max_steps=6"]


@pytest.fixture
def config(tiny_model_dir: Path, media_root: Path, items_file: Path, tmp_path: Path):
    """A small SFT or GRPO that saves each step, and the folder it writes to."""
    common = {
        "model_name_or_path": str(tiny_model_dir),
        "dtype": "float32",
        "train_file": str(items_file),
        "media_root": str(media_root),
        "output_dir": str(tmp_path / "out"),
        "fps": 4.0,
        "max_pixels": 56 * 56,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "logging_steps": 1,
        "canary_steps": 0,
        "lr_scheduler_type": "constant",
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "max_steps": 2,
    }
    own = {
        "sft": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
        "grpo": {
            "reward_funcs": ["length"],
            "reward_params": {"length": {"min_tokens": 0, "max_tokens": 7, "min_accuracy": 0.0}},
            "num_generations": 4,
            "per_device_train_batch_size": 4,
            "max_completion_length": 8,
            "generation_kwargs": early_ends(tiny_model_dir),
        },
    }

    def write(stage: str) -> str:
        (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump({**common, **own[stage]}))
        return str(tmp_path / f"{stage}.yaml")

    return write


@pytest.mark.parametrize(("stage", "main"), [("sft", sft.main), ("grpo", grpo.main)])
def test_a_run_that_diverges_stops_names_its_samples_and_keeps_a_checkpoint_that_is_finite(
    config, tmp_path, stage, main
):
    with pytest.raises(NonFiniteError, match=r"step \d: .*q\d.* last good checkpoint is .*checkpoint-\d") as stopped:
        main([config(stage), *DIVERGING])
    (kept,) = list_checkpoints(tmp_path / "out")
    assert str(kept) in str(stopped.value)
    assert all(weight.isfinite().all() for weight in load_file(kept / "model.safetensors").values())
    assert not (tmp_path / "out" / "model.safetensors").exists()
    losses = [row["loss"] for row in json.loads((kept / "trainer_state.json").read_text())["log_history"]]
    assert all(map(math.isfinite, losses))
    assert "NonFiniteError: step" in (tmp_path / "out" / "train.log").read_text()


def test_a_loss_of_grpo_that_is_not_finite_never_reaches_the_weights(config, tmp_path, monkeypatch):
    compute = grpo_trainer.VideoGRPOTrainer._compute_loss

    def diverge(self, model, inputs):
        loss = compute(self, model, inputs)
        return loss * float("nan") if self.state.global_step == 1 else loss

    monkeypatch.setattr(grpo_trainer.VideoGRPOTrainer, "_compute_loss", diverge)
    with pytest.raises(NonFiniteError, match=r"step 2: a loss is nan \(rank 0; samples: q\d\); the norm .* is nan"):
        grpo.main([config("grpo")])
    assert [path.name for path in list_checkpoints(tmp_path / "out")] == ["checkpoint-1"]


def test_weights_that_are_not_finite_are_never_saved_and_never_gone_on_with(config, tmp_path, monkeypatch):
    """Here the optimizer spoils them after a finite step."""
    step = sft.VideoSFTTrainer._get_grad_norm

    def spoil(self, model, grad_norm=None):
        norm = step(self, model, grad_norm)
        if self.state.global_step == 1:
            for group in self.optimizer.param_groups:
                group["lr"] = float("inf")
        return norm

    with monkeypatch.context() as patch:
        patch.setattr(sft.VideoSFTTrainer, "_get_grad_norm", spoil)
        with pytest.raises(NonFiniteError, match=r"step 2: \d+ weight tensors are not finite .*checkpoint-1"):
            sft.main([config("sft")])
    (kept,) = list_checkpoints(tmp_path / "out")
    assert kept.name == "checkpoint-1"
    weights = load_file(kept / "model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, kept / "model.safetensors", metadata={"format": "pt"})
    (kept / MANIFEST).unlink()
    write_manifest(kept)
    with pytest.raises(CheckpointError, match="checkpoint-1: 1 weight tensors are not finite"):
        sft.main([config("sft")])


def test_a_reward_that_is_no_number_is_an_error_with_the_sample(config, monkeypatch):
    from video_thinker import rewards

    def broken(completions, **columns):
        return [0.0, 1.0, 0.5, "high"][: len(completions)]

    monkeypatch.setitem(rewards.REWARD_FUNCS, "length", broken)
    path = Path(config("grpo"))
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "reward_params": None}))
    with pytest.raises(DataError, match=r"completion 3 of sample 'q\d': the reward broken is 'high'"):
        grpo.main([str(path)])


def test_a_folder_in_use_is_refused_before_anything_is_written(config, tmp_path, capsys):
    with run_lock(tmp_path / "out"):
        assert cli.main(["sft", config("sft")]) == 2
        assert cli.main(["grpo", config("grpo")]) == 2
    assert capsys.readouterr().err.count("another run is working there (process") == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_finished_run_is_not_overwritten_and_other_data_are_refused(config, items, items_file, tmp_path, caplog):
    path = config("sft")
    assert sft.main([path, "save_strategy=no"]) == 0
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    caplog.set_level("INFO")
    assert sft.main([path, "save_strategy=no"]) == 0
    assert "nothing is left to do" in caplog.text and "next: video-thinker grpo" in caplog.text
    other = write_items(tmp_path / "other.jsonl", items[::-1])
    for options in (["seed=5"], ["resume=never"], [f"train_file={other}"]):
        with pytest.raises(ConfigError, match="nothing is overwritten"):
            sft.main([path, "save_strategy=no", *options])
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    assert sft.main([path, "seed=5", f"train_file={other}", "overwrite=true", "max_steps=1"]) == 0
    assert "deleted the run in" in caplog.text
    other.write_text("".join(json.dumps(item) + "\n" for item in items))
    for options in (["max_steps=1"], ["max_steps=2"]):
        with pytest.raises(DataError, match=r"sample 1, 'q0' \(.*other\.jsonl:1\), was 'q5'"):
            sft.main([path, "seed=5", f"train_file={other}", *options])
