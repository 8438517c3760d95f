"""A run that was killed ends with the weights of the run that never was."""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import Trainer

from tests import launcher
from tests.conftest import early_ends, every_family, write_items
from tests.tiny import GRPO_RUN, RUN
from video_thinker import cli
from video_thinker.errors import CheckpointError, ConfigError, WriteError
from video_thinker.runs.manifest import MANIFEST, write_manifest
from video_thinker.training import grpo, sft
from video_thinker.training.loop.checkpoints import STAGING
from video_thinker.training.loop.stopping import EXIT_SIGTERM

pytestmark = pytest.mark.integration
STAGES = {"sft": sft, "grpo": grpo}


@pytest.fixture
def config(tiny_model_dir: Path, media_root: Path, items_file: Path, tmp_path: Path, caplog):
    """Both stages in small: six items, several epochs; GRPO uses each rollout for four steps, so most saves cut one."""
    caplog.set_level(logging.INFO)
    common = {
        "model_name_or_path": str(tiny_model_dir),
        **RUN,
        "train_file": str(items_file),
        "media_root": str(media_root),
        "canary_steps": 3,
        "save_strategy": "steps",
        "save_total_limit": 2,
    }
    special = {
        "sft": {"per_device_train_batch_size": 2, "max_steps": 8, "save_steps": 2},
        "grpo": {
            **GRPO_RUN,
            "steps_per_generation": 2,
            "num_iterations": 2,
            "gradient_accumulation_steps": 1,
            "max_completion_length": 8,
            "generation_kwargs": early_ends(tiny_model_dir),
            "max_steps": 18,
            "save_steps": 1,
        },
    }

    def write(stage: str, name: str) -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**common, **special[stage], "output_dir": str(tmp_path / name)}))
        return str(path)

    return write


def result(tmp_path: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(tmp_path / name / "model.safetensors")


def assert_equal_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


def kill(stage: str, point: str, config_file: str) -> None:
    done = launcher.run(["-m", "tests.killing", stage, point, config_file])
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


@every_family
@pytest.mark.parametrize(("stage", "step", "saving"), [("sft", 5, 6), ("grpo", 13, 15)])
def test_killed_twice_and_continued_gives_bitwise_the_same_weights(config, tmp_path, caplog, stage, step, saving):
    """The first kill falls into a step, the second into the writing of a checkpoint."""
    assert STAGES[stage].main([config(stage, "whole")]) == 0
    broken = config(stage, "broken")
    kill(stage, f"step:{step}", broken)
    kill(stage, f"saving:{saving}", broken)
    assert (tmp_path / "broken" / STAGING / f"checkpoint-{saving}").is_dir()
    assert not (tmp_path / "broken" / f"checkpoint-{saving}").exists()
    caplog.clear()
    assert STAGES[stage].main([broken]) == 0
    assert f"{STAGING}/checkpoint-{saving}: the run ended while it was being written" in caplog.text
    assert f"continuing from {tmp_path / 'broken' / 'checkpoint-'}" in caplog.text
    assert_equal_weights(result(tmp_path, "whole"), result(tmp_path, "broken"))
    losses = [
        [
            entry["loss"]
            for entry in json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"][:-1]
        ]
        for name in ("whole", "broken")
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("forgotten", ["random state", "optimizer", "sampler", "rollouts"])
def test_every_part_of_the_state_matters(config, tmp_path, monkeypatch, forgotten):
    """The comparison above can fail: without any one part of the state the weights differ."""
    assert grpo.main([config("grpo", "whole")]) == 0
    path = config("grpo", "cut")
    assert grpo.main([path, "max_steps=13"]) == 0
    if forgotten == "random state":
        monkeypatch.setattr(Trainer, "_load_rng_state", lambda *args: None)
    elif forgotten == "optimizer":
        monkeypatch.setattr(Trainer, "_load_optimizer_and_scheduler", lambda *args: None)
    elif forgotten == "sampler":
        monkeypatch.setattr(grpo.VideoGRPOTrainer, "_epochs_done", property(lambda self: 0, lambda self, value: None))
    else:
        checkpoint = tmp_path / "cut" / "checkpoint-13"
        saved = torch.load(checkpoint / "rollouts_0.pt", weights_only=False)
        assert saved["batches"] is not None and saved["rollout"] is not None
        torch.save({**saved, "batches": None, "rollout": None}, checkpoint / "rollouts_0.pt")
        write_manifest(checkpoint)
    assert grpo.main([path]) == 0
    whole, cut = result(tmp_path, "whole"), result(tmp_path, "cut")
    assert any(not torch.equal(weight, cut[name]) for name, weight in whole.items())


def test_a_checkpoint_that_was_cut_is_passed_over(config, tmp_path, caplog):
    path = config("sft", "run")
    assert sft.main([path, "max_steps=6"]) == 0
    optimizer = tmp_path / "run" / "checkpoint-6" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-10])
    assert sft.main([path]) == 0
    assert "checkpoint-6: incomplete (optimizer.pt has" in caplog.text and "it is passed over" in caplog.text
    assert f"continuing from {tmp_path / 'run' / 'checkpoint-4'}" in caplog.text
    with pytest.raises(CheckpointError, match=r"checkpoint-8' is incomplete \(no files\.json"):
        (tmp_path / "run" / "checkpoint-8" / MANIFEST).unlink()
        sft.main([path, f"resume_from_checkpoint={tmp_path / 'run' / 'checkpoint-8'}"])


