"""An engine that samples without the video is found: by the gap at the first rollout, and by the blind canary.

The engine here samples like the local one, and gives log-probabilities of its own forward, as vLLM does.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.conftest import every_family
from video_thinker.data.encode import blank_prompt
from video_thinker.errors import BlindModelError, EngineError
from video_thinker.generation.local import LocalEngine
from video_thinker.models.positions import continue_positions
from video_thinker.models.vision import model_media

pytestmark = pytest.mark.integration
TEMPERATURE = 0.9


class ScoringEngine(LocalEngine):
    """The local engine with log-probabilities of its own; `sees` is what becomes of a prompt on its way in."""

    def __init__(self, processor, sees) -> None:
        super().__init__(processor)
        self.sees = sees

    @torch.no_grad()
    def score(self, prompt, token_ids: list[int]) -> list[float]:
        positions = torch.cat([prompt.position_ids, continue_positions(prompt.position_ids, len(token_ids))], dim=1)
        logits = self._model(
            input_ids=torch.tensor([prompt.input_ids + token_ids]),
            position_ids=positions[:, None],
            **model_media([prompt.media], torch.device("cpu"), False),
        ).logits[0, len(prompt.input_ids) - 1 : -1]
        scores = (logits.float() / TEMPERATURE).log_softmax(-1)
        return scores.gather(-1, torch.tensor(token_ids)[:, None])[:, 0].tolist()

    def sample(self, prompts, prompt_index, sampling):
        seen = [self.sees(prompt) for prompt in prompts]
        sampled = super().sample(seen, prompt_index, sampling)
        return [
            dataclasses.replace(one, log_probs=self.score(seen[number], one.token_ids))
            for number, one in zip(prompt_index, sampled, strict=True)
        ]


@pytest.fixture
def trainer(make_grpo_trainer, tiny_model_dir):
    from video_thinker.models.loading import load_processor

    def make(sees, **overrides):
        engine = ScoringEngine(load_processor(str(tiny_model_dir)), sees)
        own = {"temperature": TEMPERATURE, "canary_steps": 1, "beta": 0.0, "max_steps": 1, "top_p": 1.0}
        return make_grpo_trainer(engine=engine, **{**own, **overrides})

    return make


@every_family
def test_an_engine_that_sees_opens_the_gap_with_blank_frames(trainer):
    made = trainer(lambda prompt: prompt)
    made.train()
    (entry,) = [entry for entry in made.state.log_history if "loss" in entry]
    assert entry["engine/logp_gap_mean"] < 1e-5
    assert entry["canary/engine_gap"] == pytest.approx(entry["canary/log_prob_gap"], rel=1e-3)
    assert entry["canary/engine_gap"] > 1e-3


@every_family
def test_an_engine_that_drops_the_video_is_stopped_by_the_gap_which_names_the_cause(trainer):
    with pytest.raises(EngineError, match=r"^step 0: engine and trainer disagree .*samples without the video"):
        trainer(blank_prompt).train()


def test_the_canary_stops_it_where_the_largest_gap_was_raised(trainer):
    with pytest.raises(BlindModelError, match=r"^step 0: the engine's .*blank frames.*samples without the video"):
        trainer(blank_prompt, engine_max_gap=1e6).train()


def test_another_fault_of_the_engine_is_not_called_blindness(trainer):
    def late(prompt):
        return dataclasses.replace(prompt, position_ids=prompt.position_ids * 3)

    with pytest.raises(EngineError, match="disagree .*Known causes: the text after a video") as caught:
        trainer(late).train()
    assert "samples without the video" not in str(caught.value)
