"""Equal vision-tower calls on every rank, whatever its samples hold.

Under ZeRO-3 each call of a module gathers its weights from all ranks, so a rank whose batch holds no video, while
another one's does, waits for ever. A forward calls the tower once for all images and once for all videos of a batch.
Where the data set has samples of different kinds, every forward therefore makes the calls of all kinds: for those that
its batch lacks, with one blank patch group whose features enter the result times zero. No rank needs to ask another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from video_thinker.schema import VideoSample

PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


def mixed_kinds(samples: Iterable[VideoSample]) -> frozenset[str]:
    """Find the kinds of media ("image", "video") of a data set that some of its samples lack."""
    kinds = [frozenset(media.kind for media in sample.media) for sample in samples]
    return frozenset().union(*kinds) - frozenset.intersection(*kinds) if kinds else frozenset()


def find_vision_model(model: nn.Module) -> nn.Module:
    """Find the module that calls the vision tower (`.visual`), below any wrapper."""
    return next(module for module in model.modules() if isinstance(getattr(module, "visual", None), nn.Module))


class EqualTowerCalls:
    """Hooks that make every forward of `model` call the tower once for each of `kinds`.

    Args:
        model: A Qwen-VL model, or a wrapper of one.
        kinds: What some batches may lack: "image", "video".
    """

    def __init__(self, model: nn.Module, kinds: Iterable[str]) -> None:
        """See the class."""
        self.kinds = sorted(kinds)
        self._zero: torch.Tensor | None = None
        module = find_vision_model(model)
        module.register_forward_pre_hook(self._before, with_kwargs=True)
        module.register_forward_hook(self._after)

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            return  # a decoding step: the media were read with the prompt
        missing = [kind for kind in self.kinds if kwargs.get(PIXELS[kind]) is None]
        zeros = [self._blank_call(module.visual) for _ in missing]
        self._zero = sum(zeros[1:], zeros[0]) if zeros else None

    def _blank_call(self, tower: Any) -> torch.Tensor:
        """Run the tower on one blank patch group; give its features' sum times zero, with their gradient path."""
        config = tower.config
        size = config.spatial_merge_size
        width = config.in_channels * config.temporal_patch_size * config.patch_size**2
        device = tower.patch_embed.proj.weight.device
        pixels = torch.zeros(size * size, width, dtype=tower.dtype, device=device)
        output = tower(pixels, grid_thw=torch.tensor([[1, size, size]], device=device))
        features = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
        return 0.0 * torch.stack([feature.float().sum() for feature in features]).sum()

    def _after(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        if self._zero is not None:
            output.last_hidden_state = output.last_hidden_state + self._zero.to(output.last_hidden_state.dtype)
            self._zero = None
        return output


def equalize_tower_calls(models: Iterable[nn.Module | None], samples: Iterable[VideoSample]) -> None:
    """Hook `EqualTowerCalls` into each model of a run if the samples differ in their kinds of media."""
    kinds = mixed_kinds(samples)
    for model in models:
        if kinds and model is not None:
            EqualTowerCalls(model, kinds)