def test_a_checkpoint_with_a_flipped_bit_and_a_damaged_record_are_passed_over(config, tmp_path, caplog):
    path = config("sft", "run")
    assert sft.main([path, "max_steps=4"]) == 0
    optimizer = tmp_path / "run" / "checkpoint-4" / "optimizer.pt"
    data = bytearray(optimizer.read_bytes())
    data[len(data) // 2] ^= 1
    optimizer.write_bytes(data)
    record = tmp_path / "run" / "run.yaml"
    record.write_bytes(record.read_bytes()[:200] + b"\xff")
    assert sft.main([path, "max_steps=6"]) == 0
    assert "checkpoint-4: incomplete (the bytes of optimizer.pt are not those that were written)" in caplog.text
    assert f"continuing from {tmp_path / 'run' / 'checkpoint-2'}" in caplog.text
    assert "run.yaml: is damaged" in caplog.text and "It is passed over" in caplog.text


def test_a_damaged_state_without_checksums_is_one_message(config, tmp_path):
    """As in checkpoints of earlier versions, whose list has sizes alone."""
    path = config("sft", "run")
    assert sft.main([path, "max_steps=2"]) == 0
    checkpoint = tmp_path / "run" / "checkpoint-2"
    listed = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps({name: one["bytes"] for name, one in listed.items()}))
    for name in ("optimizer.pt", "rng_state.pth"):
        data = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(bytes(len(data)))
        with pytest.raises(CheckpointError, match="checkpoint-2: the state of optimizer, schedule or random"):
            sft.main([path, "max_steps=4"])
        (checkpoint / name).write_bytes(data)


def full_disk(monkeypatch, output_dir):
    """Let a disk refuse the files of a result, as they are put into their place."""
    real = Path.replace

    def refuse(self, target):
        if Path(target) == output_dir / "model.safetensors":
            raise OSError(28, "No space left on device", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)


def test_a_result_that_cannot_be_written_is_kept_and_taken_up_by_the_same_command(
    config, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options = ["save_strategy=no", "max_steps=2"]
    assert sft.main([config("sft", "whole"), *options]) == 0
    path = config("sft", "run")
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path / "run")
        with pytest.raises(
            CheckpointError, match=r"run: .* could not be written there \(the disk is full\); it is kept"
        ):
            sft.main([path, *options])
    assert not (tmp_path / "run" / "model.safetensors").exists() and not (tmp_path / "run" / STAGING).exists()
    assert sft.main([path, *options]) == 0
    assert "has the result that could not be written before" in caplog.text and "nothing is left to do" in caplog.text
    assert_equal_weights(result(tmp_path, "whole"), result(tmp_path, "run"))
    assert not list(tmp_path.glob("video-thinker-kept*/**/model.safetensors"))
    assert sft.main([path, *options]) == 0


