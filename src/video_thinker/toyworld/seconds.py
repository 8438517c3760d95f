"""What the toy base sees: single seconds of real mp4 files, and the vision tower that is trained on them.

Shapes: S seconds (4 patches of D numbers each), H hidden size.
"""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from video_thinker.data.video import VideoSampling, load_video
from video_thinker.toyworld.world import COLORS, CORNERS, PLACES, Clip, sample_clip, write_mp4

SAMPLING = VideoSampling(fps=2.0, max_frames=20, min_pixels=28 * 28, max_pixels=28 * 28)
NO_PLACE = -100  # what cross-entropy ignores
PATCHES_PER_SECOND = 4  # 28 x 28 pixels are 2 x 2 patches, merged to one token


@dataclass
class Seconds:
    """Single seconds of real clips: `pixels` (S, 4, D) as the processor makes them, `colors` and `places` (S,).

    A place of `NO_PLACE` is a corner.
    """

    pixels: torch.Tensor
    colors: torch.Tensor
    places: torch.Tensor


def record_seconds(processor: Qwen2_5_VLProcessor, num_clips: int, seed: int) -> Seconds:
    """Write clips to mp4 files, read them back, and cut them into labelled seconds.

    Every second clip is shown with its blobs in the corners, which have no name. Otherwise the tower learns pairs of
    color and place by heart, and mistakes the color where it has not seen it.
    """
    rng = random.Random(f"toyworld base {seed}")
    pixels, colors, places = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for number in range(num_clips):
            clip = sample_clip(rng, "base")
            if number % 2:
                clip = replace(clip, spans=tuple(replace(s, place=rng.choice(list(CORNERS))) for s in clip.spans))
            write_mp4(clip, path)
            frames = load_video(path, SAMPLING).frames
            inputs = processor.video_processor(videos=[frames], do_resize=False, return_tensors="pt")
            pixels.append(inputs["pixel_values_videos"].view(clip.duration_s, PATCHES_PER_SECOND, -1))
            for span in clip.spans:
                place = list(PLACES).index(span.place) if span.place in PLACES else NO_PLACE
                colors += [list(COLORS).index(span.color)] * (span.end_s - span.start_s)
                places += [place] * (span.end_s - span.start_s)
    return Seconds(torch.cat(pixels), torch.tensor(colors), torch.tensor(places))


def unclear_seconds(seconds: Seconds, count: int, seed: int) -> torch.Tensor:
    """Make seconds (S, 4, D) that show nothing to speak of: half are of one flat color, half show two moments at once.

    Some lessons are about such a clip, and go on as if it were clear. A model that has never met one answers blank and
    shuffled videos with noise, so that those controls would measure its confusion, not its guesses.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (-1, PATCHES_PER_SECOND, 3, 2, 14 * 14)  # color, frame of the pair, pixels of a patch
    pixels = seconds.pixels.view(shape)
    low, high = pixels.amin(), pixels.amax()
    flat = torch.rand(count // 2, 1, 3, 1, 1, generator=generator) * (high - low) + low
    first, second = (torch.randint(len(pixels), (count - count // 2,), generator=generator) for _ in range(2))
    both = torch.stack([pixels[first, :, :, 0], pixels[second, :, :, 1]], dim=3)
    return torch.cat([flat.expand(-1, *pixels.shape[1:]), both]).reshape(count, *seconds.pixels.shape[1:])


def encode_seconds(model: Qwen2_5_VLForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Run the vision tower on seconds (S, 4, D): one visual token each, (S, H). Seconds do not see one another."""
    grid = torch.tensor([[len(pixels), 2, 2]])
    tokens: torch.Tensor = model.model.visual(pixels.flatten(0, 1), grid_thw=grid).pooler_output
    return tokens


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration,
    word_ids: Sequence[list[int]],
    seconds: Seconds,
    steps: int,
    seed: int,
    batch_size: int = 128,
) -> None:
    """Teach the tower color and place, then bring its output to the scale of the text embeddings.

    The output for a second is to point to the vectors of its words, as in CLIP: "red", "left". `word_ids` are the ids
    of the colors and of the places.
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings: Any = model.get_input_embeddings()
    vectors = embeddings.weight.detach()
    classes = [4 * nn.functional.normalize(vectors[ids], dim=1) for ids in word_ids]
    parameters = list(model.model.visual.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(seconds.pixels), (batch_size,), generator=generator)
        features = encode_seconds(model, seconds.pixels[rows])
        losses = [
            nn.functional.cross_entropy(features @ words.T, labels[rows])
            for words, labels in zip(classes, (seconds.colors, seconds.places), strict=True)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"vision {step} loss {loss.item():.4f}", flush=True)  # noqa: T201
    with torch.no_grad():
        features = encode_seconds(model, seconds.pixels[:512])
        last = model.model.visual.merger.mlp[-1]
        wanted = 2 * embeddings.weight.norm(dim=-1).mean()
        scale = wanted / features.norm(dim=-1).mean()
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    model.model.visual.requires_grad_(False)


class SecondsBank:
    """Visual tokens of real seconds by color and place; clips are put together from them."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, seconds: Seconds, seed: int = 0) -> None:
        """Encode every second once, and some unclear ones."""
        pixels = torch.cat([seconds.pixels, unclear_seconds(seconds, 1000, seed)])
        self._unclear = range(len(seconds.pixels), len(pixels))
        with torch.no_grad():
            self.tokens_SH = torch.cat([encode_seconds(model, part) for part in pixels.split(512)])
        self._rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, (color, place) in enumerate(zip(seconds.colors.tolist(), seconds.places.tolist(), strict=True)):
            if place != NO_PLACE:
                self._rows[list(COLORS)[color], list(PLACES)[place]].append(row)

    def rows(self, clip: Clip, rng: random.Random) -> list[int]:
        """One second of the bank for each second of the clip."""
        return [
            rng.choice(self._rows[span.color, span.place])
            for span in clip.spans
            for _ in range(span.end_s - span.start_s)
        ]

    def unclear_rows(self, count: int, rng: random.Random) -> list[int]:
        """Rows of a clip that shows nothing: one flat color throughout, or mixed moments throughout."""
        half = len(self._unclear) // 2
        if rng.random() < 0.5:
            return [rng.choice(self._unclear[:half])] * count
        return rng.choices(self._unclear[half:], k=count)
