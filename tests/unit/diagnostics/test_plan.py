from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from transformers import AutoConfig

from video_thinker.cli import main as cli
from video_thinker.diagnostics.activations import LiveBytes
from video_thinker.diagnostics.advice import Advisor, Change, Limits, command_line, needed, possible_changes
from video_thinker.diagnostics.flags import find_stage
from video_thinker.diagnostics.host import CUDA_PROGRAM, PROGRAM, WORKER, host_needed, host_phases, machine_memory
from video_thinker.diagnostics.memory import GIB, predict
from video_thinker.diagnostics.plan import find_limits, render_advice
from video_thinker.diagnostics.planned_run import Policy, Run, Workers, Zero
from video_thinker.diagnostics.resolve import Request, read_values, read_zero, resolve
from video_thinker.diagnostics.shapes import (
    Adapter,
    build_meta_model,
    count_parameters,
    known_shape,
    load_shape,
    video_grid,
    video_tokens,
    with_depth,
)
from video_thinker.errors import ConfigError

REPO = Path(__file__).parents[3]


# Totals of the published checkpoints' safetensors files.
@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen/Qwen3-VL-8B-Instruct", 8_767_123_696),
    ],
)
def test_known_shapes_have_the_published_number_of_parameters(name, total):
    count = count_parameters(build_meta_model(load_shape(name).config, dtype=torch.bfloat16))
    assert count.total == count.trainable == total
    assert count.bytes == 2 * total


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("outputs/sft/qwen2_5_vl_7b", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("outputs/sft/qwen3_vl_8b_lora", "Qwen/Qwen3-VL-8B-Instruct"),
        ("Qwen/Qwen2.5-VL-72B-Instruct", None),
        ("Qwen/Qwen2-VL-7B-Instruct", None),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", None),
        ("Qwen/Qwen3-VL-8Bit", None),
        ("Qwen/Qwen2.5-VL-7B-Video", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("outputs/mine", None),
    ],
)
def test_a_checkpoint_to_come_is_known_by_its_name(path, known):
    assert known_shape(path) == known


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-7B-Instruct-AWQ", "x/qwen3-vl-8b-fp8", "x/Qwen2.5-VL-3B-bnb-4bit"])
def test_quantized_weights_are_not_planned_as_whole_ones(name):
    with pytest.raises(ConfigError, match="quantized weights .*load_in_4bit"):
        load_shape(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llava"}, "model_type='llava' is not planned; planned are qwen2_5_vl"),
        ({"model_type": "qwen3_vl_moe"}, "model_type='qwen3_vl_moe' is not planned"),
        ({"model_type": "of_the_future"}, "config.json: cannot be used"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantized weights .awq."),
    ],
)
def test_a_model_that_cannot_be_planned_is_said(tmp_path, tiny_model_dir, changes, message):
    config = json.loads((tiny_model_dir / "config.json").read_text())
    if changes.get("model_type") in ("llava", "qwen3_vl_moe"):
        config = {}
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ConfigError, match=message):
        load_shape(str(tmp_path))


def test_an_adapter_to_come_is_known_by_its_name_too():
    assert load_shape("outputs/sft/qwen2_5_vl_3b_lora").adapter == Adapter()
    assert load_shape("outputs/sft/qwen2_5_vl_3b").adapter is None


def test_an_unknown_model_is_an_error_that_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"outputs/mine.*Qwen2.5-VL-3B.*--shape"):
        load_shape("outputs/mine")


@pytest.mark.parametrize(
    ("name", "frames", "max_pixels", "tokens"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", 16, 128 * 28 * 28, 8 * 128),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 15, 128 * 28 * 28, 8 * 128),  # an odd frame is doubled
        ("Qwen/Qwen2.5-VL-7B-Instruct", 4, 28 * 28 + 5, 2),
        ("Qwen/Qwen3-VL-8B-Instruct", 16, 128 * 28 * 28, 8 * 98),  # 32 x 32 pixels a token
        ("Qwen/Qwen3-VL-8B-Instruct", 16, 128 * 32 * 32, 8 * 128),
    ],
)
def test_video_tokens(name, frames, max_pixels, tokens):
    config = load_shape(name).config
    assert video_tokens(config, video_grid(config, frames, max_pixels)) == tokens


