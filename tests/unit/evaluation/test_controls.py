from __future__ import annotations

import pytest
import torch

from video_thinker.data.video import SampledVideo
from video_thinker.generation.controls import Prompt, apply_control, shuffled_order
from video_thinker.schema import Media, VideoSample

MEAN_COLOR = (0.48145466, 0.4578275, 0.40821073)


def prompt(name: str = "q0", num_frames: int = 8) -> Prompt:
    frames = torch.arange(num_frames, dtype=torch.uint8)[:, None, None, None].expand(num_frames, 3, 4, 6).contiguous()
    video = SampledVideo(frames, tuple(i / 2 for i in range(num_frames)), num_frames / 2, 8.0, "pyav")
    sample = VideoSample(name, "?", "multiple choice", "A", ("A. x", "B. y"), (Media("video", "v.mp4"),))
    return Prompt(sample, (video,), (torch.full((3, 2, 2), 9, dtype=torch.uint8),))


def control(name: str, given: Prompt, seed: int = 0) -> Prompt:
    return apply_control(given, name, seed=seed, mean_color=MEAN_COLOR)


def order_of(shown: Prompt) -> list[int]:
    return shown.videos[0].frames[:, 0, 0, 0].tolist()


def test_real_is_the_prompt_itself():
    given = prompt()
    assert control("real", given) is given


def test_blank_is_one_color_that_normalizes_to_zero_at_the_same_times():
    given, shown = prompt(), control("blank", prompt())
    video = shown.videos[0]
    assert video.frames.shape == given.videos[0].frames.shape and video.frames.dtype == torch.uint8
    assert video.timestamps_s == given.videos[0].timestamps_s
    for pixels in (video.frames[3, :, 1, 2], shown.images[0][:, 1, 1]):
        assert (pixels / 255).tolist() == pytest.approx(MEAN_COLOR, abs=0.5 / 255)
    assert len(video.frames.flatten(2).unique(dim=2)[0, 0]) == 1


def test_shuffled_keeps_every_frame_and_the_times_but_not_the_order():
    given, shown = prompt(), control("shuffled", prompt())
    assert sorted(order_of(shown)) == list(range(8))
    assert order_of(shown) != list(range(8))
    assert shown.videos[0].timestamps_s == given.videos[0].timestamps_s
    assert order_of(given) == list(range(8)), "the cached video itself was changed"


def test_shuffled_depends_on_sample_and_seed_only():
    assert order_of(control("shuffled", prompt("q0"))) == order_of(control("shuffled", prompt("q0")))
    others = {tuple(order_of(control("shuffled", prompt(f"q{i}")))) for i in range(10)}
    assert len(others) > 5
    assert order_of(control("shuffled", prompt("q0"), seed=1)) != order_of(control("shuffled", prompt("q0"), seed=0))


@pytest.mark.parametrize("seed", range(20))
def test_two_frames_are_always_exchanged(seed):
    assert shuffled_order(2, str(seed)) == [1, 0]


def test_one_frame_has_one_order():
    assert shuffled_order(1, "x") == [0]


def test_none_has_no_media_and_the_same_question():
    given, shown = prompt(), control("none", prompt())
    assert (shown.videos, shown.images, shown.sample.media) == ((), (), ())
    assert (shown.sample.problem, shown.sample.options) == (given.sample.problem, given.sample.options)


def test_an_unknown_control_is_an_error():
    with pytest.raises(ValueError, match="mirrored"):
        control("mirrored", prompt())
