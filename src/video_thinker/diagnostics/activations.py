"""How much memory activations take, without taking it: the model's own code runs on tensors that have no memory.

Forward and backward run under `FakeTensorMode`, and every storage that an operation makes is counted from its first to
its last reference. So whatever transformers and PEFT really do (types, copies, what backward keeps, what gradient
checkpointing drops) is in the count. Layers are alike, so two shallow models give what each further layer adds.

Shapes: B rows, L sequence, N patches of all videos, D values per patch.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import PretrainedConfig

from video_thinker.diagnostics.shapes import with_depth

DEPTHS = (1, 4)
"""Layers of the two shallow models that training is traced with: their difference is what three more layers keep."""

INFERENCE_DEPTH = 3
"""Layers of the model that a forward without gradients is traced with."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages made under it that are still referenced.

    Attributes:
        now: Bytes alive.
        peak: Most bytes that were alive at a time since the start, or since `peak` was set.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        """Leave out tensors that were there before, such as parameters and inputs, and all views of them."""
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.now = self.peak = 0
        self._known = [tensor.untyped_storage() for tensor in known]  # held, so that no other gets their address
        self._alive: dict[int, Any] = {storage._cdata: None for storage in self._known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def forget(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


@dataclass(frozen=True)
class Batch:
    """The largest batch of a forward.

    Attributes:
        rows: B, each with one video.
        length: L.
        grid: The videos' patches (T, H, W).
        masked: Whether attention gets a mask: rows differ in length, or hold several completions.
        encodes: Whether the vision tower runs; else its features are given.
    """

    rows: int
    length: int
    grid: tuple[int, int, int]
    masked: bool = False
    encodes: bool = True

    @property
    def num_patches(self) -> int:
        """N."""
        return self.rows * self.grid[0] * self.grid[1] * self.grid[2]

    def patch_shape(self, vision: PretrainedConfig) -> tuple[int, int]:
        """(N, D) of the pixels."""
        return self.num_patches, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2


@dataclass(frozen=True)
class Footprint:
    """Memory of one part of the model in bytes, without parameters, their gradients, and pixels.

    Attributes:
        saved: Alive between forward and backward.
        transient: Most that comes on top of it while backward begins; with gradient checkpointing, one layer's
            activations.
    """

    saved: int
    transient: int

    @property
    def peak(self) -> int:
        """Most memory at a time."""
        return self.saved + self.transient


ModelBuilder = Callable[[PretrainedConfig], Any]
"""Builds a model on the meta device, as it is trained: frozen parts, adapters, gradient checkpointing."""


def _to_fake(model: torch.nn.Module) -> None:
    """Replace meta tensors by fake CPU ones, so that operations choose a real device's kernels. Call it in the mode."""
    made: dict[int, torch.Tensor] = {}  # tied weights stay tied

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return made[id(tensor)]

    parameters: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                new = parameters.setdefault(
                    id(parameter), torch.nn.Parameter(fake(parameter), requires_grad=parameter.requires_grad)
                )
                module._parameters[name] = new
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)


def _vision_forward(visual: Any, batch: Batch, pixels_ND: torch.Tensor) -> list[torch.Tensor]:
    """Run a tower's layers on N patches; the index tensors its own forward computes from values are left out.

    Returns:
        Vision tokens (N / merge², hidden), and Qwen3-VL's features of deeper layers.
    """
    config = visual.config
    # Only eager attention takes memory by segment. The ends are read: a fake tensor has no values, so this is none.
    segment = batch.grid[1] * batch.grid[2] if config._attn_implementation == "eager" else batch.num_patches
    segment_ends = np.arange(0, batch.num_patches + 1, segment)
    head_dim = config.hidden_size // config.num_heads
    rotary = (torch.empty(batch.num_patches, head_dim), torch.empty(batch.num_patches, head_dim))
    hidden = visual.patch_embed(pixels_ND.type(visual.dtype))
    for block in visual.blocks:
        hidden = block(hidden, cu_seqlens=segment_ends, position_embeddings=rotary)
    return [visual.merger(hidden), *(merger(hidden) for merger in getattr(visual, "deepstack_merger_list", []))]


def _language_forward(model: Any, batch: Batch, vision: torch.Tensor) -> torch.Tensor:
    """Embed B x L tokens, put the vision tokens in, run the language model: hidden states (B, L, hidden)."""
    ids_BL = torch.empty(batch.rows, batch.length, dtype=torch.long)
    embeds = model.get_input_embeddings()(ids_BL)
    embeds = embeds.masked_scatter(torch.empty(batch.rows, batch.length, 1, dtype=torch.bool), vision)
    mask = torch.empty(batch.rows, 1, batch.length, batch.length, dtype=torch.bool) if batch.masked else None
    positions = torch.empty(3, batch.rows, batch.length, dtype=torch.long)
    output = model.model.language_model(
        inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False
    )
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


class _Tracer:
    """Traces one shallow model. `autocast` is the type of mixed precision, or `None`."""

    def __init__(self, build: ModelBuilder, config: PretrainedConfig, depth: int, autocast: torch.dtype | None) -> None:
        self.mode = FakeTensorMode()
        model = build(with_depth(config, depth)).train()
        with self.mode:
            _to_fake(model)
        self.whole = model
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.autocast = autocast
        for parameter in model.parameters():
            if parameter.requires_grad:  # accumulated gradients are counted apart, with the parameters
                parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))

    def _run(self, forward: Callable[[], list[torch.Tensor]], backward: bool, *inputs: torch.Tensor) -> Footprint:
        live = LiveBytes([*self.whole.parameters(), *self.whole.buffers(), *inputs])
        with self.mode, live:
            with torch.autocast("cpu", self.autocast) if self.autocast else nullcontext():
                outputs = forward()
            saved = live.now
            if backward and outputs[0].requires_grad:
                torch.autograd.backward(outputs, [torch.empty_like(output) for output in outputs])
        return Footprint(saved, live.peak - saved)

    def vision(self, batch: Batch, backward: bool) -> Footprint:
        visual = self.model.model.visual
        with self.mode:
            pixels_ND = torch.empty(batch.patch_shape(visual.config))  # float32, as processors make them
        return self._run(lambda: _vision_forward(visual, batch, pixels_ND), backward, pixels_ND)

    def language(self, batch: Batch, backward: bool) -> Footprint:
        visual = self.model.model.visual
        tokens = batch.num_patches // visual.config.spatial_merge_size**2
        with self.mode:  # counted with the tower that makes it
            vision = torch.empty(tokens, visual.config.out_hidden_size, dtype=visual.dtype)
        if torch.is_grad_enabled() and any(p.requires_grad for p in visual.parameters()):
            vision.requires_grad_()
        return self._run(lambda: [_language_forward(self.model, batch, vision)], backward, vision)