def test_a_result_that_the_last_checkpoint_holds_is_written_by_the_same_command(config, tmp_path, monkeypatch):
    path, options = config("sft", "run"), ["max_steps=2"]
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path / "run")
        with pytest.raises(CheckpointError, match=r"could not be written there .*checkpoint-2 holds it: make room"):
            sft.main([path, *options])
        with pytest.raises(WriteError, match=r"disk is full.*checkpoint-2 holds the trained model; make room"):
            sft.main([path, *options])
    assert sft.main([path, *options]) == 0
    assert_equal_weights(load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors"), result(tmp_path, "run"))


def test_a_result_that_nothing_takes_says_so(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "run" / "run.yaml"))
    full_disk(monkeypatch, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"disk is full\), nor kept in .*a file is where a folder.*no checkpoint"):
        sft.main([config("sft", "run"), "save_strategy=no", "max_steps=1"])


def test_a_finished_run_is_not_run_again_and_a_lost_result_is_restored(config, tmp_path, caplog):
    path = config("sft", "run")
    assert sft.main([path, "max_steps=4"]) == 0
    before = result(tmp_path, "run")
    assert sft.main([path, "max_steps=4"]) == 0
    assert "nothing is left to do" in caplog.text
    for name in ("model.safetensors", "trainer_state.json", "config.json"):
        (tmp_path / "run" / name).unlink()
    assert sft.main([path, "max_steps=4"]) == 0
    assert_equal_weights(before, result(tmp_path, "run"))
    assert not (tmp_path / "run" / "optimizer.pt").exists() and (tmp_path / "run" / "config.json").is_file()


def test_settings_that_cannot_change_are_refused_others_are_named(config, tmp_path, caplog):
    path = config("sft", "run")
    assert sft.main([path, "max_steps=2"]) == 0
    with pytest.raises(ConfigError, match=r"made with per_device_train_batch_size=2, this run has .*=3"):
        sft.main([path, "per_device_train_batch_size=3"])
    with pytest.raises(ConfigError, match=r"resume=never, but .* holds checkpoint-2"):
        sft.main([path, "resume=never"])
    with pytest.raises(ConfigError, match=r"resume=.?maybe.?: must be one of auto, never"):
        sft.main([path, "resume=maybe"])
    with pytest.raises(ConfigError, match=r"save_only_model=true: the checkpoints in"):
        sft.main([path, "save_only_model=true"])
    with pytest.raises(
        ConfigError, match=r"learning_rate=0.001, this run has learning_rate=0.0001; the optimizer's state"
    ):
        sft.main([path, "max_steps=4", "learning_rate=1e-4"])
    assert sft.main([path, "max_steps=4", "max_grad_norm=0.5"]) == 0
    assert "continuing with max_grad_norm=0.5; up to checkpoint-2 it was 1.0" in caplog.text
    assert "continuing with max_steps=4; up to checkpoint-2 it was 2: from here on the learning rate" in caplog.text


@pytest.mark.parametrize("option", ["save_strategy=no", "save_only_model=true"])
def test_a_run_that_cannot_be_continued_says_so_at_the_start(config, caplog, option):
    assert sft.main([config("sft", "run"), option, "max_steps=1"]) == 0
    first = next(record.message for record in caplog.records if "a run that is killed" in record.message)
    assert "starts again from the beginning" in first


def test_sigterm_saves_and_the_next_run_continues(config, tmp_path):
    options = ["max_steps=60", "save_steps=1000"]
    assert sft.main([config("sft", "whole"), *options]) == 0
    path = config("sft", "stopped")
    command = ["-u", "-m", "video_thinker.cli", "sft", path, *options, "dataloader_num_workers=1"]
    with launcher.Popen(command, stdout=launcher.PIPE, stderr=launcher.STDOUT) as run:
        for line in run.stdout:
            if "step 2/60" in line:
                os.killpg(run.pid, signal.SIGTERM)  # as SLURM does: the data worker gets it, too,
                run.send_signal(signal.SIGTERM)  # and the launcher passes its own on
                break
        said, _ = run.communicate()
    assert run.returncode == EXIT_SIGTERM, said
    assert "the same command continues" in said
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    assert len(list((tmp_path / "stopped").glob("checkpoint-*"))) == 1
    assert sft.main([path, *options]) == 0
    assert_equal_weights(result(tmp_path, "whole"), result(tmp_path, "stopped"))


