"""Two real processes over gloo: what they compute equals what one process computes with the same global batch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests import launcher
from tests.conftest import REPO, make_item, write_items
from tests.tiny import GRPO_RUN, RUN
from video_thinker.training.loop.watchdog import EXIT_STUCK

pytestmark = [pytest.mark.integration, pytest.mark.distributed, pytest.mark.usefixtures("ranks_can_load")]
DEEPSPEED = REPO / "configs" / "deepspeed"
SFT, GRPO = (REPO / "scripts" / f"run_{stage}_video.sh" for stage in ("sft", "grpo"))
LOSS_TOLERANCE = 2e-4
"""Over a few steps of Adam, on losses of 4 to 6 in fp32: two processes add gradients in another order than one."""


@pytest.fixture(scope="module")
def mixed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video, two videos, image, image and video, and text only, so that ranks always hold different kinds."""
    items = [
        make_item("video", "a.mp4"),
        make_item("text", data_type="text"),
        make_item("image", "still.png", data_type="image"),
        make_item("two", ["a.mp4", "b.mp4"]),
        make_item("text too", data_type="text", problem="Which color is red?"),
        make_item("both", ["still.png", "c.mp4"], data_type=["image", "video"]),
    ]
    for item in items[1:]:
        item.pop("segments")
    del items[1]["path"], items[4]["path"]
    return write_items(tmp_path_factory.mktemp("mixed") / "mixed.jsonl", items)


@pytest.fixture(scope="module")
def config(tiny_model_dir: Path, media_root: Path, mixed_file: Path, tmp_path_factory: pytest.TempPathFactory):
    """Write a config file; every run gets a folder of its own."""
    common = {
        "model_name_or_path": str(tiny_model_dir),
        **RUN,
        "train_file": str(mixed_file),
        "media_root": str(media_root),
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "step_timeout_s": 100,
        "seed": 3,
    }
    special = {
        "sft": {"per_device_train_batch_size": 1, "max_steps": 6, "canary_steps": 2},
        "grpo": {
            **GRPO_RUN,
            "max_completion_length": 10,
            "loss_type": "grpo",
            "max_steps": 4,
            "canary_steps": 3,
        },
    }
    folder = tmp_path_factory.mktemp("runs")

    def write(stage: str, name: str, **overrides) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**common, **special[stage], **overrides, "output_dir": str(folder / name)}))
        return path

    return write


def train(stage: str, config_file: Path, num_ranks: int = 1) -> Path:
    """Train in so many processes and return the output folder; the scripts that start them have tests of their own."""
    return program(["-m", "video_thinker.cli", stage], config_file, num_ranks)


def fixed_rollouts(config_file: Path, num_ranks: int = 1) -> Path:
    return program(["-m", "tests.distributed.fixed_rollouts"], config_file, num_ranks)


def program(words: list[str], config_file: Path, num_ranks: int) -> Path:
    arguments = [*words, config_file]
    done = launcher.ranks(num_ranks, arguments) if num_ranks > 1 else [launcher.run(arguments)]
    assert [rank.returncode for rank in done] == [0] * num_ranks, "\n".join(rank.stderr[-4000:] for rank in done)
    return config_file.with_suffix("")


