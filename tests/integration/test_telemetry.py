"""What a run logs: every metric is there and right, and measuring changes no number of the training."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import GenerationMixin
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from trl import GRPOTrainer

from tests import launcher
from tests.conftest import early_ends
from tests.tiny import RUN
from video_thinker.data.encode import SampleEncoder
from video_thinker.errors import ConfigError
from video_thinker.models.flops import Work, causal_pairs, text_work, vision_work
from video_thinker.runs.completions import read_rows
from video_thinker.training import grpo, sft
from video_thinker.training.arguments import VideoGRPOConfig
from video_thinker.training.logging import timeline
from video_thinker.training.logging.performance import PHASES, WorkMeter
from video_thinker.training.scoring import Scorer
from video_thinker.training.sft import VideoSFTConfig
from video_thinker.training.trainer import VideoGRPOTrainer

pytestmark = pytest.mark.integration
STAGES = {"sft": sft, "grpo": grpo}
G = 4
MEASURED = {
    *(f"time/{phase}" for phase in (*PHASES, "step")),
    "perf/tokens_per_s",
    "perf/samples_per_s",
    "perf/tflops",
    "data/wait_share",
    "memory/host_rss_gib",
}
LOGGED = {
    "sft": {"loss", "grad_norm", "learning_rate", "mean_token_accuracy", "entropy", "num_tokens"},
    "grpo": {
        "loss",
        "grad_norm",
        "learning_rate",
        "reward",
        "reward_std",
        *(f"rewards/{name}_reward/{what}" for name in ("accuracy", "format", "length") for what in ("mean", "std")),
        "frac_reward_zero_std",
        "groups/all_correct",
        "groups/all_wrong",
        "groups/mixed",
        "kl",
        "entropy",
        "clip_ratio/region_mean",
        "completions/clipped_ratio",
        *(f"completions/{what}_length" for what in ("mean", "min", "max", "mean_terminated")),
        "step_time",
        "num_tokens",
    },
}


@pytest.fixture
def run(tiny_model_dir: Path, media_root: Path, items_file: Path, tmp_path: Path):
    """Run a stage through its command; gives its log entries of training."""
    common = {
        "model_name_or_path": str(tiny_model_dir),
        **RUN,
        "train_file": str(items_file),
        "media_root": str(media_root),
        "save_strategy": "no",
        "max_steps": 2,
        "canary_steps": 2,
        "gradient_accumulation_steps": 2,
    }
    special = {
        "sft": {"per_device_train_batch_size": 2},
        "grpo": {
            "reward_funcs": ["accuracy", "format", "length"],
            "reward_params": {"length": {"min_tokens": 0, "max_tokens": 7, "min_accuracy": 0.0}},
            "num_generations": G,
            "per_device_train_batch_size": G,
            "max_completion_length": 10,
            "generation_kwargs": early_ends(tiny_model_dir),
            "beta": 0.04,
            "log_completions_steps": 1,
        },
    }

    def write(stage: str, name: str, **options) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**common, **special[stage], **options, "output_dir": str(tmp_path / name)}))
        return path

    def do(stage: str, name: str = "run", **options) -> list[dict]:
        assert STAGES[stage].main([str(write(stage, name, **options))]) == 0
        output_dir = tmp_path / name
        history = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
        return [entry for entry in history if "loss" in entry]

    do.write = write
    return do


@pytest.mark.parametrize("stage", STAGES)
def test_every_metric_is_logged_and_phases_add_up_to_the_step(run, stage):
    from video_thinker.training.logging.metric_names import is_documented

    entries = run(stage, peak_tflops=0.5)
    assert len(entries) == 2
    for entry in entries:
        wanted = MEASURED | LOGGED[stage] | {"perf/mfu"}
        assert wanted <= entry.keys(), wanted - entry.keys()
        assert [key for key in entry if key != "step" and not is_documented(key)] == []
        assert all(math.isfinite(entry[key]) for key in wanted)
        phases = [entry[f"time/{phase}"] for phase in PHASES]
        assert all(seconds >= 0 for seconds in phases)
        assert sum(phases) == pytest.approx(entry["time/step"], rel=1e-4)
        assert entry["perf/mfu"] == pytest.approx(entry["perf/tflops"] / 0.5)
        assert 0.05 < entry["memory/host_rss_gib"] < 64
        worked = {"decode", "vision", "forward", "backward", "optimizer"}
        worked |= {"generation", "scoring", "reward"} if stage == "grpo" else set()
        for phase in {*PHASES} - {"other"}:
            assert (entry[f"time/{phase}"] > 0) == (phase in worked), phase


@pytest.mark.parametrize("stage", STAGES)
def test_measuring_changes_no_number(run, tmp_path, stage):
    with_it = run(stage, "on", max_steps=3)
    without = run(stage, "off", max_steps=3, telemetry=False)
    assert not any(key.startswith(("perf/", "time/", "data/", "memory/")) for key in without[0])
    timed = {"step_time"} | {key for key in with_it[0] if key not in without[0]}
    assert [{k: v for k, v in entry.items() if k not in timed} for entry in with_it] == [
        {k: v for k, v in entry.items() if k not in timed} for entry in without
    ]
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("on", "off"))
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


def slow(monkeypatch, owner: object, name: str, seconds: float, clock: Clock | None = None) -> None:
    original = getattr(owner, name)

    def late(*args, **kwargs):
        if clock is None:
            time.sleep(seconds)
        else:
            clock.now += seconds
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, late)


class Clock:
    """Time that passes only where a test says so, and a microsecond at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timeline, "time", clock)
    return clock


