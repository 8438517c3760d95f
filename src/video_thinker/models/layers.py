"""What kinds of layers a language model has, and what each kind lets rollouts of one prompt share.

A full-attention layer sees exactly the tokens that its mask names, so the completions of a prompt can stand in one row.
A sliding window counts places of the row, where another completion may stand in between. A layer with a running state
(linear attention, convolution, …: Qwen3.5, Qwen3-Next) has no mask at all: its state flows from one completion into the
next, and no error says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FULL, SLIDING = "full_attention", "sliding_attention"

SHARE_PREFIX_LAYERS = frozenset({FULL})
"""Kinds of layers with which completions are scored in one row."""

SHARE_PREFILL_LAYERS = frozenset({FULL, SLIDING})
"""Kinds of layers whose cache of a prompt is copied to its completions, and drops rows that have ended."""


def layer_kinds(config: Any) -> frozenset[str]:
    """Find the kinds of a model's language layers; a family whose config names none has full attention only."""
    text_config = config.get_text_config()
    return frozenset(getattr(text_config, "layer_types", None) or [FULL])


def unshared_causes(config: Any, allowed: frozenset[str]) -> Iterator[str]:
    """Say what kinds of layers of a model are not among those `allowed`."""
    for kind in sorted(layer_kinds(config) - allowed):
        why = (
            "count places of a row" if kind == SLIDING else "keep a state that flows from one completion into the next"
        )
        yield f"the model has {kind} layers, which {why}"
