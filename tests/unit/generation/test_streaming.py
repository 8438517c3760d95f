"""An engine that is kept full: what is in work is bounded, prompts are read ahead, and nothing is lost."""

from __future__ import annotations

import threading

import pytest
import torch

from video_thinker.data.encode import EncodedPrompt
from video_thinker.errors import EngineError
from video_thinker.generation import streaming
from video_thinker.generation.engine import Sampled, Sampling
from video_thinker.generation.streaming import LookAhead, Request, sample_seed, stream

SAMPLING = Sampling(max_new_tokens=4)


class Engine:
    """Ends a prompt after so many steps as its first token says; the completion is that token and the seed."""

    def __init__(self):
        self.left, self.seen, self.most, self.aborted = {}, {}, 0, []

    def submit(self, prompt, sampling, seed, num_completions=1):
        name = f"p{len(self.seen)}"
        self.seen[name], self.left[name] = (prompt.input_ids[0], seed), prompt.input_ids[0]
        self.most = max(self.most, len(self.left))
        return name

    def step(self):
        for name in list(self.left):
            self.left[name] -= 1
            if self.left[name] == 0:
                del self.left[name]
                yield name, [Sampled(list(self.seen[name]), finished=True)]

    def abort(self, names):
        self.aborted += names


def prompt(token):
    return EncodedPrompt([token], [0], torch.zeros(3, 1, dtype=torch.long))


def requests(*steps):
    waiting = [Request(key, prompt(count), seed=100 + key) for key, count in enumerate(steps)]
    return lambda wait: waiting.pop(0) if waiting else None


def test_a_short_prompt_makes_room_for_the_next_at_once():
    engine = Engine()
    ended = [key for key, _ in stream(engine, requests(5, 1, 1, 1), SAMPLING, limit=2)]
    assert ended == [1, 2, 3, 0]  # in batches of two, the third would have waited for the first
    assert engine.most == 2


def test_each_completion_goes_to_its_request_with_its_seed():
    ended = dict(stream(Engine(), requests(3, 1, 2), SAMPLING, limit=3))
    assert {key: one.token_ids for key, one in ended.items()} == {0: [3, 100], 1: [1, 101], 2: [2, 102]}


def test_the_engine_waits_only_where_it_has_nothing_to_do():
    waits = []
    taken = iter([Request(0, prompt(3), 1), None, None, Request(1, prompt(1), 1), None, None])

    def take(wait):
        waits.append(wait)
        return next(taken, None)

    assert {key for key, _ in stream(Engine(), take, SAMPLING, limit=2)} == {0, 1}
    assert waits == [True, False, False, False, True]


def test_a_prompt_that_never_ends_is_an_error_and_is_taken_back(monkeypatch):
    monkeypatch.setattr(streaming, "SPARE_STEPS", 10)
    engine = Engine()
    with pytest.raises(EngineError, match="none of 1 prompts has ended. Start the command again"):
        list(stream(engine, requests(10**6), SAMPLING, limit=2))
    assert engine.aborted == ["p0"]


def test_what_is_left_when_nobody_reads_on_is_taken_back():
    engine = Engine()
    reading = stream(engine, requests(1, 9), SAMPLING, limit=2)
    assert next(reading)[0] == 0
    reading.close()
    assert engine.aborted == ["p1"]


def test_another_number_of_completions_is_an_error():
    engine = Engine()
    engine.step = lambda: [(name, []) for name in engine.left]
    with pytest.raises(EngineError, match="0 completions of p0; one was asked for"):
        list(stream(engine, requests(1), SAMPLING, limit=1))


def test_few_are_read_ahead():
    read, go_on = [], threading.Event()

    def items():
        for number in range(100):
            read.append(number)
            if number == 2:
                go_on.set()
            yield number

    ahead = LookAhead(items(), ahead=2)
    assert go_on.wait(30)
    assert read == [0, 1, 2]  # two wait, and one more is ready
    assert [ahead.take(wait=True) for _ in range(100)] == list(range(100))
    assert ahead.take(wait=True) is None and ahead.take(wait=False) is None
    ahead.close()


def test_an_error_comes_at_its_place():
    def items():
        yield "a"
        raise ValueError("broken")

    ahead = LookAhead(items())
    assert ahead.take(wait=True) == "a"
    with pytest.raises(ValueError, match="broken"):
        ahead.take(wait=True)
    ahead.close()


def test_a_reader_that_is_closed_early_ends():
    ahead = LookAhead(iter(range(10**9)), ahead=1)
    ahead.take(wait=True)
    ahead.close()
    ahead._thread.join(30)
    assert not ahead._thread.is_alive()


def test_a_seed_is_the_samples_own():
    assert sample_seed(0, "a") == sample_seed(0, "a") != sample_seed(0, "b") != sample_seed(1, "b")
    assert 0 <= sample_seed(7, "x") < 2**31
