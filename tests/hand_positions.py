"""Positions of tokens by plain counting, token by token: what the integration tests compare everything with."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def hand_positions(prompt, completion: int = 0) -> torch.Tensor:
    """Positions (3, 1, P + C) of an encoded prompt and so many tokens after it, for a merge of 2 and 2 steps a second.

    A prompt with `second_per_grid_ts` is one of Qwen2.5-VL, else each run of video tokens is one pair of frames.
    """
    grids: dict[int, Iterator[tuple[list[int], float]]] = {
        1: iter([(grid, 0.0) for grid in prompt.media.get("image_grid_thw", torch.zeros(0)).tolist()]),
        2: iter(_videos(prompt)),
    }
    places: list[tuple[int, int, int]] = []
    types = [*prompt.mm_token_type_ids, *[0] * completion]
    while len(places) < len(types):
        start = max((max(place) for place in places), default=-1) + 1
        if types[len(places)] == 0:
            places.append((start, start, start))
            continue
        (pairs, height, width), seconds = next(grids[types[len(places)]])
        for pair in range(pairs):
            for row in range(height // 2):
                for column in range(width // 2):
                    places.append((start + int(pair * seconds * 2), start + row, start + column))
    return torch.tensor(places).T[:, None]


def _videos(prompt) -> list[tuple[list[int], float]]:
    grids = prompt.media.get("video_grid_thw", torch.zeros(0)).tolist()
    if "second_per_grid_ts" in prompt.media:
        return list(zip(grids, prompt.media["second_per_grid_ts"].tolist(), strict=True))
    return [([1, height, width], 0.0) for pairs, height, width in grids for _ in range(pairs)]
