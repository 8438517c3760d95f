"""Prompts of every layout on each model family: vision tokens, times and token types, alone and in one batch."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import every_family, qwen3_vl_only, write_clip
from video_thinker.config import VideoArguments
from video_thinker.data.collate import SFTCollator
from video_thinker.data.conversation import build_target
from video_thinker.data.encode import SampleEncoder, frame_metadata, merge_media
from video_thinker.data.video import SampledVideo
from video_thinker.errors import ConfigError
from video_thinker.generation.local import pad_prompts
from video_thinker.models.loading import load_encoder, load_model
from video_thinker.models.tower_calls import EqualTowerCalls
from video_thinker.schema import Media, VideoSample

pytestmark = pytest.mark.integration

LAYOUTS = {
    "video": ("a.mp4",),
    "odd size": ("odd.mp4",),
    "one frame pair": ("pair.mp4",),
    "two videos": ("b.mp4", "odd.mp4"),
    "one video twice": ("a.mp4", "a.mp4"),
    "image and video": ("still.png", "c.mp4"),
    "video and images": ("pair.mp4", "wide.png", "still.png"),
    "image": ("wide.png",),
    "text": (),
}
"""Media of a prompt, in order."""


def make_sample(*paths: str, name: str = "s") -> VideoSample:
    media = tuple(Media("image" if path.endswith("png") else "video", path) for path in paths)
    return VideoSample(name, "Which color?", "free-form", "red", media=media, process=f"I look at {len(paths)}.")


@pytest.fixture(scope="module")
def layouts_root(tmp_path_factory: pytest.TempPathFactory, media_root: Path) -> Path:
    """The clips of `media_root`, one of 102 x 70 pixels, one of two frames, and an image of 90 x 33 pixels."""
    from PIL import Image

    root = tmp_path_factory.mktemp("layouts")
    for file in media_root.iterdir():
        (root / file.name).symlink_to(file)
    write_clip(root / "odd.mp4", [(250, 10, 10), (10, 10, 250), (9, 9, 9)], size=(102, 70))
    write_clip(root / "pair.mp4", [(250, 250, 10)], fps=2)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (33, 90, 3), dtype=np.uint8)).save(root / "wide.png")
    return root


def make_encoder(model_dir: Path, root: Path, **overrides) -> SampleEncoder:
    settings = {"prompt_style": "plain", "fps": 3.0, "min_frames": 2, "max_pixels": 6 * 32 * 32, **overrides}
    return load_encoder(str(model_dir), VideoArguments(media_root=str(root), **settings))


@pytest.fixture(scope="module")
def encoder(tiny_model_dir: Path, layouts_root: Path) -> SampleEncoder:
    return make_encoder(tiny_model_dir, layouts_root)


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path):
    return load_model(str(tiny_model_dir), dtype="float32").eval()


def num_runs(types: list[int], kind: int) -> int:
    return sum(here == kind and before != kind for before, here in zip([0, *types], types, strict=False))


# One prompt


@every_family
@pytest.mark.parametrize("paths", LAYOUTS.values(), ids=LAYOUTS)
def test_vision_tokens_times_and_token_types(encoder, tiny_model_dir, paths):
    sample = make_sample(*paths)
    videos, images = encoder.load_media(sample)
    prompt = encoder.encode_frames(sample, videos, images)
    ids, types = torch.tensor(prompt.input_ids), torch.tensor(prompt.mm_token_type_ids)
    empty = torch.zeros(0, 3, dtype=torch.long)
    grids = {2: prompt.media.get("video_grid_thw", empty), 1: prompt.media.get("image_grid_thw", empty)}
    pads = {2: encoder.processor.video_token_id, 1: encoder.processor.image_token_id}
    for kind, pad in pads.items():
        assert (ids == pad).sum() == grids[kind].prod(dim=1).sum() // 4
        assert torch.equal(types == kind, ids == pad)

    patch = encoder.resize_factor // 2
    shown = [tuple(video.frames.shape[-2:]) for video in videos]
    assert [(h * patch, w * patch) for _, h, w in grids[2].tolist()] == shown, "the processor resized the frames"
    assert [(h * patch, w * patch) for _, h, w in grids[1].tolist()] == [tuple(i.shape[-2:]) for i in images]
    assert grids[2][:, 0].tolist() == [len(video.timestamps_s) // 2 for video in videos]

    times = re.findall(r"<\d+\.\d seconds>", encoder.processor.tokenizer.decode(ids))
    is_qwen3 = tiny_model_dir.name == "qwen3_vl"
    assert len(times) == (int(grids[2][:, 0].sum()) if is_qwen3 else 0)
    assert num_runs(types.tolist(), 2) == (len(times) if is_qwen3 else len(videos))
    assert num_runs(types.tolist(), 1) == len(images)
    seconds = prompt.media.get("second_per_grid_ts", torch.zeros(0)).tolist()
    assert seconds == ([] if is_qwen3 else pytest.approx([2 / video.sample_fps for video in videos]))


@every_family
def test_frame_times_change_the_logits(encoder, model, tiny_model_dir):
    """The same frames, taken at half the speed."""
    sample = make_sample("a.mp4")
    video = encoder.load_video(Path(encoder.media_root) / "a.mp4", "s")
    slow = dataclasses.replace(video, timestamps_s=tuple(2 * time_s for time_s in video.timestamps_s))
    prompts = [encoder.encode_frames(sample, [shown]) for shown in (video, slow)]
    assert (prompts[0].input_ids != prompts[1].input_ids) == (tiny_model_dir.name == "qwen3_vl")
    with torch.no_grad():
        logits = [forward(model, prompt)[-1] for prompt in prompts]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@every_family
def test_too_few_pixels_for_one_vision_token_are_refused(tiny_model_dir, layouts_root):
    factor = {"qwen2_5_vl": 28, "qwen3_vl": 32}[tiny_model_dir.name]
    too_few = factor**2 - 1
    with pytest.raises(ConfigError, match=rf"max_pixels={too_few}.*{factor} x {factor}.*at least {factor**2}"):
        make_encoder(tiny_model_dir, layouts_root, min_pixels=1, max_pixels=too_few)
    make_encoder(tiny_model_dir, layouts_root, max_pixels=factor**2)


# Times as text


def frames_at(*timestamps_s: float, size: tuple[int, int] = (32, 64)) -> SampledVideo:
    frames = torch.zeros(len(timestamps_s), 3, *size, dtype=torch.uint8)
    return SampledVideo(frames, timestamps_s, duration_s=60.0, native_fps=10.0, backend="pyav")


@qwen3_vl_only
@pytest.mark.parametrize(
    ("timestamps_s", "times"),
    [
        ((0.0, 0.6), ["0.3"]),
        ((0.0, 0.5, 1.1, 1.6), ["0.2", "1.4"]),  # about 2 per second
        ((0.0, 0.1, 0.2, 10.0), ["0.1", "5.1"]),  # a variable frame rate
        ((31.4, 31.6, 44.0, 44.2, 58.0, 58.4), ["31.5", "44.1", "58.2"]),  # a part of a longer video
        ((5.0, 5.6, 8.3), ["5.3", "8.3"]),  # the last frame is its own pair
        ((7.2,), ["7.2"]),
    ],
)
def test_prompt_names_the_mean_time_of_each_frame_pair(encoder, timestamps_s, times):
    prompt = encoder.encode_frames(make_sample("a.mp4"), [frames_at(*timestamps_s)])
    segments = "".join(f"<{t} seconds><|vision_start|><|video_pad|><|video_pad|><|vision_end|>" for t in times)
    assert encoder.processor.tokenizer.decode(prompt.input_ids) == (
        f"<|im_start|>user\n{segments}Which color?\nAnswer briefly.<|im_end|>\n<|im_start|>assistant\n"
    )


@qwen3_vl_only
def test_each_video_of_a_prompt_has_its_own_times_and_images_have_none(encoder):
    sample = make_sample("a.mp4", "still.png", "b.mp4")
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    prompt = encoder.encode_frames(sample, [frames_at(0.0, 0.6), frames_at(2.0, 2.8, 4.0, 5.0, size=(32, 32))], [image])
    text = encoder.processor.tokenizer.decode(prompt.input_ids)
    start, end = "<|vision_start|>", "<|vision_end|>"
    assert text.split("\n")[1] == (
        f"<0.3 seconds>{start}<|video_pad|><|video_pad|>{end}{start}<|image_pad|>{end}"
        f"<2.4 seconds>{start}<|video_pad|>{end}<4.5 seconds>{start}<|video_pad|>{end}Which color?"
    )


@qwen3_vl_only
def test_times_in_the_prompt_are_those_stored_in_the_file(tiny_model_dir, tmp_path):
    """Frames at 0.0 to 0.9 s, then 1.0, 2.0, … 10.0 s, in a stream that starts at 5 s: nominal rates are far off."""
    import av

    with av.open(str(tmp_path / "vfr.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i * 12, np.uint8), format="rgb24")
            frame.pts = 50 + (i if i < 10 else 10 * (i - 9))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    encoder = make_encoder(tiny_model_dir, tmp_path, num_frames=20, video_backend="pyav")
    text = encoder.processor.tokenizer.decode(encoder.encode_prompt(make_sample("vfr.mp4")).input_ids)
    found = [float(time_s) for time_s in re.findall(r"<([\d.]+) seconds>", text)]
    assert found == pytest.approx([0.05, 0.25, 0.45, 0.65, 0.85, 1.5, 3.5, 5.5, 7.5, 9.5], abs=0.051)


def test_metadata_gives_both_the_rate_and_the_stored_times():
    video = frames_at(3.0, 3.2, 4.5, 9.1)
    metadata = frame_metadata(video)
    assert metadata.sampled_fps == video.sample_fps  # exactly: Qwen2.5-VL's positions are rounded down
    assert metadata.timestamps == pytest.approx(video.timestamps_s)


# A batch


def forward(model, prompt, target: list[int] | None = None) -> torch.Tensor:
    """Logits (L, vocabulary) of one prompt alone, and of the target behind it."""
    target = target or []
    ids = torch.tensor([prompt.input_ids + target])
    types = torch.tensor([prompt.mm_token_type_ids + [0] * len(target)])
    return model(input_ids=ids, mm_token_type_ids=types, **prompt.media).logits[0]


@every_family
@pytest.mark.parametrize("order", [list(LAYOUTS), list(LAYOUTS)[::-1]], ids=["forth", "back"])
def test_a_batch_of_all_layouts_equals_its_rows_alone(encoder, model, order):
    prompts = [encoder.encode_prompt(make_sample(*LAYOUTS[name])) for name in order]
    inputs = pad_prompts(prompts, encoder.processor.tokenizer.pad_token_id)
    with torch.no_grad():
        together = model(**inputs, **merge_media([prompt.media for prompt in prompts])).logits
        for row, prompt in zip(together, prompts, strict=True):
            alone = forward(model, prompt)
            torch.testing.assert_close(row[-len(alone) :], alone, atol=1e-5, rtol=1e-4)


@every_family
def test_an_sft_batch_of_all_layouts_equals_its_rows_alone(encoder, model):
    samples = [make_sample(*paths, name=name) for name, paths in LAYOUTS.items()]
    batch = SFTCollator(encoder)([{"sample": sample} for sample in samples])
    del batch["sample_ids"]
    with torch.no_grad():
        for row, sample in zip(model(**batch).logits, samples, strict=True):
            target = encoder.processor.tokenizer(f"{build_target(sample)}<|im_end|>").input_ids
            alone = forward(model, encoder.encode_prompt(sample), target)
            torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-4)


@every_family
def test_blank_tower_calls_change_no_logits_and_reach_the_tower(encoder, tiny_model_dir):
    """What a rank without media does under ZeRO-3, also with deepstack mergers."""
    model = load_model(str(tiny_model_dir), dtype="float32").eval()
    prompt = encoder.encode_prompt(make_sample())
    expected = forward(model, prompt)
    EqualTowerCalls(model, ["image", "video"])
    logits = forward(model, prompt)
    torch.testing.assert_close(logits, expected, atol=0, rtol=0)
    logits.sum().backward()
    without = [name for name, p in model.named_parameters() if "visual" in name and p.grad is None]
    assert not without
