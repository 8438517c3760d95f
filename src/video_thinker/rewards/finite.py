"""A reward is a finite number or `None`: NaN and infinities are errors, found where the reward is computed.

TRL writes `None` as NaN, so that a NaN that a reward has computed would pass for "does not apply".
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from video_thinker.errors import DataError
from video_thinker.schema import VideoSample


def check_rewards(name: str, rewards: Sequence[float | None], samples: Sequence[VideoSample] | None = None) -> None:
    """Check what a reward function returned.

    Args:
        name: Of the reward function.
        rewards: One per completion.
        samples: The sample of each completion, for the message.

    Raises:
        DataError: A reward is NaN or infinite.
    """
    for index, reward in enumerate(rewards):
        if reward is not None and not math.isfinite(reward):
            where = f"completion {index}"
            if samples is not None and index < len(samples):
                where = f"{samples[index].location}: {where} of sample {samples[index].id!r}"
            raise DataError(
                f"{where}: the reward {name} is {reward}; a reward is a finite number, or None where it does not "
                "apply; fix the reward function, or the sample's numbers."
            )


def finite_reward(reward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a reward function, plain or async, so that each of its values is checked by `check_rewards`."""
    name = getattr(reward, "__name__", type(reward).__name__)

    def checked(rewards: Sequence[float | None], columns: dict[str, Any]) -> Sequence[float | None]:
        check_rewards(name, rewards, columns.get("sample"))
        return rewards

    @functools.wraps(reward)
    def plain(**columns: Any) -> Sequence[float | None]:
        return checked(reward(**columns), columns)

    @functools.wraps(reward)
    async def awaited(**columns: Any) -> Sequence[float | None]:
        return checked(await reward(**columns), columns)

    wrapped = awaited if inspect.iscoroutinefunction(inspect.unwrap(reward)) else plain
    wrapped.__name__ = name
    return wrapped


def finite_rewards(rewards: Any) -> list[Any]:
    """Wrap the functions among a trainer's rewards; a reward model, or the name of one, TRL calls in its own way."""
    listed = rewards if isinstance(rewards, list) else [rewards]
    is_model = [isinstance(reward, str) or hasattr(reward, "forward") for reward in listed]
    return [reward if model else finite_reward(reward) for reward, model in zip(listed, is_model, strict=True)]
