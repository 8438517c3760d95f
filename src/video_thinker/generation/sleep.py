"""vLLM that gives its GPU memory back between rollouts, by its sleep mode.

Level 1 of the sleep mode: keys and values are dropped, and with them the prefix cache; the weights wait in host memory,
so that a second rollout by the same weights needs no new ones. The calls are those of vLLM 0.32. The mode exists on
GPUs only, and was not run on one here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import ConfigError
from video_thinker.generation.engine import Sampled, Sampling
from video_thinker.generation.vllm import VLLMEngine

OPTIONS = {"enable_sleep_mode": True}
"""What `vllm.LLM` must be started with."""

LEVEL = 1
"""Of vLLM's levels: weights go to the host, keys and values are dropped. Level 2 would drop the weights, too."""


def require_sleep_mode() -> None:
    """Raise unless this machine has vLLM's sleep mode.

    Raises:
        ConfigError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "engine_sleep=true: vLLM's sleep mode gives GPU memory back, and torch sees no GPU here; remove "
            "engine_sleep (on a CPU, VLLM_CPU_KVCACHE_SPACE bounds what the engine takes)."
        )


class SleepingEngine:
    """An engine that is awake only while it samples or takes weights.

    Args:
        engine: Started with `OPTIONS`.
    """

    def __init__(self, engine: VLLMEngine) -> None:
        """See the class. The engine falls asleep at once: training may need its memory first."""
        self.engine = engine
        self._asleep = False
        self._sleep()

    def sample(
        self, prompts: Sequence[EncodedPrompt], prompt_index: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        """Draw completions awake; see `Engine`."""
        self._wake()
        try:
            return self.engine.sample(prompts, prompt_index, sampling)
        finally:
            self._sleep()

    def update_weights(self, model: Any) -> None:
        """Take weights awake, and stay so: a rollout follows; see `Engine`."""
        self._wake()
        self.engine.update_weights(model)

    def _sleep(self) -> None:
        self.engine.llm.sleep(level=LEVEL)
        self._asleep = True

    def _wake(self) -> None:
        if self._asleep:
            self.engine.llm.wake_up()
            self._asleep = False
