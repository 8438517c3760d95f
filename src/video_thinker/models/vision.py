"""Vision features of a frozen tower, computed once per video and used by rollout, policy, old policy and reference.

A tower without gradients gives the same features in every pass, so they travel with the rows' media beside the pixels:
`video_features` and `image_features` (n, D), for Qwen3-VL also `video_deepstack` and `image_deepstack` (n, layers, D).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from video_thinker.data.encode import FEATURE_FIELDS, PIXEL_FIELDS, merge_media
from video_thinker.models.feature_cache import FeatureCache
from video_thinker.models.tower_calls import VisionModel, find_vision_model

Media = dict[str, torch.Tensor]

KINDS = {"video": ("pixel_values_videos", "video_grid_thw"), "image": ("pixel_values", "image_grid_thw")}


class FrozenFeatures:
    """Computes the features of a frozen tower once per prompt, in the precision of a forward.

    Args:
        backbone: The module with `.visual`, of the model that is trained.
        autocast: The context of a forward.
        cache: Features on disk.
        enabled: False where features are not shared, whatever is frozen.
    """

    def __init__(
        self,
        backbone: VisionModel,
        autocast: Callable[[], AbstractContextManager[Any]],
        *,
        cache: FeatureCache | None = None,
        enabled: bool = True,
    ) -> None:
        """See the class."""
        self._backbone, self._autocast, self.cache, self.enabled = backbone, autocast, cache, enabled

    @property
    def is_used(self) -> bool:
        """Whether rows are run from features: the same on all ranks, whatever their rows hold."""
        return self.enabled and self._is_frozen

    @functools.cached_property
    def _is_frozen(self) -> bool:
        """Asked once, when parts have been frozen: adapters that are switched off for a reference look frozen, too."""
        return is_tower_frozen(self._backbone)

    def add(self, model: nn.Module, media: Sequence[Media]) -> None:
        """Add the features of the pixels of some prompts, computed by `model`, whose weights are whole."""
        backbone: Any = find_vision_model(model)
        with self._autocast():
            add_features(backbone, media, backbone.visual.device, self.cache)


def is_tower_frozen(backbone: VisionModel) -> bool:
    """Tell whether nothing of the vision tower (with its merger) is trained."""
    return not any(parameter.requires_grad for parameter in backbone.visual.parameters())


@torch.no_grad()
def add_features(
    backbone: Any, media: Sequence[Media], device: torch.device, cache: FeatureCache | None = None
) -> None:
    """Add the features of the pixels of several prompts, from the cache or from the tower.

    Each prompt is encoded by itself: its features do not depend, to the last bit, on what else is in the batch.
    """
    for row in media:
        for kind, (pixels, grid) in KINDS.items():
            if pixels not in row or f"{kind}_features" in row:
                continue
            found = cache.read(backbone.visual, row[pixels], row[grid]) if cache else None
            if found is None:
                found = _encode(backbone, kind, row[pixels].to(device), row[grid].to(device))
                if cache:
                    cache.write(backbone.visual, row[pixels], row[grid], found)
            row.update({f"{kind}_{name}": tensor.to(device) for name, tensor in found.items()})


def _encode(backbone: Any, kind: str, pixels: torch.Tensor, grid_thw: torch.Tensor) -> Media:
    """Encode pixels: `features` (n, D), and for Qwen3-VL `deepstack` (n, layers, D)."""
    encode = backbone.get_video_features if kind == "video" else backbone.get_image_features
    output = encode(pixels, grid_thw, return_dict=True)
    encoded = {"features": torch.cat(tuple(output.pooler_output))}
    layers = getattr(output, "deepstack_features", None)
    if layers:
        encoded["deepstack"] = torch.stack([torch.cat(tuple(layer)) for layer in layers], dim=1)
    return encoded


def model_media(parts: Sequence[Media], device: torch.device, use_features: bool) -> dict[str, Any]:
    """Write the media of several prompts as arguments of a forward: features in place of pixels, or pixels alone."""
    left_out = PIXEL_FIELDS if use_features else frozenset(FEATURE_FIELDS)
    kept = [{name: value for name, value in part.items() if name not in left_out} for part in parts]
    moved = {name: value.to(device) for name, value in merge_media(kept).items()}
    if not use_features:
        return moved
    encoded = {}
    for kind in KINDS:
        if f"{kind}_features" in moved:
            deepstack = moved.pop(f"{kind}_deepstack", None)
            encoded[kind] = SimpleNamespace(
                pooler_output=[moved.pop(f"{kind}_features")],
                deepstack_features=None if deepstack is None else [(layer,) for layer in deepstack.unbind(1)],
            )
    return {**moved, "mm_encoder_outputs": encoded}