def test_live_bytes_counts_storages_once_and_until_their_last_reference():
    known = torch.zeros(10)
    with LiveBytes([known]) as live:
        a = torch.ones(100)
        view, same = a[:10], known.view(2, 5)
        assert live.now == 400
        b = a + 1
        del a
        assert live.now == 800  # the view keeps it
        del view
        assert live.now == 400
        del b, same
    assert (live.now, live.peak) == (0, 800)


@pytest.fixture
def run(tiny_model_dir) -> Run:
    shape = load_shape(str(tiny_model_dir))
    policy = Policy(shape, torch.bfloat16, torch.bfloat16, gradient_checkpointing=True)
    return Run(policy, "adamw_torch_fused", 2, 1, video_grid(shape.config, 4, 4 * 28 * 28), prompt_text=20, target=30)


def parts(run: Run, phase: str) -> dict[str, int]:
    return next(p.parts for p in predict(run).phases if p.name == phase)


def test_without_deepspeed_everything_has_the_type_of_the_weights(run):
    p = predict(run).parameters.total
    step = parts(run, "optimizer")
    assert step == {"weights": 2 * p, "gradients": 2 * p, "optimizer states": 4 * p}


@pytest.mark.parametrize(
    ("zero", "weights", "gradients", "states"),
    [  # bytes per parameter on each of 4 GPUs: arXiv 1910.02054, figure 1, with 12 bytes of states
        (Zero(1), 2, 2, 12 / 4),
        (Zero(2), 2, 2 / 4, 12 / 4),
        (Zero(3), 2 / 4, 2 / 4, 12 / 4),
        (Zero(2, offload_optimizer=True), 2, 0, 0),
        (Zero(3, offload_optimizer=True, offload_parameters=True), 0, 0, 0),
    ],
)
def test_zero_partitions(run, zero, weights, gradients, states):
    policy = dataclasses.replace(run.policy, autocast=None, one_dtype=True)
    run = dataclasses.replace(run, policy=policy, zero=zero, gpus=4)
    prediction = predict(run)
    p, step = prediction.parameters.total, parts(run, "optimizer")
    assert step.get("weights", 0) == pytest.approx(weights * p, abs=8)
    assert step.get("gradients", 0) == pytest.approx(gradients * p, abs=8)
    assert step.get("optimizer states", 0) == pytest.approx(states * p, abs=8)
    assert prediction.host == p * (16 * zero.offload_optimizer + 2 * zero.offload_parameters)


def test_several_gpus_without_zero_hold_ddp_buckets(run):
    assert "communication" not in parts(run, "optimizer")
    p = predict(run).parameters.total
    assert parts(dataclasses.replace(run, gpus=2), "optimizer")["communication"] == 2 * p


def test_a_reference_policy_is_a_second_model_for_full_training_and_a_second_adapter_for_lora(run):
    run = dataclasses.replace(run, rollout_rows=2, scores=True, reference="model")
    assert parts(run, "scoring")["reference policy"] == parts(run, "scoring")["weights"]
    adapter = dataclasses.replace(run.policy, adapter=Adapter())
    run = dataclasses.replace(run, policy=adapter, reference="adapter")
    assert parts(run, "scoring")["reference policy"] == 4 * predict(run).parameters.adapter  # fp32


def test_frozen_parts_have_neither_gradients_nor_states(run):
    frozen = dataclasses.replace(run, policy=dataclasses.replace(run.policy, frozen=("vision_tower", "merger")))
    count, full = predict(frozen).parameters, predict(run).parameters
    assert count.total == full.total
    assert count.trainable == full.language_trainable < full.total
    assert parts(frozen, "optimizer")["gradients"] == 2 * count.trainable
    assert sum(parts(frozen, "backward").values()) < sum(parts(run, "backward").values())


def test_four_bits_hold_the_language_models_linear_layers_only(run):
    policy = dataclasses.replace(run.policy, adapter=Adapter(), one_dtype=True)
    plain = dataclasses.replace(run, policy=policy)
    four_bits = dataclasses.replace(plain, load_in_4bit=True)
    saved = parts(plain, "optimizer")["weights"] - parts(four_bits, "optimizer")["weights"]
    per_layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128  # q and o, k and v, the MLP of the tiny model
    assert saved == pytest.approx(2 * per_layer * (2 - 0.5 - 1 / 64 - 1 / 4096), rel=1e-4)


