"""When an engine sleeps: the order of calls; vLLM itself has the mode on GPUs only."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from video_thinker.errors import ConfigError, EngineError
from video_thinker.generation import sleep
from video_thinker.generation.engine import Sampling
from video_thinker.generation.sleep import SleepingEngine, require_sleep_mode


class Recorder:
    """Stands for `VLLMEngine`: writes down what is called while awake or asleep."""

    def __init__(self) -> None:
        self.calls = []
        self.fails = False
        self.llm = SimpleNamespace(
            sleep=lambda level: self.calls.append(f"sleep {level}"), wake_up=lambda: self.calls.append("wake")
        )

    def sample(self, prompts, prompt_index, sampling):
        self.calls.append("sample")
        if self.fails:
            raise EngineError("no")
        return ["completions", list(prompts), list(prompt_index), sampling]

    def update_weights(self, model) -> None:
        self.calls.append(f"weights {model}")


def test_it_is_awake_for_weights_and_samples_and_asleep_else():
    inner = Recorder()
    engine = SleepingEngine(inner)
    assert inner.calls == ["sleep 1"]
    engine.update_weights("a")
    assert engine.sample(["p"], [0, 0], Sampling()) == ["completions", ["p"], [0, 0], Sampling()]
    engine.sample(["p"], [0], Sampling())  # by the same weights
    awake = ["wake", "weights a", "sample", "sleep 1", "wake", "sample", "sleep 1"]
    assert inner.calls == ["sleep 1", *awake]


def test_it_sleeps_after_a_rollout_that_failed():
    inner = Recorder()
    engine = SleepingEngine(inner)
    inner.fails = True
    with pytest.raises(EngineError):
        engine.sample(["p"], [0], Sampling())
    assert inner.calls == ["sleep 1", "wake", "sample", "sleep 1"]


def test_without_a_gpu_it_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^engine_sleep=true: .*no GPU here; remove engine_sleep"):
        require_sleep_mode()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_sleep_mode()
    assert sleep.OPTIONS == {"enable_sleep_mode": True}


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("local", "engine_sleep=true, but engine=local has no memory of its own"),
        ("vllm", "engine_sleep=true: vLLM's sleep mode gives GPU memory back"),
    ],
)
def test_a_run_that_cannot_sleep_is_refused_before_an_engine_starts(monkeypatch, engine, message):
    from video_thinker.training.sharing import make_engine

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = SimpleNamespace(engine=engine, engine_sleep=True, engine_max_tokens=500, max_prompt_length=None)
    with pytest.raises(ConfigError, match=message):
        make_engine(SimpleNamespace(args=args), None, shares_prompts=True)
