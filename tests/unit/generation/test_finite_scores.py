"""Nothing is sampled from scores that are not finite."""

from __future__ import annotations

import pytest
import torch

from video_thinker.errors import NonFiniteError
from video_thinker.generation.local import FiniteScores

FINE = torch.tensor([[1.0, -float("inf")], [0.0, 2.0]])  # suppressed tokens have no chance, the others have


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_token_is_looked_at_at_once_later_ones_at_the_end(bad):
    spoiled = FINE.clone()
    spoiled[1, 0] = bad
    with pytest.raises(NonFiniteError, match="not finite"):
        FiniteScores()(None, spoiled)
    scores = FiniteScores()
    assert scores(None, FINE) is FINE
    assert scores(None, spoiled[1:]) is not None
    scores(None, FINE)
    with pytest.raises(NonFiniteError, match="not finite"):
        scores.check()


def test_fine_scores_pass():
    scores = FiniteScores()
    scores(None, FINE)
    scores.check()
    FiniteScores().check()


def test_a_model_of_nan_is_no_answer(tiny_model_dir):
    from video_thinker.config import VideoArguments
    from video_thinker.generation.engine import Sampling
    from video_thinker.generation.local import LocalEngine
    from video_thinker.models.loading import load_encoder, load_model
    from video_thinker.schema import VideoSample

    encoder = load_encoder(str(tiny_model_dir), VideoArguments())
    prompt = encoder.encode_prompt(VideoSample("q", "Which?", "free-form", "A"))
    model = load_model(str(tiny_model_dir))
    engine = LocalEngine(encoder.processor)
    engine.update_weights(model)
    settings = Sampling(max_new_tokens=3, temperature=0.0)
    assert engine.sample([prompt], [0, 0], settings)
    calls = []
    forward = model.forward

    def late(*args, **kwargs):
        out = forward(*args, **kwargs)
        calls.append(1)
        if len(calls) > 1:
            out.logits.fill_(float("nan"))
        return out

    model.forward = late
    with pytest.raises(NonFiniteError, match="not finite"):
        engine.sample([prompt], [0, 0], settings)
