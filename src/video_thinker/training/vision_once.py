"""Vision features of a frozen tower, computed once per video and used by rollout, policy, old policy and reference.

A tower without gradients gives the same features in every pass, so they travel with the rows' media beside the pixels:
`video_features` and `image_features` (n, D), for Qwen3-VL also `video_deepstack` and `image_deepstack` (n, layers, D).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from video_thinker.data.collate import MEDIA_FIELDS, merge_media

Media = dict[str, torch.Tensor]

KINDS = {"video": ("pixel_values_videos", "video_grid_thw"), "image": ("pixel_values", "image_grid_thw")}


def is_tower_frozen(backbone: nn.Module) -> bool:
    """Tell whether nothing of the vision tower (with its merger) is trained."""
    tower: nn.Module = backbone.visual  # type: ignore[assignment]
    return not any(parameter.requires_grad for parameter in tower.parameters())


@torch.no_grad()
def add_features(backbone: Any, media: Sequence[Media], device: torch.device) -> None:
    """Encode the pixels of several prompts, one call for all videos and one for all images, and add the features."""
    for kind, (pixels, grid) in KINDS.items():
        rows = [row for row in media if pixels in row and f"{kind}_features" not in row]
        if not rows:
            continue
        merged = merge_media(rows)
        encode = backbone.get_video_features if kind == "video" else backbone.get_image_features
        output = encode(merged[pixels].to(device), merged[grid].to(device), return_dict=True)
        features = torch.cat(tuple(output.pooler_output))
        counts = [int((row[grid].prod(dim=-1) // backbone.visual.spatial_merge_size**2).sum()) for row in rows]
        for row, part in zip(rows, features.split(counts), strict=True):
            row[f"{kind}_features"] = part.clone()
        deepstack = getattr(output, "deepstack_features", None)
        if deepstack:
            layers = torch.stack([torch.cat(tuple(layer)) for layer in deepstack], dim=1)
            for row, part in zip(rows, layers.split(counts), strict=True):
                row[f"{kind}_deepstack"] = part.clone()


def model_media(media: Media, device: torch.device, use_features: bool) -> dict[str, Any]:
    """Write a batch's media as arguments of the model's forward: features in place of pixels, or pixels alone."""
    moved = {name: value.to(device) for name, value in media.items() if use_features or name in MEDIA_FIELDS}
    if not use_features:
        return moved
    encoded = {}
    for kind, (pixels, _) in KINDS.items():
        if moved.pop(pixels, None) is not None:
            deepstack = moved.pop(f"{kind}_deepstack", None)
            encoded[kind] = SimpleNamespace(
                pooler_output=[moved.pop(f"{kind}_features")],
                deepstack_features=None if deepstack is None else [(layer,) for layer in deepstack.unbind(1)],
            )
    return {**moved, "mm_encoder_outputs": encoded}