SEAMS = {
    "decode": (SampleEncoder, "load_video"),
    "vision": (Qwen2_5_VisionTransformerPretrainedModel, "forward"),
    "generation": (GenerationMixin, "generate"),
    "scoring": (Scorer, "forward"),
    "reward": (GRPOTrainer, "_calculate_rewards"),
    "forward": (GRPOTrainer, "_compute_loss"),
    "backward": (torch.Tensor, "backward"),
    "optimizer": (torch.optim.AdamW, "step"),
}


@pytest.mark.parametrize("phase", SEAMS)
def test_what_takes_longer_shows_in_its_phase(run, monkeypatch, clock, phase):
    options = {"max_steps": 1, "gradient_accumulation_steps": 1, "canary_steps": 0, "log_completions_steps": 0}
    (before,) = run("grpo", "before", **options)
    slow(monkeypatch, *SEAMS[phase], 0.3, clock)
    (after,) = run("grpo", "after", **options)
    grown = {other for other in PHASES if after[f"time/{other}"] > before[f"time/{other}"] + 0.25}
    # The reference and the policy are scored by one method.
    assert grown == ({"scoring", "forward"} if phase == "scoring" else {phase})
    assert (after["data/wait_share"] > 0.5) == (phase == "decode")


def test_workers_that_are_slow_show_as_waiting(run, monkeypatch):
    slow(monkeypatch, SampleEncoder, "load_video", 0.3)
    (entry,) = run("sft", max_steps=1, dataloader_num_workers=1)
    assert entry["time/data_wait"] > 0.5 and entry["time/decode"] == 0
    assert entry["data/wait_share"] == pytest.approx(entry["time/data_wait"] / entry["time/step"])


def test_the_canary_is_not_measured_as_training(run, monkeypatch, clock):
    slow(monkeypatch, Scorer, "forward", 0.3, clock)
    options = {"max_steps": 1, "gradient_accumulation_steps": 1, "beta": 0.0}
    (without,) = run("grpo", "without", **options, canary_steps=0)
    (entry,) = run("grpo", "with", **options, canary_steps=1)
    assert entry["time/scoring"] == 0 and 0.3 < entry["time/forward"] < 0.6 < entry["time/other"]
    flops = [e["perf/tflops"] * e["time/step"] for e in (without, entry)]
    assert flops[0] == pytest.approx(flops[1], rel=1e-4)