class Traces:
    """Traces one model, as it is trained. What is asked again is not traced again.

    Args:
        build: Builds the model as it is trained.
        config: The model's config.
        autocast: Type of mixed precision, or `None`.
    """

    def __init__(self, build: ModelBuilder, config: PretrainedConfig, autocast: torch.dtype | None = None) -> None:
        """See the class."""
        self._config = config
        self._tracer = functools.cache(lambda depth: _Tracer(build, config, depth, autocast))
        self._known: dict[tuple[object, ...], Footprint] = {}

    def training(self, batch: Batch) -> tuple[Footprint, Footprint]:
        """Trace forward and backward of the vision tower and of the language model, without the output layer.

        Args:
            batch: The largest batch.

        Returns:
            Footprints of the vision tower and of the language model.
        """
        vision = self._deep("vision", batch, self._config.vision_config.depth) if batch.encodes else Footprint(0, 0)
        return vision, self._deep("language", batch, self._config.text_config.num_hidden_layers)

    def inference(self, batch: Batch) -> int:
        """Trace a forward without gradients: most bytes alive at a time, without KV cache and output layer.

        Vision tokens stay until the language model has run. Depth does not matter: each layer frees what it made.
        """
        with torch.no_grad():
            vision = self._trace("vision", batch, INFERENCE_DEPTH) if batch.encodes else Footprint(0, 0)
            language = self._trace("language", batch, INFERENCE_DEPTH)
        return max(vision.peak, vision.saved + language.peak)

    def _deep(self, part: str, batch: Batch, depth: int) -> Footprint:
        """Trace the two shallow models, and give what one of so many layers takes. The deeper one tells the peak."""
        less, more = self._trace(part, batch, DEPTHS[0]), self._trace(part, batch, DEPTHS[1], backward=True)
        per_layer = (more.saved - less.saved) // (DEPTHS[1] - DEPTHS[0])
        return Footprint(less.saved + (depth - DEPTHS[0]) * per_layer, more.transient)

    def _trace(self, part: str, batch: Batch, depth: int, *, backward: bool = False) -> Footprint:
        decisive = (batch.grid,) if part == "vision" else (batch.num_patches, batch.length, batch.masked)
        key = (part, depth, backward, torch.is_grad_enabled(), batch.rows, *decisive)
        if key not in self._known:
            tracer = self._tracer(depth)
            trace = tracer.vision if part == "vision" else tracer.language
            self._known[key] = trace(batch, backward)
        return self._known[key]