def test_checkpointing_rows_and_frames_move_activations_the_right_way(run):
    def activations(**changes):
        policy = {k: changes.pop(k) for k in ("gradient_checkpointing",) if k in changes}
        changed = dataclasses.replace(run, policy=dataclasses.replace(run.policy, **policy), **changes)
        return parts(changed, "backward")["activations"]

    base = activations()
    assert activations(gradient_checkpointing=False) > 2 * base
    assert activations(rows=4) > 1.5 * base
    assert activations(grid=video_grid(run.config, 8, 4 * 28 * 28)) > base


def test_an_unknown_optimizer_is_an_error(run):
    with pytest.raises(ConfigError, match="optim='lion_32bit'.*adamw_torch_fused"):
        predict(dataclasses.replace(run, optim="lion_32bit"))


def write_config(tmp_path: Path, model: Path, **values) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"model_name_or_path": str(model), "output_dir": str(tmp_path / "out"), **values}))
    return path


def test_the_stage_is_told_by_keys_or_folder(tmp_path, tiny_model_dir):
    assert find_stage([str(write_config(tmp_path, tiny_model_dir, max_length=100))]) == "sft"
    assert find_stage([str(write_config(tmp_path, tiny_model_dir)), "num_generations=4"]) == "grpo"
    assert find_stage([str(REPO / "configs/grpo/toy.yaml")]) == "grpo"
    with pytest.raises(ConfigError, match="--stage"):
        find_stage([str(write_config(tmp_path, tiny_model_dir))])
    folder = tmp_path / "grpo"
    folder.mkdir()
    assert find_stage([str(write_config(folder, tiny_model_dir))]) == "grpo"


@pytest.mark.parametrize(
    "path",
    [path for stage in ("sft", "grpo") for path in sorted((REPO / "configs" / stage).glob("*.yaml"))],
    ids=lambda p: f"{p.parent.name}/{p.name}",
)
def test_every_shipped_training_config_resolves(path, monkeypatch):
    monkeypatch.chdir(REPO)
    request = Request((str(path),), shape="Qwen/Qwen2.5-VL-3B-Instruct" if path.name == "toy.yaml" else "")
    stage, values = read_values(request)
    run, _ = resolve(stage, values, request)
    assert stage == path.parent.name
    assert run.target == (values["max_completion_length"] if stage == "grpo" else run.target) > 0
    assert run.rollout_rows == (run.rows * run.accumulation if stage == "grpo" else 0)


def resolved(path: Path, *overrides: str, **request) -> Run:
    asked = Request((str(path), *overrides), stage="grpo", **request)
    return resolve(*read_values(asked), asked)[0]


def test_grpo_settings_reach_the_run(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, num_generations=4, per_device_train_batch_size=4)
    path = write_config(tmp_path, tiny_model_dir, num_generations=4, per_device_train_batch_size=4, beta=0.0)
    run = resolved(path, "gradient_accumulation_steps=2")
    assert (run.rollout_rows, run.reference, run.scores) == (8, "", False)
    run = resolved(path, "beta=0.1", "steps_per_generation=1")
    assert (run.rollout_rows, run.reference, run.scores) == (4, "model", True)
    assert resolved(path, "num_iterations=2").scores  # old log-probabilities
    run = resolved(path, "beta=0.1", "use_peft=true", "lora_r=4", "lora_target_modules=[q_proj]")
    assert run.reference == ""
    adapter = predict(run).parameters
    assert adapter.trainable == adapter.adapter == 2 * (64 * 4 + 4 * 64)
    with pytest.raises(ConfigError, match="vLLM"):
        resolved(path, "use_vllm=true")
    with pytest.raises(ConfigError, match="max_prompt_length=10"):
        resolved(path, "max_prompt_length=10")
    with pytest.raises(ConfigError, match="per_device_train_batch_size=0"):
        resolved(path, "per_device_train_batch_size=0")


@pytest.mark.parametrize(
    ("rows", "group", "prompts"), [(8, 8, 1), (16, 8, 2), (4, 8, 1), (3, 8, 2), (12, 8, 3), (5, 1, 5)]
)
def test_rows_of_a_batch_belong_to_so_many_prompts(run, rows, group, prompts):
    assert dataclasses.replace(run, group=group).groups(rows) == prompts


