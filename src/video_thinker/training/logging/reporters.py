"""Reporters (TensorBoard and the like) whose disk is full: that is said once, and never ends a training."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from transformers.integrations import INTEGRATION_TO_CALLBACK

from video_thinker.disk import say

logger = logging.getLogger(__name__)

EVENTS = ("on_train_begin", "on_log", "on_evaluate", "on_save", "on_step_end", "on_train_end", "on_predict")


def guard_reporters(trainer: Any) -> None:
    """Let no reporter of a trainer end the run when what it writes cannot be written."""
    kinds = tuple(kind for kind in INTEGRATION_TO_CALLBACK.values() if isinstance(kind, type))
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, kinds):
            guard(callback)


def guard(callback: Any) -> None:
    """Count the events that a reporter cannot write, and say so at the first and at the end."""
    name, lost = type(callback).__name__.removesuffix("Callback"), [0]

    def call(event: Callable[..., Any], is_last: bool, *args: Any, **kwargs: Any) -> Any:
        try:
            return event(*args, **kwargs)
        except OSError as error:
            if not lost[0]:
                logger.warning("%s cannot write its log (%s); the training goes on", name, say(error))
            lost[0] += 1
        finally:
            if is_last and lost[0]:
                logger.warning("%s could not write %d events", name, lost[0])
        return None

    for event in EVENTS:
        if hasattr(callback, event):
            setattr(callback, event, functools.partial(call, getattr(callback, event), event == "on_train_end"))
