"""The SFT stage through TRL's trainer: it sees the video, trains everything, and refuses to train blind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.conftest import every_family, make_item, write_items
from tests.tiny import RUN
from video_thinker.config import VideoArguments
from video_thinker.data.annotations import load_samples
from video_thinker.data.collate import SFTCollator
from video_thinker.errors import BlindModelError, ConfigError, DataError
from video_thinker.models.loading import load_encoder, load_model
from video_thinker.training import sft
from video_thinker.training.dataset import build_dataset
from video_thinker.training.sft import VideoSFTConfig, VideoSFTTrainer

pytestmark = pytest.mark.integration


@pytest.fixture
def config(tiny_model_dir: Path, media_root: Path, items_file: Path, tmp_path: Path) -> dict:
    return {
        **RUN,
        "model_name_or_path": str(tiny_model_dir),
        "train_file": str(items_file),
        "media_root": str(media_root),
        "max_pixels": 64 * 64,
        "output_dir": str(tmp_path / "sft"),
        "per_device_train_batch_size": 3,
        "max_steps": 3,
        "canary_steps": 2,
        "save_strategy": "no",
    }


def write_config(config: dict, folder: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@every_family
def test_the_command_trains_and_saves_what_plain_transformers_loads(config, tiny_model_dir, tmp_path):
    path = write_config(config, tmp_path)
    assert (
        sft.main([path, "max_steps=2", "eval_strategy=steps", "eval_steps=1", f"eval_file={config['train_file']}"]) == 0
    )
    saved = Path(config["output_dir"])
    model = AutoModelForImageTextToText.from_pretrained(saved, dtype="float32")
    AutoProcessor.from_pretrained(saved)
    before = dict(load_model(str(tiny_model_dir), dtype="float32").named_parameters())
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    history = json.loads((saved / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert any("eval_loss" in entry for entry in history)
    assert history[0]["canary/log_prob_gap"] > 1e-4
    info = yaml.safe_load((saved / "run.yaml").read_text())
    assert info["config"]["max_steps"] == 2 and info["config"]["fps"] == 4.0 and info["packages"]["trl"]


@every_family
def test_loss_is_the_mean_over_target_tokens_with_the_video(config, tiny_model_dir, media_root, items_file):
    video = VideoArguments(media_root=str(media_root), prompt_style="trace_concise", fps=4.0, max_pixels=64 * 64)
    encoder = load_encoder(str(tiny_model_dir), video)
    samples = load_samples(items_file)
    model = load_model(str(tiny_model_dir), dtype="float32")
    keys = ("output_dir", "use_cpu", "bf16", "gradient_checkpointing", "report_to", "save_strategy")
    trainer = VideoSFTTrainer(
        model=model,
        args=VideoSFTConfig(canary_steps=0, **{key: config[key] for key in keys}),
        train_dataset=build_dataset(samples, encoder),
        data_collator=SFTCollator(encoder),
        processing_class=encoder.processor,
    )
    batch = SFTCollator(encoder)([{"sample": sample} for sample in samples[:3]])
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


@every_family
def test_blind_canary_stops_a_blind_run(config, tmp_path, monkeypatch):
    """A collator that loses the pixels (here: replaces them by the mean color) must not train."""
    from video_thinker.data.encode import blank_media

    original = SFTCollator.__call__
    monkeypatch.setattr(SFTCollator, "__call__", lambda self, rows: blank_media(original(self, rows)))
    with pytest.raises(BlindModelError, match="does not see the video"):
        sft.main([write_config(config, tmp_path)])


def test_decode_error_stops_the_run_by_default(config, items, tmp_path):
    config["train_file"] = str(write_items(tmp_path / "items.jsonl", [*items, make_item("bad", "broken.mp4")]))
    config["max_steps"] = 9
    with pytest.raises(DataError, match=r"broken\.mp4.*'bad'"):
        sft.main([write_config(config, tmp_path)])


def test_skip_drops_counts_and_lists_and_is_capped(config, items, tmp_path, caplog):
    config["train_file"] = str(write_items(tmp_path / "items.jsonl", [*items, make_item("bad", "broken.mp4")]))
    config.update(on_decode_error="skip", max_decode_errors=0.2, max_steps=1)
    assert sft.main([write_config(config, tmp_path)]) == 0
    listed = [json.loads(line) for line in (Path(config["output_dir"]) / "skipped.jsonl").read_text().splitlines()]
    assert [row["problem_id"] for row in listed] == ["bad"] and "broken.mp4" in listed[0]["error"]
    assert "dropped 1 of 7" in caplog.text
    with pytest.raises(DataError, match="1 of 7 items cannot be decoded"):
        sft.main([write_config(config, tmp_path), "max_decode_errors=0.1", f"output_dir={tmp_path / 'other'}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rat=1e-5", "did you mean 'learning_rate'"),
        ("attn_implementation=flashy", "attn_implementation=flashy: must be one of auto"),
        ("model_name_or_path=./nowhere", "no config.json there"),
        ("on_decode_error=replace", "on_decode_error=replace: must be one of raise, skip"),
        ("prompt_style=poem", "poem"),
        ("min_frames=40", "min_frames=40, max_frames=16"),
        ("freeze=[eyes]", "each one of vision_tower, merger, language_model"),
    ],
)
def test_bad_config_is_refused_before_training(config, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        sft.main([write_config(config, tmp_path), override])
