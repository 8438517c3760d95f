"""Rewards: one per file, by name. They run without torch.

Adding one: write `rewards/<name>.py` with a function `<name>_reward` (see `rewards/completions.py` for how it is
called), add a line to `REWARD_FUNCS`, and a test with empty, untagged, repeated, nested and mixed input.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from video_thinker.errors import ConfigError
from video_thinker.rewards.accuracy import accuracy_reward
from video_thinker.rewards.completions import RewardFunc
from video_thinker.rewards.format import format_reward
from video_thinker.rewards.length import length_reward
from video_thinker.rewards.temporal_iou import temporal_iou_reward

REWARD_FUNCS: dict[str, RewardFunc] = {
    "accuracy": accuracy_reward,
    "format": format_reward,
    "temporal_iou": temporal_iou_reward,
    "length": length_reward,
}

GOLD_REWARDS = {"accuracy", "length"}
"""Rewards that grade against the gold answer."""


def reward_names(rewards: Sequence[str | RewardFunc]) -> list[str]:
    """Name rewards as TRL logs them, except that one of `REWARD_FUNCS` has its short name.

    Raises:
        ConfigError: something is neither a name nor a function.
    """
    names = []
    for reward in rewards:
        if not isinstance(reward, str) and not callable(reward):
            raise ConfigError(f"reward_funcs: {reward!r} is neither the name of a reward nor a function; fix it.")
        name = reward if isinstance(reward, str) else getattr(reward, "__name__", type(reward).__name__)
        names.append(next((short for short, known in REWARD_FUNCS.items() if known is reward), name))
    return names


def resolve_reward_funcs(
    rewards: Sequence[str | RewardFunc], parameters: Mapping[str, Mapping[str, Any]] | None = None
) -> list[RewardFunc]:
    """Return reward functions in their order: those given by name, as in `load_reward_funcs`, and those given as such.

    Raises:
        ConfigError: as in `load_reward_funcs`, or two rewards have one name, under which TRL would log both.
    """
    names = reward_names(rewards)
    if len(set(names)) < len(names):
        raise ConfigError(f"reward_funcs: {names} has a name twice; rename one function, or use reward_weights.")
    known = [name for name in names if name in REWARD_FUNCS or name in rewards]
    loaded = dict(zip(known, load_reward_funcs(known, parameters), strict=True))
    return [
        loaded[name] if isinstance(reward, str) else loaded.get(name, reward)
        for name, reward in zip(names, rewards, strict=True)
    ]


def check_reward_weights(weights: Sequence[float] | None, names: Sequence[str]) -> None:
    """Refuse weights that are not one for each reward, or all zero: no completion would be better than another one.

    Raises:
        ConfigError: naming what was found.
    """
    if weights and not any(weights):
        raise ConfigError(f"reward_weights={list(weights)}: all are 0, so nothing would be learnt; raise one.")
    if weights is not None and len(weights) != len(names):
        raise ConfigError(
            f"reward_weights={list(weights)} has {len(weights)} weights, but reward_funcs={list(names)} has "
            f"{len(names)} rewards; give one weight for each reward, or leave reward_weights out (1 each)."
        )


def load_reward_funcs(
    names: Sequence[str], parameters: Mapping[str, Mapping[str, Any]] | None = None
) -> list[RewardFunc]:
    """Return the reward functions of these names, in this order.

    `parameters` sets a reward's own keyword arguments, by reward name: `{"length": {"min_tokens": 32, "max_tokens":
    64}}`.

    Raises:
        ConfigError: If a name is unknown or repeated, or a parameter is none of its reward's.
    """
    parameters = parameters or {}
    for name in [*names, *parameters]:
        if name not in REWARD_FUNCS:
            known = ", ".join(REWARD_FUNCS)
            raise ConfigError(f"reward_funcs: {name!r} is not a reward; the rewards are {known}; choose among them.")
    if len(set(names)) < len(names):
        raise ConfigError(
            f"reward_funcs: {list(names)} names a reward twice; each counts once; use reward_weights instead."
        )
    if unused := set(parameters) - set(names):
        raise ConfigError(
            f"reward parameters for {sorted(unused)}, which are not in reward_funcs {list(names)}; add or drop."
        )
    return [_with_parameters(name, parameters.get(name, {})) for name in names]


def _with_parameters(name: str, parameters: Mapping[str, Any]) -> RewardFunc:
    reward = REWARD_FUNCS[name]
    if not parameters:
        return reward
    accepted = [
        key for key, value in inspect.signature(reward).parameters.items() if isinstance(value.default, int | float)
    ]
    if unknown := set(parameters) - set(accepted):
        rule = f"its parameters are {', '.join(accepted)}" if accepted else "it has no parameters"
        raise ConfigError(f"reward {name!r}: unknown parameters {sorted(unknown)}; {rule}; fix the name.")
    # TRL logs a reward under its __name__, which a partial has not by itself.
    return functools.update_wrapper(functools.partial(reward, **parameters), reward)
