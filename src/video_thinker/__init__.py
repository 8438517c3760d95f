"""Video-Thinker: train video-language models to think with videos, by SFT on grounded traces and GRPO on outcomes.

The Python API is what `__all__` names (docs/python_api.md). Each name is imported when it is first used, so that
`import video_thinker` is quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from video_thinker.data.annotations import load_samples
    from video_thinker.errors import ConfigError, DataError, DecodeError, VideoThinkerError
    from video_thinker.evaluation.run import evaluate
    from video_thinker.report.ask import Answer, ask
    from video_thinker.rewards.accuracy import accuracy_reward
    from video_thinker.rewards.completions import completion_text
    from video_thinker.rewards.format import format_reward
    from video_thinker.rewards.length import length_reward
    from video_thinker.rewards.temporal_iou import temporal_iou_reward
    from video_thinker.schema import Media, Segment, Trace, TraceBlock, VideoSample
    from video_thinker.trace import format_violations, parse_trace
    from video_thinker.training.arguments import VideoGRPOConfig, VideoSFTConfig
    from video_thinker.training.sft import VideoSFTTrainer
    from video_thinker.training.trainer import VideoGRPOTrainer

_HOMES = {
    "data.annotations": ("load_samples",),
    "errors": ("ConfigError", "DataError", "DecodeError", "VideoThinkerError"),
    "evaluation.run": ("evaluate",),
    "report.ask": ("Answer", "ask"),
    "rewards.accuracy": ("accuracy_reward",),
    "rewards.completions": ("completion_text",),
    "rewards.format": ("format_reward",),
    "rewards.length": ("length_reward",),
    "rewards.temporal_iou": ("temporal_iou_reward",),
    "schema": ("Media", "Segment", "Trace", "TraceBlock", "VideoSample"),
    "trace": ("format_violations", "parse_trace"),
    "training.arguments": ("VideoGRPOConfig", "VideoSFTConfig"),
    "training.sft": ("VideoSFTTrainer",),
    "training.trainer": ("VideoGRPOTrainer",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "ConfigError",
    "DataError",
    "DecodeError",
    "Media",
    "Segment",
    "Trace",
    "TraceBlock",
    "VideoGRPOConfig",
    "VideoGRPOTrainer",
    "VideoSFTConfig",
    "VideoSFTTrainer",
    "VideoSample",
    "VideoThinkerError",
    "accuracy_reward",
    "ask",
    "completion_text",
    "evaluate",
    "format_reward",
    "format_violations",
    "length_reward",
    "load_samples",
    "parse_trace",
    "temporal_iou_reward",
]


def __getattr__(name: str) -> object:
    """Import a name of the API (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the API, too."""
    return sorted({*globals(), *__all__})