def test_a_full_disk_names_the_last_good_checkpoint_and_keeps_it(config, tmp_path, monkeypatch):
    path = config("sft", "run")
    original = torch.save

    def full(obj, file, *args, **kwargs):
        if "checkpoint-4" in str(file):
            original(obj, file, *args, **kwargs)
            raise OSError(28, "No space left on device")
        return original(obj, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    message = r"checkpoint-4 could not be written.*No space left.*last complete one is .*checkpoint-2"
    with pytest.raises(CheckpointError, match=message):
        sft.main([path])
    assert not (tmp_path / "run" / STAGING / "checkpoint-4").exists()
    monkeypatch.undo()
    assert sft.main([path]) == 0
    assert not (tmp_path / "run" / STAGING).exists()


def test_loading_the_best_model_finds_it_where_it_was_moved(config, items_file, tmp_path):
    options = ["load_best_model_at_end=true", "eval_strategy=steps", "eval_steps=2", f"eval_file={items_file}"]
    assert sft.main([config("sft", "run"), *options, "save_total_limit=1", "max_steps=4"]) == 0
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    best = Path(state["best_model_checkpoint"])
    assert best.parent == tmp_path / "run" and best.is_dir()
    assert_equal_weights(load_file(best / "model.safetensors"), result(tmp_path, "run"))


def test_the_run_is_watched_while_it_trains(config, monkeypatch):
    """Beats come with the ids of the step's samples."""
    from video_thinker.training.loop.watchdog import Watchdog

    beats = []
    monkeypatch.setattr(Watchdog, "beat", lambda self, doing, ids=None: beats.append((doing, ids)))
    assert grpo.main([config("grpo", "run"), "max_steps=1"]) == 0
    said = [(doing, sorted(set(ids))) for doing, ids in beats if ids is not None]
    assert said[0][0] == "reading media" and len(said[0][1]) == 2
    assert said[1][0] == "forward and backward" and set(said[1][1]) <= set(said[0][1])


def test_golds_that_cannot_be_graded_are_counted_before_grpo_and_refused_if_all_are(
    config, items_file, tmp_path, caplog, monkeypatch, capsys
):
    class ReachedModelError(Exception):
        pass

    def stop(*args, **kwargs):
        raise ReachedModelError

    monkeypatch.setattr("video_thinker.training.recipe.load_model", stop)
    rows = [json.loads(line) for line in Path(items_file).read_text().splitlines()]
    rows[0]["solution"] = "zebra"
    some = write_items(tmp_path / "some.jsonl", rows)
    with pytest.raises(ReachedModelError):
        grpo.main([config("grpo", "some"), f"train_file={some}"])
    assert f"some.jsonl: 1 of {len(rows)} samples have a gold that cannot be graded" in caplog.text
    none = write_items(tmp_path / "none.jsonl", [{**row, "solution": "zebra"} for row in rows])
    assert cli.main(["grpo", config("grpo", "none"), f"train_file={none}"]) == 2
    assert f"none of its {len(rows)} samples has a gold that can be graded" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"reward_weights=\[1.0\] has 1 weights, but reward_funcs=.* has 2 rewards"):
        grpo.main(
            [config("grpo", "some"), f"train_file={some}", "reward_weights=[1.0]", "reward_funcs=[format,length]"]
        )
    path = Path(config("grpo", "format"))
    settings = {**yaml.safe_load(path.read_text()), "reward_funcs": ["format"], "reward_params": None}
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(ReachedModelError):  # a reward that looks at no gold
        grpo.main([str(path), f"train_file={none}"])
