"""Samples -> model inputs: every row sees its own media, at the right times, and is graded on its target only."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.conftest import every_family, make_item, write_items
from video_thinker.config import VideoArguments
from video_thinker.data.annotations import load_samples
from video_thinker.data.collate import IGNORE_INDEX, SFTCollator
from video_thinker.data.conversation import build_target
from video_thinker.data.encode import SampleEncoder, blank_media
from video_thinker.errors import DataError, DecodeError
from video_thinker.models.loading import load_encoder, load_model
from video_thinker.schema import VideoSample

pytestmark = pytest.mark.integration
FPS = 4.0  # not 2, where a lost `second_per_grid_ts` would go unnoticed


@pytest.fixture(scope="module")
def encoder(tiny_model_dir: Path, media_root: Path) -> SampleEncoder:
    args = VideoArguments(media_root=str(media_root), prompt_style="trace_concise", fps=FPS, max_pixels=64 * 64)
    return load_encoder(str(tiny_model_dir), args)


@pytest.fixture(scope="module")
def samples(items_file: Path) -> list[VideoSample]:
    return load_samples(items_file)


def rows(samples: list[VideoSample]) -> list[dict]:
    return [{"sample": sample} for sample in samples]


@every_family
def test_labels_are_the_target_and_the_end_of_turn_only(encoder, samples):
    batch = SFTCollator(encoder)(rows(samples[:3]))
    for sample, ids, labels in zip(samples, batch["input_ids"], batch["labels"], strict=False):
        graded = ids[labels != IGNORE_INDEX]
        assert encoder.processor.tokenizer.decode(graded) == build_target(sample) + "<|im_end|>"
        assert torch.equal(labels[labels != IGNORE_INDEX], graded)
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORE_INDEX).all()


@every_family
def test_each_row_of_a_batch_sees_its_own_video(encoder, samples, tiny_model_dir):
    model = load_model(str(tiny_model_dir), dtype="float32").eval()
    collate = SFTCollator(encoder)
    batch = collate(rows(samples[:3]))
    assert len(batch["video_grid_thw"]) == 3
    with torch.no_grad():
        together = model(**batch).logits
        for row, sample in enumerate(samples[:3]):
            single = collate(rows([sample]))
            alone = model(**single).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)
        swapped = {**batch, "pixel_values_videos": batch["pixel_values_videos"].flip(0)}
        assert (model(**swapped).logits - together).abs().max() > 1e-2


@pytest.mark.parametrize("fps", [1.0, 2.0, 4.0])
def test_real_timestamps_reach_the_position_ids(tiny_model_dir, media_root, fps):
    args = VideoArguments(media_root=str(media_root), prompt_style="plain", fps=fps, max_pixels=28 * 28)
    encoder = load_encoder(str(tiny_model_dir), args)
    sample = VideoSample("a", "Which?", "free-form", "red", media=load_samples_media("a.mp4"))
    video = encoder.load_video(media_root / "a.mp4", "a")
    prompt = encoder.encode_prompt(sample)
    spacing_s = video.timestamps_s[2] - video.timestamps_s[0]
    assert prompt.media["second_per_grid_ts"].item() == pytest.approx(spacing_s, abs=0.13)  # one native frame
    assert prompt.media["second_per_grid_ts"].item() == pytest.approx(2 / video.sample_fps)

    model = load_model(str(tiny_model_dir), dtype="float32")
    ids = torch.tensor([prompt.input_ids])
    positions, _ = model.model.get_rope_index(
        ids,
        mm_token_type_ids=torch.tensor([prompt.mm_token_type_ids]),
        video_grid_thw=prompt.media["video_grid_thw"],
        second_per_grid_ts=prompt.media["second_per_grid_ts"],
    )
    temporal = positions[0, 0][ids[0] == encoder.processor.video_token_id]
    num_grids = int(prompt.media["video_grid_thw"][0, 0])
    expected = [math.floor(grid * 2 / video.sample_fps * 2) for grid in range(num_grids)]  # 2 positions per second
    assert (temporal - temporal[0]).tolist() == expected
    assert prompt.duration_s == pytest.approx(4.0)


def load_samples_media(*paths: str):
    from video_thinker.schema import Media

    return tuple(Media("image" if path.endswith("png") else "video", path) for path in paths)


def test_seconds_per_grid_change_the_logits(encoder, samples, tiny_model_dir):
    model = load_model(str(tiny_model_dir), dtype="float32").eval()
    batch = SFTCollator(encoder)(rows(samples[:1]))
    with torch.no_grad():
        right = model(**batch).logits
        lost = model(**{k: v for k, v in batch.items() if k not in ("position_ids", "second_per_grid_ts")}).logits
    assert (right - lost).abs().max() > 1e-3


def test_images_videos_and_text_in_one_batch(encoder, tiny_model_dir, tmp_path):
    mixed = [
        make_item("v"),
        make_item("i", "still.png", data_type="image", process="A picture. <think>red</think> So red."),
        make_item("t", data_type="text", process="No picture."),
    ]
    del mixed[2]["path"]
    samples = load_samples(write_items(tmp_path / "mixed.jsonl", mixed))
    collate = SFTCollator(encoder)
    batch = collate(rows(samples))
    assert len(batch["video_grid_thw"]) == 1 and len(batch["image_grid_thw"]) == 1
    model = load_model(str(tiny_model_dir), dtype="float32").eval()
    with torch.no_grad():
        together = model(**batch).logits
        for row, sample in enumerate(samples):
            alone = model(**collate(rows([sample]))).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)


@every_family
def test_changing_the_pixels_changes_loss_and_gradients(encoder, samples, tiny_model_dir):
    model = load_model(str(tiny_model_dir), dtype="float32")
    batch = SFTCollator(encoder)(rows(samples[:2]))
    grads = []
    for inputs in (batch, blank_media(batch)):
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        grads.append((loss.item(), model.lm_head.weight.grad.clone()))
    assert abs(grads[0][0] - grads[1][0]) > 1e-4
    assert (grads[0][1] - grads[1][1]).abs().max() > 1e-5


def test_too_long_is_an_error_that_names_sample_and_limit(encoder, samples):
    with pytest.raises(DataError, match=r"items\.jsonl:1.*max_length=40.*'q0'.*raise max_length"):
        SFTCollator(encoder, max_length=40)(rows(samples[:1]))


def test_missing_trace_is_an_error(encoder, tmp_path):
    item = make_item("q")
    del item["process"]
    samples = load_samples(write_items(tmp_path / "no_trace.jsonl", [item]))
    with pytest.raises(DataError, match=r"no_trace\.jsonl:1.*process.*'q'"):
        SFTCollator(encoder)(rows(samples))


def test_broken_video_is_an_error_and_never_replaced(encoder, tmp_path):
    samples = load_samples(write_items(tmp_path / "broken.jsonl", [make_item("q7", "broken.mp4")]))
    with pytest.raises(DecodeError, match=r"broken\.mp4.*'q7'"):
        encoder.encode_prompt(samples[0])


def test_frame_cache_returns_the_same_frames_and_stays_within_its_size(tiny_model_dir, media_root, samples):
    args = VideoArguments(media_root=str(media_root), prompt_style="plain", max_pixels=64 * 64, media_cache_mib=0)
    uncached = load_encoder(str(tiny_model_dir), args)
    args.media_cache_mib = 1
    cached = load_encoder(str(tiny_model_dir), args)
    for _ in range(2):
        for sample in samples:
            a, b = uncached.encode_prompt(sample), cached.encode_prompt(sample)
            assert torch.equal(a.media["pixel_values_videos"], b.media["pixel_values_videos"])
    first = cached.load_video(media_root / "a.mp4", "q0")
    assert cached.load_video(media_root / "a.mp4", "q0") is first
    assert uncached.load_video(media_root / "a.mp4", "q0") is not uncached.load_video(media_root / "a.mp4", "q0")