def test_what_a_group_shares(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, num_generations=4, per_device_train_batch_size=8)
    run = resolved(path, "max_completion_length=50")
    batch = run.training_batch()
    assert (batch.rows, batch.length, batch.masked, batch.encodes) == (2, run.prompt - 1 + 4 * 50, True, True)
    assert (run.prefill_batch().rows, run.prefill_batch().length) == (2, run.prompt)
    plain = resolved(path, "share_prefix=false", "share_prefill=false", "max_completion_length=50")
    assert (plain.training_batch().rows, plain.training_batch().length) == (8, run.length)
    assert plain.prefill_batch().rows == 8
    assert not resolved(path, "attn_implementation=flash_attention_2").share_prefix
    assert resolved(path, "freeze=[vision_tower,merger]").share_vision
    assert not resolved(path, "freeze=[vision_tower]").share_vision
    assert not resolved(path, "freeze=[vision_tower,merger]", "share_vision=false").share_vision
    features = resolved(path, "freeze=[vision_tower,merger]", "max_frames=4", "max_pixels=3136", "beta=0.1")
    assert parts(features, "scoring")["media"] == 2 * features.vision_tokens * 64 * 4  # (prompts, tokens, hidden) fp32


def test_types_follow_the_trainers(tmp_path, tiny_model_dir):
    path = write_config(tmp_path, tiny_model_dir, num_generations=4)
    policy = resolved(path, "dtype=float32").policy
    assert (policy.dtype, policy.autocast) == (torch.float32, torch.bfloat16)  # TRL's default is bf16
    assert resolved(path, "dtype=float32", "bf16=false").policy.autocast is None
    policy = resolved(path, "dtype=float32", f"deepspeed={REPO / 'configs/deepspeed/zero2.json'}").policy
    assert (policy.dtype, policy.autocast, policy.one_dtype) == (torch.bfloat16, None, True)


def test_deepspeed_files(tmp_path):
    folder = REPO / "configs/deepspeed"
    assert read_zero(str(folder / "zero2.json")) == Zero(2)
    assert read_zero(str(folder / "zero3.json")) == Zero(3)
    assert read_zero(str(folder / "zero3_offload.json")) == Zero(3, offload_optimizer=True, offload_parameters=True)
    bad = tmp_path / "bad.json"
    bad.write_text('{"bf16": {}}')
    with pytest.raises(ConfigError, match="bad.json.*zero_optimization"):
        read_zero(str(bad))


def test_lengths_are_those_of_the_items(tmp_path, tiny_model_dir, items_file):
    path = write_config(tmp_path, tiny_model_dir, num_generations=4)
    plain = resolved(path, f"train_file={items_file}", "prompt_style=plain")
    long = resolved(path, f"train_file={items_file}", "prompt_style=trace")
    assert 32 < plain.prompt_text < 100 < long.prompt_text
    assert resolved(path, text_tokens=77).prompt_text == 77