def torchrun(num_ranks: int, *arguments: str | Path) -> subprocess.CompletedProcess:
    return launcher.run(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", num_ranks, *arguments])


def logged(folder: Path, key: str) -> torch.Tensor:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return torch.tensor([entry[key] for entry in history if key in entry])


def assert_close_weights(one: Path, other: Path, tolerance: float) -> None:
    """Compare two results, loaded as a user would."""
    models = [AutoModelForImageTextToText.from_pretrained(path, dtype="float32") for path in (one, other)]
    AutoProcessor.from_pretrained(other)
    for (name, left), right in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture(scope="module")
def sft_alone(config, mixed_file) -> Path:
    """SFT in one process, two micro-batches a step, evaluated on the way."""
    path = config(
        "sft",
        "sft_alone",
        gradient_accumulation_steps=2,
        eval_strategy="steps",
        eval_steps=3,
        eval_file=str(mixed_file),
    )
    return train("sft", path)


@pytest.mark.parametrize("sharding", [None, "zero2", "zero2_offload", "zero3", "zero3_offload"])
def test_sft_on_mixed_data_equals_one_process(config, mixed_file, sft_alone, sharding):
    options = {"deepspeed": str(DEEPSPEED / f"{sharding}.json")} if sharding else {}
    if sharding == "zero3":
        options |= {"eval_strategy": "steps", "eval_steps": 3, "eval_file": str(mixed_file)}
    folder = train("sft", config("sft", f"sft_{sharding}", **options), 2)
    torch.testing.assert_close(logged(folder, "loss"), logged(sft_alone, "loss"), atol=LOSS_TOLERANCE, rtol=0)
    assert (logged(folder, "canary/log_prob_gap") > 1e-3).all()
    if sharding == "zero3":
        ours, theirs = logged(folder, "eval_loss"), logged(sft_alone, "eval_loss")
        assert len(ours) == 2
        # One process takes batches of 8 items, two take one item each: the mean of means differs, the fall does not.
        assert ours[1] < ours[0] and theirs[1] < theirs[0]
    assert_close_weights(sft_alone, folder, tolerance=2e-3)


def test_two_launchers_as_two_nodes(config, sft_alone):
    path = config("sft", "sft_nodes", deepspeed=str(DEEPSPEED / "zero3.json"))
    port = str(launcher.free_port())
    node = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NUM_PROCESSES": "1"}
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda rank: launcher.script(SFT, path, env={**node, "NODE_RANK": rank}), "01"):
            assert done.returncode == 0, done.stderr[-4000:]
    folder = path.with_suffix("")
    torch.testing.assert_close(logged(folder, "loss"), logged(sft_alone, "loss"), atol=LOSS_TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def grpo_alone(config) -> Path:
    return fixed_rollouts(config("grpo", "grpo_alone", gradient_accumulation_steps=2))


@pytest.mark.parametrize("sharding", ["zero2", "zero3"])
def test_grpo_on_mixed_data_equals_one_process(config, mixed_file, grpo_alone, sharding):
    """Generation, sharded reference, rewards, and losses in parts of a token budget; evaluation during training."""
    options = {"deepspeed": str(DEEPSPEED / f"{sharding}.json"), "max_tokens_per_forward": 100, "length_order": True}
    if sharding == "zero3":
        options |= {"eval_strategy": "steps", "eval_steps": 4, "eval_file": str(mixed_file)}
        options |= {"per_device_eval_batch_size": 4}
    folder = fixed_rollouts(config("grpo", f"grpo_{sharding}", **options), 2)
    # The logged KL is a mean over a micro-batch's tokens, and which rows share one depends on the shuffle: looser.
    for key, rtol in {"loss": 1e-3, "reward": 0, "completions/mean_length": 0, "kl": 0.1}.items():
        ours, theirs = logged(folder, key), logged(grpo_alone, key)
        torch.testing.assert_close(ours, theirs, atol=LOSS_TOLERANCE, rtol=rtol, msg=lambda m, key=key: f"{key}: {m}")
    assert logged(folder, "kl")[-1] > 1e-4
    alone = torch.load(grpo_alone / "logps_0.pt")
    compared = {"policy": 0, "reference": 0}
    for rank in range(2):
        for (step, who, ids), logps in torch.load(folder / f"logps_{rank}.pt").items():
            if step >= 4:
                continue  # the evaluation's
            tolerance = 1e-5 if step == 0 or who == "reference" else 2e-3
            torch.testing.assert_close(logps, alone[step, who, ids], atol=tolerance, rtol=0)
            compared[who] += 1
    assert min(compared.values()) >= 4 * 8  # steps x rows
    assert_close_weights(grpo_alone, folder, tolerance=4e-3)
    if sharding == "zero3":
        assert len(logged(folder, "eval_reward")) == 1


def test_qwen3_vl_under_zero3_equals_one_process(config, tiny_models):
    """Its tower also gives features to the first layers of the language model (DeepStack)."""
    model = {"model_name_or_path": str(tiny_models / "qwen3_vl"), "max_pixels": 64 * 64}
    sharded = {**model, "deepspeed": str(DEEPSPEED / "zero3.json")}
    alone = train("sft", config("sft", "sft_qwen3_alone", **model, gradient_accumulation_steps=2))
    folder = train("sft", config("sft", "sft_qwen3", **sharded), 2)
    torch.testing.assert_close(logged(folder, "loss"), logged(alone, "loss"), atol=LOSS_TOLERANCE, rtol=0)
    alone = fixed_rollouts(config("grpo", "grpo_qwen3_alone", **model, gradient_accumulation_steps=2))
    folder = fixed_rollouts(config("grpo", "grpo_qwen3", **sharded), 2)
    ours, theirs = logged(folder, "loss"), logged(alone, "loss")
    torch.testing.assert_close(ours, theirs, atol=LOSS_TOLERANCE, rtol=1e-3)


def test_killed_under_zero3_and_continued_equals_the_whole_run(config):
    options = {
        "deepspeed": str(DEEPSPEED / "zero3.json"),
        "num_iterations": 2,
        "save_strategy": "steps",
        "save_steps": 1,
    }
    whole = train("grpo", config("grpo", "whole", **{**options, "save_strategy": "no"}), 2)
    path = config("grpo", "killed", **options)
    died = torchrun(2, "-m", "tests.killing", "grpo", "saving:3", path)
    assert died.returncode != 0 and "Signal 9 (SIGKILL)" in died.stderr
    folder = path.with_suffix("")
    assert sorted(p.name for p in folder.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    done = launcher.script(GRPO, path, env={"NUM_PROCESSES": "2"})
    assert done.returncode == 0, done.stderr[-4000:]
    assert "checkpoint-3: the run ended while it was being written" in done.stderr
    assert "continuing from" in done.stderr
    torch.testing.assert_close(logged(folder, "loss"), logged(whole, "loss"), atol=1e-6, rtol=0)
    assert_close_weights(whole, folder, tolerance=1e-6)
    changed = launcher.script(GRPO, path, "max_steps=9")
    assert changed.returncode == 2 and "made with world_size=2, this run has world_size=1" in changed.stderr


def test_sigterm_to_the_launcher_saves_on_all_ranks_and_stops(config):
    path = config("sft", "stopped", deepspeed=str(DEEPSPEED / "zero2.json"), max_steps=500)
    env = {**os.environ, "PYTHON": str(launcher.python_file()), "NUM_PROCESSES": "2"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([SFT, path], cwd=REPO, env=env, **pipes) as job:
        for line in job.stdout:
            if "step 3/500" in line:
                job.send_signal(signal.SIGTERM)
                break
        said = job.stdout.read()
    assert job.returncode != 0 and "the same command continues" in said, said[-3000:]
    (checkpoint,) = path.with_suffix("").glob("checkpoint-*")
    assert len(list(checkpoint.glob("rng_state_*"))) == 2
    assert not (path.with_suffix("") / "model.safetensors").exists()


def test_a_stuck_step_is_aborted_with_rank_step_and_samples(config):
    path = config("sft", "stuck", step_timeout_s=4)
    done = torchrun(2, "-m", "tests.distributed.stuck", path)
    assert done.returncode != 0
    assert f"exitcode  : {EXIT_STUCK}" in done.stderr
    said = re.findall(
        r"StuckError: rank (\d) is stuck: .* in step (\d), forward and backward; samples: ([\w ]+)\.", done.stderr
    )
    assert ("1", "2") in [found[:2] for found in said] and all(samples != "none yet" for *_, samples in said)
    assert "stuck_step" in done.stderr  # the stack
