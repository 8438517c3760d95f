"""`engine: server` against the same engine in this process: the same bytes of weights."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
import yaml

from tests import launcher

pytestmark = pytest.mark.integration


@pytest.fixture
def engine_url(tiny_model_dir, tmp_path) -> Iterator[str]:
    """A served local engine, in a process of its own: the random numbers of this one are the trainer's."""
    keys = {"model_name_or_path": str(tiny_model_dir), "dtype": "float32", "attn_implementation": "sdpa", "port": 0}
    config = tmp_path / "serve.yaml"
    config.write_text(yaml.safe_dump(keys), encoding="utf-8")
    command = ["-u", "-m", "video_thinker.cli", "serve-engine", config]
    with launcher.Popen(command, stdout=launcher.PIPE) as program:
        said = program.stdout.readline()
        yield re.search(r"engine_url=(\S+)", said).group(1)
        program.kill()


def trained(trainer) -> dict[str, torch.Tensor]:
    trainer.train()
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("tiny_model_dir", "lora"), [("qwen2_5_vl", False), ("qwen3_vl", True)], indirect=["tiny_model_dir"]
)
def test_a_run_is_that_of_the_engine_in_this_process(make_grpo_trainer, engine_url, lora):
    """Prompts of every kind of media; the weights of each step reach the server, or the second step would differ."""
    ours = trained(make_grpo_trainer(lora=lora, max_steps=2))
    theirs = trained(make_grpo_trainer(lora=lora, max_steps=2, engine="server", engine_url=engine_url))
    assert same(ours, theirs)
