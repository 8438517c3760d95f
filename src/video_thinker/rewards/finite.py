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


def check_rewards(
    name: str, rewards: Sequence[float | None], num_completions: int, samples: Sequence[VideoSample] | None = None
) -> None:
    """Check what a reward function returned.

    Args:
        name: Of the reward function.
        rewards: One per completion.
        num_completions: How many there are.
        samples: The sample of each completion, for the message.

    Raises:
        DataError: There is not one reward per completion, or a reward is no number, NaN or infinite.
    """
    if not hasattr(rewards, "__len__") or isinstance(rewards, str) or len(rewards) != num_completions:
        found = f"{len(rewards)} values" if isinstance(rewards, list | tuple) else repr(rewards)[:80]
        where = f" (the first of sample {samples[0].id!r})" if samples else ""
        raise DataError(
            f"the reward {name} returned {found} for {num_completions} completions{where}; it must return a list with "
            "one number per completion, or None where it does not apply; fix the reward function."
        )
    for index, reward in enumerate(rewards):
        if reward is None or _is_finite_number(reward):
            continue
        where = f"completion {index}"
        if samples is not None and index < len(samples):
            where = f"{samples[index].location}: {where} of sample {samples[index].id!r}"
        raise DataError(
            f"{where}: the reward {name} is {reward!r}; a reward is a finite number, or None where it does not "
            "apply; fix the reward function, or the sample's numbers."
        )


def _is_finite_number(reward: Any) -> bool:
    """Also a number of numpy, or a tensor of one element."""
    try:
        return not isinstance(reward, str | bytes) and math.isfinite(float(reward))
    except (TypeError, ValueError, RuntimeError):  # no number, or an array of several
        return False


def finite_reward(reward: Callable[..., Any], errors: list[DataError] | None = None) -> Callable[..., Any]:
    """Wrap a reward function, plain or async, so that each of its values is checked by `check_rewards`.

    Args:
        reward: The function.
        errors: Collects what is found, with `None` for all rewards in its place, so that all ranks can stop together;
            without it, an error is raised at once.
    """
    name = getattr(reward, "__name__", type(reward).__name__)

    def checked(rewards: Sequence[float | None], columns: dict[str, Any]) -> Sequence[float | None]:
        num_completions = len(columns["completions"])
        try:
            check_rewards(name, rewards, num_completions, columns.get("sample"))
        except DataError as error:
            if errors is None:
                raise
            errors.append(error)
            return [None] * num_completions
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


def finite_rewards(rewards: Any, errors: list[DataError] | None = None) -> list[Any]:
    """Wrap the functions among a trainer's rewards; a reward model, or the name of one, TRL calls in its own way."""
    listed = rewards if isinstance(rewards, list) else [rewards]
    is_model = [isinstance(reward, str) or hasattr(reward, "forward") for reward in listed]
    return [reward if model else finite_reward(reward, errors) for reward, model in zip(listed, is_model, strict=True)]
