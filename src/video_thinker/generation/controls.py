"""Blind controls: the same questions with something taken away from the video.

| control | the model gets | a score above chance then comes from |
| --- | --- | --- |
| real | the video | |
| blank | as many frames of one mean color, at the same times | the question alone |
| shuffled | the sampled frames in random order, at the times of the real ones | single frames, without their order |
| none | no video at all | the question alone |

"shuffled" exchanges single frames. Qwen-VL models look at frames in pairs, so most pairs then show two moments.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from video_thinker.schema import VideoSample

if TYPE_CHECKING:
    import torch

    from video_thinker.data.media import MediaLoader
    from video_thinker.data.video import SampledVideo

CONTROLS = ("real", "blank", "shuffled", "none")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question with its media as pixels: videos of `SampledVideo`, images uint8 (3, H, W)."""

    sample: VideoSample
    videos: tuple[SampledVideo, ...] = ()
    images: tuple[torch.Tensor, ...] = ()

    @property
    def duration_s(self) -> float | None:
        """Length of the only video in seconds; `None` without one, or with several."""
        return self.videos[0].duration_s if len(self.videos) == 1 else None


def load_prompt(sample: VideoSample, loader: MediaLoader) -> Prompt:
    """Decode a sample's media.

    Raises:
        DecodeError: a file cannot be used.
    """
    videos, images = loader.load_media(sample)
    return Prompt(sample, tuple(videos), tuple(images))


def apply_control(prompt: Prompt, control: str, *, seed: int, mean_color: Sequence[float]) -> Prompt:
    """Take away from a prompt what `control` (one of `CONTROLS`) says. The original is left as it was.

    Args:
        prompt: The real one.
        control: One of `CONTROLS`.
        seed: With the sample's id, decides the order of "shuffled".
        mean_color: Red, green and blue in [0, 1] of "blank": what the processor normalizes to zero.
    """
    if control == "real":
        return prompt
    if control == "none":
        return Prompt(replace(prompt.sample, media=()))
    if control == "shuffled":
        orders = [shuffled_order(len(v.timestamps_s), f"{seed} {prompt.sample.id}") for v in prompt.videos]
        videos = [replace(v, frames=v.frames[order]) for v, order in zip(prompt.videos, orders, strict=True)]
        return replace(prompt, videos=tuple(videos))
    if control == "blank":
        import torch

        color = torch.tensor([round(255 * value) for value in mean_color], dtype=torch.uint8)[:, None, None]
        return replace(
            prompt,
            videos=tuple(replace(v, frames=color.expand_as(v.frames).contiguous()) for v in prompt.videos),
            images=tuple(color.expand_as(image).contiguous() for image in prompt.images),
        )
    raise ValueError(f"control {control!r} is none of {', '.join(CONTROLS)}")


def shuffled_order(length: int, seed: str) -> list[int]:
    """Draw an order of `length` >= 2 things that is not the given one; the same for the same seed."""
    rng, order = random.Random(seed), list(range(length))
    while length > 1 and order == sorted(order):
        rng.shuffle(order)
    return order
