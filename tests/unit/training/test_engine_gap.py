"""The gap between the log-probabilities of an engine and the trainer: what is logged, and what stops a run."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from video_thinker.errors import BlindModelError, EngineError
from video_thinker.training.loop.engine_gap import EngineGap

MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])
INDEX = torch.tensor([0, 1])


def check(theirs: list[list[float]], max_gap: float | None = None, dtype: torch.dtype = torch.float32):
    gap = EngineGap(max_gap, dtype, Accelerator(cpu=True))
    return gap.check(torch.tensor(theirs), torch.zeros(2, 3), MASK, INDEX, step=4)


def test_only_sampled_tokens_count():
    assert check([[1e-4, 3e-4, 9.0], [2e-4, 9.0, 9.0]]) == pytest.approx(
        {"engine/logp_gap_mean": 2e-4, "engine/logp_gap_max": 3e-4}
    )


def test_one_prompt_that_is_off_stops_the_run_though_the_mean_is_small():
    with pytest.raises(EngineError, match=r"^step 4: .* 0\.03 nats per token for one prompt \(0\.01 on average\), .*"):
        check([[0.0, 0.0, 0.0], [0.03, 0.0, 0.0]], max_gap=0.02)


@pytest.mark.parametrize(("dtype", "stops"), [(torch.float32, True), (torch.bfloat16, False)])
def test_half_precision_is_given_more_room(dtype, stops):
    theirs = [[0.01, 0.01, 0.0], [0.01, 0.0, 0.0]]
    if stops:
        with pytest.raises(EngineError, match="Known causes: .*positions.*normalized twice.*cache"):
            check(theirs, dtype=dtype)
    else:
        check(theirs, dtype=dtype)


def test_a_gap_that_is_not_a_number_stops_the_run():
    with pytest.raises(EngineError, match="inf"):
        check([[0.0, float("nan"), 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize("blind", [True, False])
def test_a_gap_is_named_blindness_if_blank_frames_close_it(blind):
    theirs = torch.tensor([[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]])
    blank = theirs + (1e-5 if blind else 0.5)
    with pytest.raises(EngineError) as caught:
        gap = EngineGap(None, torch.float32, Accelerator(cpu=True))
        gap.check(theirs, torch.zeros(2, 3), MASK, INDEX, 4, lambda: blank)
    assert ("the engine samples without the video" in str(caught.value)) == blind
    assert ("Known causes: " in str(caught.value)) != blind


@pytest.mark.parametrize(
    ("seen", "blank", "effect", "stops"),
    [
        (0.0001, 0.5, 0.5, False),  # sees the video
        (0.5, 0.0001, 0.5, True),  # is given blank frames
        (0.02, 0.021, 0.001, False),  # arithmetic is larger than what the video changes: nothing can be said
        (0.021, 0.02, 0.001, False),
        (0.6, 0.5, 0.5, False),  # wrong in another way, which is for `check` to stop
    ],
)
def test_blank_frames_must_open_the_gap(seen, blank, effect, stops):
    gap, zeros = EngineGap(None, torch.float32, Accelerator(cpu=True)), torch.zeros(2, 3)
    arguments = zeros, zeros + seen, zeros - blank, MASK, 6, effect
    if stops:
        with pytest.raises(BlindModelError, match=r"^step 6: .* 0\.5 nats .* 0\.0001 .*samples without the video"):
            gap.check_sight(*arguments)
    else:
        assert gap.check_sight(*arguments) == pytest.approx(blank)


def test_the_canary_counts_no_padding_and_stays_silent_without_a_token():
    gap, zeros = EngineGap(None, torch.float32, Accelerator(cpu=True)), torch.zeros(2, 3)
    blank = torch.tensor([[0.1, 0.1, 9.0], [0.1, 9.0, 9.0]])
    assert gap.check_sight(zeros, zeros, blank, MASK, 0, 0.1) == pytest.approx(0.1)
    assert gap.check_sight(zeros, zeros, blank, MASK * 0, 0, 0.1) == 0.0
