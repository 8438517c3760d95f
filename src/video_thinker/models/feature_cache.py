"""Features of a frozen vision tower on disk, so that a video is encoded once per run and not once per epoch and rank.

An entry is known by what the tower was given, pixels and grid (in which file content, sampling and preprocessing end),
and by the tower that read it: its weights, type and attention.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import nn

from video_thinker.data.cache import DiskCache

FORMAT = 3
"""Part of every key: raise it when an entry's tensors change their meaning."""


class FeatureCache(DiskCache):
    """Tensors by the pixels and the tower they come from.

    Args:
        folder: Where the store lies; made if it is not there.
        size_gib: Its size limit in GiB.
    """

    def __init__(self, folder: str | Path, size_gib: float) -> None:
        """See the class."""
        super().__init__(folder, size_gib, "feature_cache_dir")
        self._towers: dict[int, str] = {}

    def read(self, tower: nn.Module, pixels: torch.Tensor, grid_thw: torch.Tensor) -> dict[str, torch.Tensor] | None:
        """Give the stored tensors of pixels (n, D) with their grid (k, 3), on the CPU; `None` if there are none."""
        found: dict[str, torch.Tensor] | None = self.get(self._key(tower, pixels, grid_thw), "an entry", load)
        return found

    def write(
        self, tower: nn.Module, pixels: torch.Tensor, grid_thw: torch.Tensor, tensors: dict[str, torch.Tensor]
    ) -> None:
        """Store the tensors that a tower made of pixels."""
        content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        self.set(self._key(tower, pixels, grid_thw), content, "features")

    def _key(self, tower: nn.Module, pixels: torch.Tensor, grid_thw: torch.Tensor) -> tuple[int, str, str]:
        if id(tower) not in self._towers:
            self._towers[id(tower)] = tower_digest(tower)
        device = next(tower.parameters()).device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        given = hashlib.blake2b(str(autocast).encode(), digest_size=32)
        for tensor in (pixels, grid_thw):
            given.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            given.update(_bytes(tensor))
        return FORMAT, self._towers[id(tower)], given.hexdigest()


def tower_digest(tower: nn.Module) -> str:
    """Hash a tower's weights, their types, and its attention implementation. Its parameters must be whole (ZeRO-3)."""
    digest = hashlib.blake2b(str(getattr(tower.config, "_attn_implementation", "")).encode(), digest_size=32)
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
