"""Equal vision-tower calls on every rank, whatever its samples hold.

Under ZeRO-3 each call of a module gathers its weights from all ranks, so a rank whose batch holds no video, while
another one's does, waits for ever. A forward calls the tower once for all images and once for all videos of a batch.
Where the data set has samples of different kinds, every forward therefore makes the calls of all kinds: for those that
its batch lacks, with one blank patch group whose features enter the result times zero. No rank needs to ask another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from video_thinker.schema import VideoSample

PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


def mixed_kinds(samples: Iterable[VideoSample]) -> frozenset[str]:
    """Find the kinds of media ("image", "video") of a data set that some of its samples lack."""
    kinds = [frozenset(media.kind for media in sample.media) for sample in samples]
    return frozenset().union(*kinds) - frozenset.intersection(*kinds) if kinds else frozenset()


class VisionModel(nn.Module):
    """What the modules that `find_vision_model` finds have: a vision tower (with its merger) and a language model."""

    visual: nn.Module
    language_model: nn.Module


def find_vision_model(model: nn.Module) -> VisionModel:
    """Find the module that calls the vision tower (`.visual`), below any wrapper."""
    found = next(module for module in model.modules() if isinstance(getattr(module, "visual", None), nn.Module))
    return cast(VisionModel, found)  # by its parts; the classes of the families have no base of their own


class EqualTowerCalls:
    """Hooks that make every forward of `model` call the tower once for each of `kinds`.

    The blank calls come between the model's own and the language model: ranks gather weights in one order, forward and
    backward.

    Args:
        model: A Qwen-VL model, or a wrapper of one.
        kinds: What some batches may lack: "image", "video".
    """

    def __init__(self, model: nn.Module, kinds: Iterable[str]) -> None:
        """See the class."""
        self.kinds = sorted(kinds)
        self.num_missing = 0
        self.vision_model = find_vision_model(model)
        self.vision_model.register_forward_pre_hook(self._count_missing, with_kwargs=True)
        # First of all hooks: DeepSpeed's fetches the language model, which the model's own calls of the tower precede.
        self.vision_model.language_model.register_forward_pre_hook(
            self._add_blank_calls, with_kwargs=True, prepend=True
        )

    def _count_missing(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        decoding = cache is not None and cache.get_seq_length() > 0  # the media were read with the prompt
        encoded = kwargs.get("mm_encoder_outputs") is not None  # on every rank, or on none
        self.num_missing = 0 if decoding or encoded else sum(kwargs.get(PIXELS[kind]) is None for kind in self.kinds)

    def _add_blank_calls(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Add nothing to the embeddings (B, L, D), with a gradient path through the tower."""
        embeddings = kwargs["inputs_embeds"]
        for _ in range(self.num_missing):
            embeddings = embeddings + self._blank_call(embeddings.device).to(embeddings.dtype)
        self.num_missing = 0
        return args, {**kwargs, "inputs_embeds": embeddings}

    def _blank_call(self, device: torch.device) -> torch.Tensor:
        """Run the tower on one blank patch group; give its features' sum times zero."""
        tower: Any = self.vision_model.visual
        config = tower.config
        size = config.spatial_merge_size
        width = config.in_channels * config.temporal_patch_size * config.patch_size**2
        pixels = torch.zeros(size * size, width, dtype=tower.dtype, device=device)
        output = tower(pixels, grid_thw=torch.tensor([[1, size, size]], device=device))
        features = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
        return 0.0 * torch.stack([feature.float().sum() for feature in features]).sum()


def equalize_tower_calls(models: Iterable[nn.Module | None], samples: Iterable[VideoSample]) -> None:
    """Hook `EqualTowerCalls` into each model of a run if the samples differ in their kinds of media."""
    kinds = mixed_kinds(samples)
    for model in models:
        if kinds and model is not None:
            EqualTowerCalls(model, kinds)
