"""Features of a frozen vision tower on disk, so that a video is encoded once per run and not once per epoch and rank.

An entry is known by what the tower was given, pixels and grid (in which file content, sampling and preprocessing end),
and by the tower that read it: its weights, type and attention. The store is `diskcache`: several processes share it, a
kill leaves it whole, and the least recently used entries leave when it is full.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path
from typing import Any

import diskcache
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from video_thinker.data.cache import STORE_ERRORS

logger = logging.getLogger(__name__)

FORMAT = 2
"""Part of every key: raise it when an entry's tensors change their meaning."""


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


class FeatureCache:
    """Tensors by the pixels and the tower they come from.

    Args:
        folder: Where the store lies; made if it is not there.
        size_gib: Its size limit in GiB.
    """

    def __init__(self, folder: str | Path, size_gib: float) -> None:
        """See the class."""
        self._store = diskcache.Cache(
            str(folder), size_limit=int(size_gib * 2**30), eviction_policy="least-recently-used", cull_limit=100
        )
        self._towers: dict[int, str] = {}

    def read(self, tower: nn.Module, pixels: torch.Tensor, grid_thw: torch.Tensor) -> dict[str, torch.Tensor] | None:
        """Give the stored tensors of pixels (n, D) with their grid (k, 3), on the CPU; `None` if there are none."""
        try:
            stored: Any = self._store.get(self._key(tower, pixels, grid_thw))
            return None if stored is None else load(stored)
        except (*STORE_ERRORS, SafetensorError) as error:
            _warn_once(f"feature_cache_dir: an entry cannot be read ({error}); the video is encoded again")
            return None

    def write(
        self, tower: nn.Module, pixels: torch.Tensor, grid_thw: torch.Tensor, tensors: dict[str, torch.Tensor]
    ) -> None:
        """Store the tensors that a tower made of pixels."""
        content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        try:
            self._store.set(self._key(tower, pixels, grid_thw), content)
        except STORE_ERRORS as error:
            _warn_once(f"feature_cache_dir: features are not kept ({error}); free space, or lower feature_cache_gib")

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
