"""`engine: server` against the same engine in this process: the same bytes, whatever happens to the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from video_thinker.config import ModelArguments
from video_thinker.generation.arguments import ServeArguments
from video_thinker.generation.engine_server import EngineServer
from video_thinker.generation.serve_engine import load_served, open_server

pytestmark = pytest.mark.integration


def serve(path, port: int = 0) -> EngineServer:
    """Serve a tiny model from a thread."""
    args = ServeArguments(port=port)
    server = open_server(args)
    server.served = load_served(ModelArguments(str(path), dtype="float32", attn_implementation="sdpa"), args)
    sample = server.sample

    def sample_and_scramble(message):
        try:
            return sample(message)
        finally:
            torch.manual_seed(0)  # the random numbers of this process are the trainer's, too

    server.sample = sample_and_scramble
    server.server_activate()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def stop(server: EngineServer) -> None:
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(tiny_model_dir) -> Iterator[EngineServer]:
    """A served local engine."""
    one = serve(tiny_model_dir)
    yield one
    stop(one)


def trained(trainer) -> dict[str, torch.Tensor]:
    trainer.train()
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("tiny_model_dir", "lora"), [("qwen2_5_vl", False), ("qwen3_vl", True)], indirect=["tiny_model_dir"]
)
def test_a_run_is_that_of_the_engine_in_this_process(make_grpo_trainer, server, lora):
    """Prompts of every kind of media; the weights of each step reach the server, or the second step would differ."""
    ours = trained(make_grpo_trainer(lora=lora, max_steps=2))
    theirs = trained(make_grpo_trainer(lora=lora, max_steps=2, engine="server", engine_url=server.url))
    assert same(ours, theirs)