def test_sft_counts_the_tokens_trl_counts(run):
    entries = run("sft", max_steps=3)
    tokens = [entry["perf/tokens_per_s"] * entry["time/step"] for entry in entries]
    assert [round(sum(tokens[: i + 1])) for i in range(3)] == [entry["num_tokens"] for entry in entries]
    samples = [round(entry["perf/samples_per_s"] * entry["time/step"]) for entry in entries]
    assert samples == [4, 2, 4]  # 6 items in batches of 2 x 2


@pytest.mark.parametrize("shared", ["nothing", "prompts", "prompts and features"])
def test_grpo_counts_the_work_of_every_pass(run, monkeypatch, tmp_path, shared):
    """One step of one group: prefill and decoding, old policy and reference, and the policy that is trained."""
    taken, prompts = [], []
    take, encode = WorkMeter.take, VideoGRPOTrainer._encode
    monkeypatch.setattr(WorkMeter, "take", lambda self: taken.append(take(self)) or taken[-1])
    monkeypatch.setattr(
        VideoGRPOTrainer, "_encode", lambda self, row: prompts.append(prompt := encode(self, row)) or prompt
    )
    options = {"steps_per_generation": 1, "num_iterations": 2, "gradient_accumulation_steps": 1, "max_steps": 1}
    if shared == "nothing":
        options |= {"share_prefix": False, "share_prefill": False}
    if shared == "prompts and features":
        options["freeze"] = ["vision_tower", "merger"]
    (entry,) = run("grpo", **options)
    ((once, trained),) = [(work[False], work[True]) for work in taken]

    prompt = len(prompts[0].input_ids)
    completions = [row["num_tokens"] for row in read_rows(tmp_path / "run" / "completions.jsonl")]
    lengths = [prompt + completion for completion in completions]
    sampled = text_work(lengths) + Work(scored=sum(completions))
    scored = text_work(lengths) + Work(scored=sum(completions))
    sampled["tokens"] -= G  # the last token is not read again
    sampled["token_pairs"] -= sum(lengths)
    if shared != "nothing":
        sampled -= Work(tokens=(G - 1) * prompt, token_pairs=(G - 1) * causal_pairs([prompt]))
        # Packed rows read the prompt but its last token once, and no completion's last token.
        scored -= Work(
            tokens=(G - 1) * (prompt - 1) + G, token_pairs=(G - 1) * causal_pairs([prompt - 1]) + sum(lengths)
        )
    grid = prompts[0].media["video_grid_thw"].tolist()
    vision = vision_work(
        grid * (G if shared == "nothing" else 1), SimpleNamespace(patch_size=14, spatial_merge_size=2, window_size=112)
    )
    if shared == "prompts and features":
        assert once == sampled + scored + scored + vision
        assert trained == scored
    else:
        assert once == sampled + scored + scored + vision + vision + vision
        assert trained == scored + vision
    assert entry["perf/samples_per_s"] * entry["time/step"] == pytest.approx(G)
    assert entry["perf/tokens_per_s"] * entry["time/step"] == pytest.approx(scored["tokens"])


def test_completions_are_what_trl_rewards(run, monkeypatch, tmp_path):
    logged, sampled = [], []
    log, generate = GRPOTrainer.log, VideoGRPOTrainer._generate_single_turn

    def spy_log(self, logs, *args):
        log(self, logs, *args)
        columns = {**self._logs["rewards"], "advantages": self._logs["advantages"]}
        logged.append({name: list(values)[-2 * G :] for name, values in columns.items()})

    def spy_generate(self, *args, **kwargs):
        result = generate(self, *args, **kwargs)
        sampled.append((self.encoder.processor.tokenizer, result[0]))
        return result

    monkeypatch.setattr(GRPOTrainer, "log", spy_log)
    monkeypatch.setattr(VideoGRPOTrainer, "_generate_single_turn", spy_generate)
    run("grpo", max_steps=3, log_completions_steps=2, num_logged_completions=6)
    rows = list(read_rows(tmp_path / "run" / "completions.jsonl"))
    assert [row["step"] for row in rows] == [1] * 6 + [2] * 6
    for step in (1, 2):
        tokenizer, ids = sampled[step - 1]
        for i, row in enumerate(rows[6 * (step - 1) : 6 * step]):
            assert row["rewards"] == {name: logged[step - 1][name][i] for name in row["rewards"]}
            assert row["advantage"] == logged[step - 1]["advantages"][i]
            assert row["completion"] == tokenizer.decode(ids[i], skip_special_tokens=True)
            assert row["num_tokens"] == len(ids[i])
            assert row["truncated"] == (ids[i][-1] != tokenizer.eos_token_id)
    assert [*rows[0]["rewards"]] == ["accuracy_reward", "format_reward", "length_reward"]
    assert len({row["advantage"] for row in rows}) > 2
    assert {row["problem_id"] for row in rows[:G]} != {row["problem_id"] for row in rows[G:6]}


