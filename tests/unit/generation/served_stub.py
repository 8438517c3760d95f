"""An engine without a model, served: its completions depend on prompts, weights and random numbers as a real one's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import torch

from video_thinker.data.encode import EncodedPrompt
from video_thinker.generation.engine import Sampled, Sampling
from video_thinker.generation.engine_client import ServerEngine
from video_thinker.generation.engine_http import EngineClient
from video_thinker.generation.engine_server import EngineServer
from video_thinker.generation.served import Identity, Served, load_into
from video_thinker.generation.wire import Message

VOCABULARY, END, VISION = 50, 7, 9
ABOUT = {"text.hidden_size": 4}
PROCESSOR = SimpleNamespace(tokenizer=SimpleNamespace(get_vocab=lambda: {"<|video_pad|>": VISION}))
SAMPLING = Sampling(max_new_tokens=6, temperature=1.0, options={"bias": [[[END], 3.0]]})


def make_model(seed: int) -> torch.nn.Module:
    """A model whose weights are the scores of the tokens."""
    torch.manual_seed(seed)
    return torch.nn.ModuleDict({"head": torch.nn.Linear(1, VOCABULARY), "body": torch.nn.Linear(3, 2)})


class StubEngine:
    """Draws tokens by a model's scores, from torch's random numbers."""

    end_token_ids: list[int] | None = [END]

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def update_weights(self, model: torch.nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def sample(self, prompts, prompt_index, sampling) -> list[Sampled]:
        done = []
        for number in prompt_index:
            pixels = sum(float(value.sum()) for value in prompts[number].media.values())
            scores = self.model["head"].weight[:, 0] * 3 + self.model["head"].bias + pixels
            scores[VISION] = -torch.inf
            ids, log_probs = [], []
            while len(ids) < sampling.max_new_tokens and (not ids or ids[-1] not in self.end_token_ids):
                ids.append(int(torch.multinomial(scores.softmax(0), 1)))
                log_probs.append(float(scores.log_softmax(0)[ids[-1]]))
            done.append(Sampled(ids, finished=ids[-1] in self.end_token_ids, log_probs=log_probs))
        return done


def prompt(seed: int) -> EncodedPrompt:
    """A prompt with pixels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (5 + seed,), generator=generator).tolist()
    media = {"pixel_values_videos": torch.randn(4, 3, generator=generator), "video_grid_thw": torch.tensor([[1, 2, 2]])}
    return EncodedPrompt(ids, [0] * len(ids), torch.arange(3 * len(ids)).view(3, -1), media)


PROMPTS, INDEX = [prompt(0), prompt(1)], [0, 0, 1, 1]


def make_served(seed: int = 0, **about: object) -> Served:
    """A stub engine with the weights that a server begins with."""
    model = make_model(seed)
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    return Served(
        StubEngine(model), Identity("stub", {**ABOUT, **about}, "float32"), expected, load_into(model), "first"
    )


@contextlib.contextmanager
def serving(
    served: Served | None = None,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    token: str | None = None,
    limit: int = 2**20,
) -> Iterator[EngineServer]:
    """Serve from a thread. It shares torch's random numbers with the test, so it leaves others behind."""
    server = EngineServer(host, port, token, limit)
    server.served = served or make_served()
    sample_well = server.sample

    def sample_and_scramble(message: Message) -> bytes:
        try:
            return sample_well(message)
        finally:
            torch.manual_seed(0)

    server.sample = sample_and_scramble
    server.server_activate()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def make_client(url: str, wait_s: float = 5.0, timeout_s: float = 30.0) -> EngineClient:
    return EngineClient(url, "ENGINE_TOKEN_OF_TEST", wait_s=wait_s, timeout_s=timeout_s, model=ABOUT, dtype="float32")


def make_engine(url: str, model: torch.nn.Module | None = None, **options) -> ServerEngine:
    """A trainer's engine, which has sent its weights."""
    rank = {name: options.pop(name) for name in ("gather", "is_main") if name in options}
    engine = ServerEngine(make_client(url, **options), PROCESSOR, VOCABULARY, end_token_ids=[END], **rank)
    engine.update_weights(model or make_model(1))
    return engine


def sample(engine, seed: int = 3) -> list[tuple]:
    """What an engine samples from a seed, with the random number that comes next."""
    torch.manual_seed(seed)
    sampled = engine.sample(PROMPTS, INDEX, SAMPLING)
    return [(one.token_ids, one.finished, one.log_probs) for one in sampled] + [float(torch.rand(()))]