def test_plan_prints_one_page(tmp_path, tiny_model_dir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    config = write_config(tmp_path, tiny_model_dir, max_length=4000)
    options = ["--gpu-memory", "80", "--host-memory", "64", "--json", str(tmp_path / "plan.json")]
    assert cli(["plan", str(config), "max_frames=4", *options, "max_pixels=3136"]) == 0
    text = capsys.readouterr().out
    assert "FITS" in text and "DOES NOT" not in text
    assert max(map(len, text.splitlines())) <= 80
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["fits"] and found["together"] is None
    assert found["tokens"]["vision"] == 2 * 4
    assert found["peak"] == sum(found["phases"][found["peak_phase"]]["parts"].values())


@pytest.mark.parametrize("extra", [["max_pixel=5"], ["--gpus", "0"], ["optim=lion_32bit"], ["freeze=[tower]"]])
def test_a_wrong_config_gives_exit_code_2(tmp_path, tiny_model_dir, capsys, extra):
    config = write_config(tmp_path, tiny_model_dir, max_length=4000)
    assert cli(["plan", str(config), *extra, "--gpu-memory", "80"]) == 2
    assert "ConfigError" in capsys.readouterr().err


def test_changes_fit_the_config():
    request = Request((str(REPO / "configs/grpo/qwen2_5_vl_7b.yaml"),))
    _, values = read_values(request)
    keys = [key for change in possible_changes("grpo", values, 8, has_adapter=False) for key in change]
    assert "beta" in keys and "use_peft" in keys and "max_completion_length" in keys
    assert "gradient_checkpointing" not in keys  # it is on
    keys = [key for change in possible_changes("grpo", values, 8, has_adapter=True) for key in change]
    assert "use_peft" not in keys and "freeze" not in keys


@pytest.mark.parametrize("keys", [{"beta": 0.0}, {"max_frames": 8}])
def test_a_run_without_kl_is_advised_with_a_warning(capsys, keys):
    change = Change(keys, GIB)
    render_advice([change], Change({}, 2 * GIB), Limits(2 * GIB, GIB), "video-thinker grpo x", Console(width=200))
    assert ("drift into gibberish" in capsys.readouterr().out) == ("beta" in keys)


def test_shallow_models_differ_in_depth_only(tiny_model_dir):
    config = AutoConfig.from_pretrained(tiny_model_dir)
    shallow = with_depth(config, 3)
    assert (shallow.text_config.num_hidden_layers, shallow.vision_config.depth) == (3, 3)
    assert (config.text_config.num_hidden_layers, config.vision_config.depth) == (2, 2)
    assert shallow.text_config.hidden_size == config.text_config.hidden_size


def test_building_a_model_leaves_its_config_alone(tiny_model_dir):
    config = AutoConfig.from_pretrained(tiny_model_dir)
    build_meta_model(config, dtype=torch.bfloat16, attn_implementation="eager")
    assert config.dtype == torch.float32 and config._attn_implementation != "eager"


def test_the_reserve_grows_with_the_peak(run):
    prediction = predict(run)
    assert needed(prediction) == prediction.peak.total + GIB + prediction.peak.total // 20


def host_parts(run: Run, phase: str) -> dict[str, int]:
    return next(p.parts for p in host_phases(predict(run)) if p.name == phase)


def test_each_rank_reads_all_weights_and_with_zero_3_only_the_first(run):
    p = predict(run).parameters.bytes
    four = dataclasses.replace(run, gpus=4, rollout_rows=2, reference="model")
    assert host_parts(four, "loading") == {"programs": 4 * (PROGRAM + CUDA_PROGRAM), "weights": 4 * 2 * p}
    assert host_parts(dataclasses.replace(four, reference=""), "loading")["weights"] == 4 * p
    assert host_parts(dataclasses.replace(four, zero=Zero(3)), "loading")["weights"] == p
    offloaded = dataclasses.replace(four, zero=Zero(3, offload_parameters=True))
    assert host_parts(offloaded, "loading")["weights"] == 3 * p
    assert host_parts(offloaded, "training")["weights to save"] == p


def test_workers_caches_and_offloading_take_host_memory(run):
    fed = dataclasses.replace(run, gpus=2, workers=Workers(3, 2, pin_memory=False, cache_bytes=1000))
    pixels = 2 * 4 * 4 * 28 * 28 * 3  # two rows of four frames of 4 x 28 x 28 pixels
    found = host_parts(fed, "training")
    assert found["data workers"] == 2 * 3 * (WORKER + 4 * 4 * pixels + pixels // 2)
    assert found["frame caches"] == 2 * 3 * 1000
    assert "pinned buffers" not in found and "ZeRO offload" not in found
    pinned = dataclasses.replace(fed, workers=Workers(3, 2, cache_bytes=1000))
    assert host_parts(pinned, "training")["pinned buffers"] == 2 * 2 * 4 * pixels
    offload = dataclasses.replace(fed, zero=Zero(2, offload_optimizer=True))
    found, share = host_parts(offload, "training"), -(-predict(offload).parameters.trainable // 2)
    assert found["ZeRO offload"] == 16 * predict(offload).parameters.trainable
    whole = 1 << (4 * share - 1).bit_length()  # pinned memory comes in powers of two: weights and gradients, two ranks
    assert found["pinned buffers"] == 2 * 2 * (whole - 4 * share)


def test_without_gpus_the_model_itself_is_in_host_memory(run):
    prediction = predict(dataclasses.replace(run, on_gpu=False))
    assert host_phases(prediction)[1].parts["model (use_cpu)"] == prediction.peak.total
    assert "model (use_cpu)" not in host_parts(run, "training")


def test_the_machines_memory_is_that_of_its_container(tmp_path):
    limit, none = tmp_path / "memory.max", tmp_path / "unlimited"
    limit.write_text("1000\n")
    none.write_text("max\n")
    assert machine_memory((str(limit), str(none))) == 1000
    assert machine_memory((str(none), str(tmp_path / "missing"))) > GIB


def test_memory_that_is_not_named_is_the_machines(monkeypatch):
    class Properties:
        total_memory = 7 * GIB

    monkeypatch.setattr("video_thinker.diagnostics.plan.num_gpus", lambda: 0)
    with pytest.raises(ConfigError, match="--gpu-memory is missing"):
        find_limits(None, None, use_cpu=False)
    assert find_limits(None, 5, use_cpu=True) == Limits(None, 5 * GIB)
    monkeypatch.setattr("video_thinker.diagnostics.plan.num_gpus", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    assert find_limits(None, None, use_cpu=False) == Limits(7 * GIB, machine_memory())
    assert find_limits(80, 2, use_cpu=False) == Limits(80 * GIB, 2 * GIB)
    with pytest.raises(ConfigError, match="--host-memory nan"):
        find_limits(80, float("nan"), use_cpu=False)


def test_a_run_that_does_not_fit_the_host_fails(tmp_path, tiny_model_dir, capsys):
    config = write_config(tmp_path, tiny_model_dir, max_length=4000, dataloader_num_workers=8)
    options = ["max_frames=4", "max_pixels=3136", "--gpu-memory", "80"]
    assert cli(["plan", str(config), *options, "--host-memory", "6.2"]) == 1
    text = capsys.readouterr().out
    assert "DOES NOT FIT: 9.0 of 6.2 GiB of host memory" in text.replace("\n", " ")
    command = text.splitlines()[-1]
    assert command == f"video-thinker sft {config} max_frames=4 max_pixels=3136 dataloader_num_workers=4"
    assert cli(["plan", *command.split()[2:], "--stage", "sft", "--gpu-memory", "80", "--host-memory", "6.2"]) == 0


def test_changes_are_combined_until_the_run_fits_and_no_further(tmp_path, tiny_model_dir):
    config = write_config(
        tmp_path, tiny_model_dir, max_length=4000, per_device_train_batch_size=8, gradient_checkpointing=False
    )
    request = Request((str(config),), stage="sft")
    stage, values = read_values(request)
    prediction = predict(resolve(stage, values, request)[0])
    now = Change({}, needed(prediction), host_needed(prediction))
    advisor = Advisor(stage, values, request, Limits(int(1.2 * GIB), 100 * GIB))
    together = advisor.together(now)
    assert together.fits(advisor.limits) and not now.fits(advisor.limits)
    assert together.keys["gradient_accumulation_steps"] * together.keys["per_device_train_batch_size"] == 8
    for key in together.keys.keys() - {"gradient_accumulation_steps", "per_device_train_batch_size"}:
        fewer = advisor.apply({name: value for name, value in together.keys.items() if name != key})
        assert fewer is None or not fewer.fits(advisor.limits)


def test_the_command_replaces_overrides():
    change = Change({"max_frames": 8, "freeze": ["vision_tower"]}, 0)
    line = command_line("grpo", ["a.yaml", "max_frames=16", "fps=2"], change, 4)
    assert line == "NUM_PROCESSES=4 scripts/run_grpo_video.sh a.yaml fps=2 max_frames=8 'freeze=[vision_tower]'"


def test_vllm_takes_its_share_of_a_gpu_and_needs_room_for_one_sequence(tmp_path, tiny_model_dir, capsys):
    path = write_config(tmp_path, tiny_model_dir, num_generations=4, per_device_train_batch_size=4, engine="vllm")
    short_prompt = ["max_frames=4", "max_pixels=3136", "max_prompt_length=900", "max_completion_length=100"]
    run = resolved(path, *short_prompt, gpu_memory=10 * GIB)
    prediction = predict(run)
    assert run.vllm.share == int(0.3 * 10 * GIB) and run.vllm.sequence == 1000
    assert all(phase.parts["vLLM"] == run.vllm.share for phase in prediction.phases)
    assert "KV cache" not in parts(run, "rollout")
    keys_and_values = 1000 * 2 * 2 * 2 * 16 * run.policy.dtype.itemsize  # layers, keys and values, heads, width
    assert prediction.vllm.sequence == keys_and_values
    assert prediction.vllm.weights == prediction.parameters.total * run.policy.dtype.itemsize
    assert needed(prediction) == prediction.peak.total + prediction.reserve
    starved = dataclasses.replace(run, vllm=dataclasses.replace(run.vllm, share=1))
    short = predict(starved).vllm
    assert short.num_sequences == 0
    assert needed(predict(starved)) - predict(starved).peak.total - predict(starved).reserve == short.least - 1
    with pytest.raises(ConfigError, match="max_prompt_length"):
        resolved(path, "max_prompt_length=null")
    cli(["plan", str(path), "--gpu-memory", "80", "--host-memory", "64"])
    assert "vLLM takes 24.0 GiB of each GPU all the time" in " ".join(capsys.readouterr().out.split())


SEVEN = [
    str(REPO / "configs/grpo/qwen2_5_vl_7b.yaml"),
    *("engine=vllm", "bf16=true", "max_prompt_length=4096", "max_completion_length=1024", "deepspeed=null"),
]


def test_the_share_of_vllm_for_a_7b_by_hand():
    """28 layers with 4 heads of keys and values of width 128, in bfloat16; 8.29 billion weights of 2 bytes."""
    request = Request((*SEVEN, "dtype=bfloat16"), gpu_memory=80 * GIB)
    vllm = predict(resolve("grpo", read_values(request)[1], request)[0]).vllm
    per_token = 2 * 28 * 4 * 128 * 2
    assert per_token == 57_344
    assert vllm.sequence == (4096 + 1024) * per_token == 293_601_280
    assert vllm.weights == 2 * 8_292_166_656
    assert vllm.share == 24 * GIB
    activations = 1_658_433_331  # a tenth of the weights
    assert vllm.space == 24 * GIB - 16_584_333_312 - activations
    assert vllm.num_sequences == 25
    two = Request((*SEVEN, "dtype=bfloat16", "engine_options={tensor_parallel_size: 2}"), gpus=2, gpu_memory=80 * GIB)
    halved = predict(resolve("grpo", read_values(two)[1], two)[0]).vllm
    assert (halved.weights, halved.sequence) == (8_292_166_656, 146_800_640)


def test_the_room_of_a_sequence_is_the_engines_where_it_is_given():
    request = Request((*SEVEN, "max_prompt_length=null", "engine_max_tokens=3000"), gpu_memory=80 * GIB)
    assert resolve("grpo", read_values(request)[1], request)[0].vllm.sequence == 3000


def test_an_engine_that_sleeps_has_its_share_during_rollouts_only(capsys):
    awake, asleep = (
        predict(resolve("grpo", read_values(request)[1], request)[0])
        for request in (
            Request((*SEVEN, "dtype=bfloat16", f"engine_sleep={word}"), gpu_memory=80 * GIB)
            for word in ("false", "true")
        )
    )
    for one, other in zip(awake.phases, asleep.phases, strict=True):
        gone = 0 if one.name == "rollout" else 24 * GIB
        assert one.total - other.total == gone, one.name
    held = [{p.name: p.parts for p in host_phases(one)}["training"] for one in (awake, asleep)]
    assert "vLLM asleep" not in held[0] and held[1]["vLLM asleep"] == 2 * 8_292_166_656
    fits = ["dtype=bfloat16", "engine_gpu_memory_share=0.1", "--gpu-memory", "240", "--host-memory", "256"]
    cli(["plan", *SEVEN, "engine_sleep=true", *fits])
    assert "vLLM takes 24.0 GiB of each GPU during rollouts (engine_sleep)" in " ".join(capsys.readouterr().out.split())


def test_the_host_of_another_machine_is_not_guessed():
    assert find_limits(80, None, use_cpu=False) == Limits(80 * GIB, None)
    assert find_limits(None, None, use_cpu=True) == Limits(None, machine_memory())
    assert Limits(None, None).excess(10, 10) == 0 < Limits(5, None).excess(10, 10)
