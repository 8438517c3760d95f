"""Evaluation against a real server: `transformers serve` with the toy world's base model, on loopback."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import yaml
from PIL import Image
from transformers.utils.import_utils import is_serve_available

from tests.conftest import REPO
from video_thinker.data.annotations import load_samples
from video_thinker.data.video import VideoSampling, load_video
from video_thinker.evaluation import run as runner
from video_thinker.models.loading import load_model, load_processor
from video_thinker.prompts import frame_label, render_question
from video_thinker.times import format_time

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not is_serve_available(), reason="transformers serve is not installed: pip install '.[serve]'"),
]

MODEL = str(REPO / "data" / "toy" / "base")
MAX_NEW_TOKENS = 16
PIXELS = 56 * 56


@pytest.fixture(scope="module")
def base_url():
    """Serve the model in a thread of this process, which spares the imports of another one."""
    from transformers.cli.serve import Serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Serve(MODEL, device="cpu", host="127.0.0.1", port=port, non_blocking=True)
    yield f"http://127.0.0.1:{port}/v1"
    server.kill_server()


@pytest.fixture
def config(base_url, media_root, items_file, tmp_path) -> Path:
    path = tmp_path / "eval.yaml"
    settings = {
        "backend": "openai",
        "base_url": base_url,
        "model_name_or_path": MODEL,
        "splits": {"id": str(items_file)},
        "num_samples": 3,
        "media_root": str(media_root),
        "output_dir": str(tmp_path / "out"),
        "prompt_style": "plain",
        "num_frames": 4,
        "min_pixels": PIXELS,  # the server's processor enlarges anything smaller
        "max_pixels": PIXELS,
        "image_format": "png",
        "max_new_tokens": MAX_NEW_TOKENS,
        "max_retries": 1,
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def completions(config: Path, key: str) -> list[str]:
    rows = [json.loads(line) for line in (config.parent / "out/predictions" / f"{key}.jsonl").read_text().splitlines()]
    assert all(row["error"] is None and row["num_tokens"] > 0 for row in rows)
    return [row["completion"] for row in rows]


def answer_here(media_root: Path, sample) -> str:
    """Answer as the server should: the same images and words, without a server between."""
    video = load_video(
        media_root / sample.media[0].path, VideoSampling(num_frames=4, min_pixels=PIXELS, max_pixels=PIXELS)
    )
    content = []
    for frame, time_s in zip(video.frames, video.timestamps_s, strict=True):
        image = Image.fromarray(frame.permute(1, 2, 0).numpy())
        content += [{"type": "text", "text": frame_label(format_time(round(time_s, 1)))}]
        content += [{"type": "image", "image": image}]
    content.append({"type": "text", "text": render_question(sample, "plain")})
    processor, model = load_processor(MODEL), load_model(MODEL)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    output_ids = model.eval().generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    return processor.tokenizer.decode(output_ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_a_real_server_sees_the_frames_that_were_sampled_here(config, media_root, items_file):
    assert runner.main([str(config), "video=[real,blank,shuffled,none]"]) == 0
    samples = load_samples(str(items_file))[:3]
    real = completions(config, "id")
    assert real == [answer_here(media_root, sample) for sample in samples]
    for control in ("blank", "shuffled", "none"):
        assert completions(config, f"id.{control}") != real


def test_what_a_real_server_refuses_is_failed_with_its_words(config):
    assert runner.main([str(config), "model_name_or_path=another", "num_samples=1"]) == 1
    (row,) = (config.parent / "out/predictions/id.jsonl").read_text().splitlines()
    assert "requested 'another'" in json.loads(row)["error"]
