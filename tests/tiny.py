"""What tests train on: one tiny model of each family, clips of a second per color, items on them, and a run's config.

The models and clips are written once per session, into a folder that all xdist workers share (`shared_once`), by the
fixtures `tiny_models`, `tiny_model_dir`, `media_root` and `items_file`. A test that needs another clip or item calls
`write_clip`, `make_item` and `write_items`; one that runs a stage starts from `RUN` and `GRPO_RUN`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

RUN = {
    "dtype": "float32",
    "attn_implementation": "sdpa",
    "prompt_style": "trace_concise",
    "fps": 4.0,
    "max_pixels": 56 * 56,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "learning_rate": 1e-3,
    "logging_steps": 1,
}
"""Settings that the runs of tests share."""

GRPO_RUN = {
    "reward_funcs": ["length"],
    "reward_params": {"length": {"min_tokens": 0, "max_tokens": 7, "min_accuracy": 0.0}},
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "beta": 0.04,
}
"""Settings that the GRPO runs of tests share beside those: a reward that random completions get by their lengths."""


def shared_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Let the first worker fill a folder, and give the folder to all.

    Args:
        tmp_path_factory: pytest's.
        name: A name that no other folder of the session has.
        make: Called with an empty folder. What it writes must not name the folder, which is renamed when complete.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, unfinished = root / f"shared-{name}", root / f"unfinished-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def write_clip(
    path: Path, colors: list[tuple[int, int, int]], *, fps: int = 8, size: tuple[int, int] = (64, 64)
) -> Path:
    """Write an mp4 that shows each color for one second; `size` is (width, height)."""
    import av
    import numpy as np

    rng = np.random.default_rng(len(colors))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for color in colors:
            for _ in range(fps):
                image = np.full((size[1], size[0], 3), color, dtype=np.uint8)
                image[: size[1] // 2, : size[0] // 2] = rng.integers(0, 255, 3)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def make_media(root: Path) -> None:
    """Write clips a.mp4 (4 s), b.mp4 (6 s, other colors), c.mp4 (5 s, wide); still.png; broken.mp4 (half a file)."""
    from PIL import Image

    write_clip(root / "a.mp4", [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)])
    write_clip(root / "b.mp4", [(0, 200, 200), (200, 0, 200), (90, 90, 90), (255, 255, 255), (0, 0, 0), (120, 60, 0)])
    write_clip(root / "c.mp4", [(20, 40, 60), (60, 40, 20), (200, 100, 50), (50, 100, 200), (1, 2, 3)], size=(128, 64))
    Image.new("RGB", (70, 50), (200, 30, 60)).save(root / "still.png")
    (root / "broken.mp4").write_bytes((root / "a.mp4").read_bytes()[:900])


def early_ends(model_dir: Path) -> dict:
    """Options of `generate` with which a random model ends completions at many lengths, so that rewards differ."""
    end = json.loads((model_dir / "generation_config.json").read_text())["eos_token_id"]
    return {"sequence_bias": [[[end], 3.0]]}


def make_item(name: str, path: str | None = None, **fields: object) -> dict:
    """Write one raw item on a clip of `media_root`."""
    item = {
        "problem_id": name,
        "problem": "Which color comes last?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. red", "B. green", "C. blue", "D. yellow"],
        "solution": "<answer>D</answer>",
        "path": path or "a.mp4",
        "data_source": "test",
        "segments": [{"start_s": 3.0, "end_s": 4.0, "caption": "yellow"}],
        "process": "I look. <time>00:03-00:04</time> <caption>yellow</caption> <think>the last</think> So yellow.",
    }
    return {**item, **fields}


def write_items(path: Path, items: list[dict]) -> Path:
    """Write items as JSONL."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def tiny_config(processor) -> dict:
    """Make the part of a tiny model's config that the families share: `text_config` and the ids of vision tokens."""
    token_id = processor.tokenizer.convert_tokens_to_ids
    return {
        "text_config": {
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.1,
            "bos_token_id": None,
            "eos_token_id": processor.tokenizer.eos_token_id,
            "pad_token_id": processor.tokenizer.pad_token_id,
        },
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
    }


TINY_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "initializer_range": 0.1,
}


def make_tiny_qwen2_5_vl(tokenizer):
    """Make a random Qwen2.5-VL of 0.2M parameters and its processor."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from video_thinker.toyworld.tokenizer import make_processor

    processor = make_processor(tokenizer)
    config = tiny_config(processor)
    config["text_config"]["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    windows = {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    config = Qwen2_5_VLConfig(**config, vision_config={**TINY_VISION, **windows})
    return Qwen2_5_VLForConditionalGeneration(config), processor


def make_tiny_qwen3_vl(tokenizer):
    """Make a random Qwen3-VL of 0.2M parameters, with deepstack features of both tower layers, and its processor."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )
    from trl.chat_template_utils import qwen3_vl_chat_template

    shape = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    mean_and_std = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape, **mean_and_std),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**shape),
        chat_template=qwen3_vl_chat_template,
    )
    config = tiny_config(processor)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 1e4}
    # One layer above those that get deepstack features: added to the last one they would reach no loss.
    config["text_config"] |= {"head_dim": 16, "rope_parameters": rope, "num_hidden_layers": 3}
    deepstack = {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    config = Qwen3VLConfig(**config, vision_config={**TINY_VISION, **deepstack})
    return Qwen3VLForConditionalGeneration(config), processor


MODEL_FAMILIES = {"qwen2_5_vl": make_tiny_qwen2_5_vl, "qwen3_vl": make_tiny_qwen3_vl}


def make_models(folder: Path) -> None:
    """Save a tiny model of each family with its processor; weights wide enough that pixels matter."""
    import torch

    from video_thinker.toyworld.tokenizer import train_tokenizer

    texts = ["Which color comes right after red? green blue yellow A. B. C. D. I look. the last first So 00:00-00:03"]
    for family, make in MODEL_FAMILIES.items():
        torch.manual_seed(0)
        model, processor = make(train_tokenizer(texts, vocab_size=400))
        model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
        model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
        model.save_pretrained(folder / family)
        processor.save_pretrained(folder / family)


every_family = pytest.mark.parametrize("tiny_model_dir", MODEL_FAMILIES, indirect=True)
qwen3_vl_only = pytest.mark.parametrize("tiny_model_dir", ["qwen3_vl"], indirect=True)
