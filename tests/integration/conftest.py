"""A GRPO trainer on a tiny model and a data set of mixed media; quick libraries for the integration tests."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import PreTrainedModel
from trl.trainer import grpo_trainer

from tests.conftest import make_item, write_items
from tests.quick_libraries import speed_up
from tests.rollouts import G, spread_reward
from video_thinker.config import VideoArguments
from video_thinker.data.annotations import load_samples
from video_thinker.data.encode import build_encoder
from video_thinker.generation.engine import Engine
from video_thinker.models.loading import freeze, load_model, load_positions, load_processor
from video_thinker.training.dataset import build_dataset
from video_thinker.training.grpo import VideoGRPOConfig, VideoGRPOTrainer

speed_up()
read_processor = functools.cache(load_processor)
TINY_MODELS: dict[str, PreTrainedModel] = {}


def copy_of(load: Callable[..., PreTrainedModel], path: str, **options: object) -> PreTrainedModel:
    """Load a tiny model, which takes longer than most tests' forwards, and from then on copy it."""
    key = f"{load.__name__} {path} {sorted(options.items())}"
    if key not in TINY_MODELS:
        TINY_MODELS[key] = load(path, **options)
    return copy.deepcopy(TINY_MODELS[key])


@pytest.fixture(scope="session")
def mixed_items(tmp_path_factory) -> Path:
    """One video, two videos, an image, image and video, text only: prompts of very different lengths."""
    items = [
        make_item("video"),
        make_item("two", ["b.mp4", "a.mp4"]),
        make_item("image", "still.png", data_type="image"),
        make_item("both", ["still.png", "c.mp4"], data_type=["image", "video"]),
        make_item("text", data_type="text"),
    ]
    for item in items[1:]:
        item.pop("segments")
    del items[4]["path"]
    return write_items(tmp_path_factory.mktemp("sharing") / "mixed.jsonl", items)


@pytest.fixture
def make_grpo_trainer(
    tiny_model_dir: Path, media_root: Path, mixed_items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    load_reference = functools.partial(copy_of, grpo_trainer.create_model_from_path)
    monkeypatch.setattr(grpo_trainer, "create_model_from_path", load_reference)

    def make(
        frozen: bool = False,
        lora: bool = False,
        attn: str = "sdpa",
        reward=spread_reward,
        model_dir: Path = tiny_model_dir,
        engine: Engine | str | None = None,
        **overrides,
    ) -> VideoGRPOTrainer:
        settings = {
            "output_dir": str(tmp_path / "grpo"),
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "report_to": "none",
            "num_generations": G,
            "per_device_train_batch_size": 5 * G,
            "max_completion_length": 14,
            "beta": 0.04,
            "temperature": 0.9,
            "top_p": 0.95,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "canary_steps": 0,
        }
        video = VideoArguments(media_root=str(media_root), prompt_style="trace_concise", fps=4.0, max_pixels=64 * 64)
        encoder = build_encoder(read_processor(str(model_dir)), video, load_positions(str(model_dir)))
        ends = {"sequence_bias": [[[encoder.processor.tokenizer.eos_token_id], 3.0]]}  # completions of many lengths
        settings["generation_kwargs"] = {"min_new_tokens": 2, **ends}
        if isinstance(engine, str):
            engine, overrides = None, {**overrides, "engine": engine}
        torch.manual_seed(1)
        trainer = VideoGRPOTrainer(
            model=copy_of(load_model, str(model_dir), dtype="float32", attn_implementation=attn, trainable=True),
            encoder=encoder,
            args=VideoGRPOConfig(**{**settings, **overrides}),
            engine=engine,
            reward_funcs=reward,
            train_dataset=build_dataset(load_samples(mixed_items), encoder),
            peft_config=LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False) if lora else None,
        )
        if frozen:
            freeze(trainer.model, ["vision_tower", "merger"])
        return trainer

    return make
