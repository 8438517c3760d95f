"""A prompt of ours -> an input of vLLM: our tensors, where each video and image stands, and names for the caches.

Shapes: V videos or images of a prompt. Seen in vLLM 0.32.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from video_thinker.data.encode import MEDIA_FIELDS, EncodedPrompt

KINDS = {
    "video": ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts"),
    "image": ("pixel_values", "image_grid_thw"),
}
"""Kind of media -> its fields in `EncodedPrompt.media`: pixels, grid, and what else belongs to each video or image."""


def engine_input(prompt: EncodedPrompt, pad_token_ids: Mapping[str, int], *, writes_times: bool) -> Any:
    """Write a prompt as an input that vLLM renders and processes no further.

    Args:
        prompt: As the encoder made it.
        pad_token_ids: Kind of media ("video", "image") -> the token that its features replace.
        writes_times: Whether the family writes a time before each frame pair of a video, as Qwen3-VL does.
    """
    if not prompt.media:
        return {"type": "token", "prompt_token_ids": prompt.input_ids}
    inputs = importlib.import_module("vllm.multimodal.inputs")
    field = inputs.MultiModalFieldConfig
    media = {name: value.cpu() for name, value in prompt.media.items() if name in MEDIA_FIELDS}
    fields, ranges, hashes = {}, {}, {}
    for kind, (pixels, grid, *others) in KINDS.items():
        if grid not in media:
            continue
        fields[pixels] = field.flat_from_sizes(kind, media[grid].prod(-1))
        fields |= {name: field.batched(kind, keep_on_cpu=True) for name in (grid, *others) if name in media}
        hashes[kind] = media_hashes(media, pixels, grid, others)
        places = media_places(
            prompt.input_ids, pad_token_ids[kind], media[grid], in_pairs=writes_times and kind == "video"
        )
        ranges[kind] = [
            inputs.PlaceholderRange(offset=start, length=end - start, is_embed=embedded)
            for start, end, embedded in places
        ]
    return importlib.import_module("vllm.inputs.engine").mm_input(
        prompt_token_ids=prompt.input_ids,
        mm_kwargs=inputs.MultiModalKwargsItems.from_hf_inputs(media, fields),
        mm_placeholders=ranges,
        mm_hashes=hashes,
    )


def media_places(
    input_ids: list[int], token_id: int, grids: torch.Tensor, *, in_pairs: bool
) -> Iterator[tuple[int, int, torch.Tensor | None]]:
    """Say from where to where each video or image stands in a prompt, and which tokens of it are embedded.

    Args:
        input_ids: The prompt's.
        token_id: The token that features replace.
        grids: Grid of each video or image, (V, 3).
        in_pairs: The prompt writes a time and vision marks around each frame pair, and the place spans all of them.
    """
    runs = iter(runs_of(input_ids, token_id))
    for pairs in grids[:, 0].tolist():
        if in_pairs:
            own = list(itertools.islice(runs, pairs))
            start, end = own[0][0] - 1, own[-1][1] + 1
            yield start, end, torch.tensor(input_ids[start:end]) == token_id
        else:
            yield *next(runs), None


def media_hashes(media: dict[str, torch.Tensor], pixels: str, grid: str, others: Sequence[str] = ()) -> list[str]:
    """Name each video or image (V,) by all that it is: its pixels, its grid and its times. Caches go by the name."""
    hashes, start = [], 0
    for number, size in enumerate(media[grid].prod(-1).tolist()):
        parts = [
            media[pixels][start : start + size],
            *(media[name][number] for name in (grid, *others) if name in media),
        ]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        hashes.append(digest.hexdigest())
        start += size
    return hashes


def runs_of(input_ids: Sequence[int], token_id: int) -> list[tuple[int, int]]:
    """Find the runs of a token: (start, end) of each, `end` excluded."""
    runs: list[tuple[int, int]] = []
    for place, token in enumerate(input_ids):
        if token != token_id:
            continue
        if runs and runs[-1][1] == place:
            runs[-1] = runs[-1][0], place + 1
        else:
            runs.append((place, place + 1))
    return runs