def test_tensorboard_gets_it_by_default(run, tmp_path):
    assert VideoSFTConfig(output_dir="x", use_cpu=True, bf16=False).report_to == ["tensorboard"]
    assert VideoGRPOConfig(output_dir="x", use_cpu=True, bf16=False).report_to == ["tensorboard"]
    (entry,) = run("sft", max_steps=1, report_to=["tensorboard"])
    events = EventAccumulator(str(next((tmp_path / "run" / "runs").iterdir()))).Reload()
    (event,) = events.Scalars("train/perf/tokens_per_s")
    assert event.value == pytest.approx(entry["perf/tokens_per_s"])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_reporter_is_named_before_the_model_is_loaded(run, monkeypatch, stage, name):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(ConfigError, match=f"report_to='{name}' needs the package {name}.*pip install {name}"):
        run(stage, report_to=name, model_name_or_path="nowhere/at-all")
    with pytest.raises(ConfigError, match="report_to='tensorbored' is unknown; choose among none, all, .*trackio"):
        run(stage, report_to="tensorbored", model_name_or_path="nowhere/at-all")


def test_an_adapter_does_the_same_work_at_a_lower_cost(run, monkeypatch):
    taken = []
    take = WorkMeter.take
    monkeypatch.setattr(WorkMeter, "take", lambda self: taken.append(take(self)) or taken[-1])
    (full,) = run("sft", "full", max_steps=1)
    (lora,) = run("sft", "lora", max_steps=1, use_peft=True, lora_r=2)
    assert taken[0] == taken[1] and taken[0][True]["scored"] > 0
    tflop = [entry["perf/tflops"] * entry["time/step"] for entry in (full, lora)]
    assert 0.3 < tflop[1] / tflop[0] < 0.7  # the tower has no backward, the language model no gradient of its weights


@pytest.mark.distributed
def test_two_processes_add_up(run, tmp_path):
    """Tokens and samples are those of both ranks, and the log has completions of both."""
    config = run.write("grpo", "two", max_steps=2, num_logged_completions=4 * G)
    for rank in launcher.ranks(2, ["-m", "video_thinker.cli", "grpo", config]):
        assert rank.returncode == 0, rank.stderr[-3000:]
    history = json.loads((tmp_path / "two" / "trainer_state.json").read_text())["log_history"]
    for step, entry in enumerate(history[:2], start=1):
        assert entry["perf/samples_per_s"] * entry["time/step"] == pytest.approx(2 * 2 * G)
        assert sum(entry[f"time/{phase}"] for phase in PHASES) == pytest.approx(entry["time/step"], rel=1e-4)
        rows = [row for row in read_rows(tmp_path / "two" / "completions.jsonl") if row["step"] == step]
        assert len(rows) == 4 * G
        rewards = torch.tensor([sum(row["rewards"].values()) for row in rows]).view(4, G)
        scaled = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        assert [row["advantage"] for row in rows] == pytest.approx(scaled.flatten().tolist(), abs=1e-5)
    assert rewards[2:].std() > 0 and (rewards[:2] != rewards[2:]).any()  # else the second process is right by chance
