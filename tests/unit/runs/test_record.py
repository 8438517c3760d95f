"""`run.yaml`: first what was set, then the defaults; it can be run again as it is."""

from __future__ import annotations

import hashlib

import yaml

from video_thinker.keys.commands import CONFIG_CLASSES
from video_thinker.keys.settings import check_command_line, read_config
from video_thinker.runs import record


def test_a_run_can_be_run_again_from_its_record(tmp_path, monkeypatch):
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n")
    path = tmp_path / "config.yaml"
    path.write_text(f"model_name_or_path: m\ntrain_file: {data}\nsave_strategy: no\nlearning_rate: 1e-5\n")
    argv = [str(path), f"output_dir={tmp_path}", "max_steps=3", "lora_target_modules=[qkv]", "hub_token=hf_planted"]
    monkeypatch.setattr(record, "_launch", None)
    values = check_command_line("sft", argv)
    record.note_launch("sft", argv, values)
    config = {"fps": 2.0, "world_size": 1, **values, "hub_token": "hf_planted"}
    written = record.write_run_info(tmp_path, config)
    text = written.read_text(encoding="utf-8")
    again = read_config(CONFIG_CLASSES["sft"], [str(written)])
    assert again == {key: value for key, value in values.items() if key != "hub_token"}
    assert read_config(CONFIG_CLASSES["sft"], ["--config", str(written), "max_steps=5"])["max_steps"] == 5
    assert text.index("\n  learning_rate:") < text.index("# defaults") < text.index("\n  fps: 2.0")
    info = yaml.safe_load(text)
    assert info["config"]["fps"] == 2.0 and info["packages"]["trl"] and info["machine"]["host"] and info["date"]
    assert info["command_line"].startswith("video-thinker sft ") and "max_steps=3" in info["command_line"]
    assert info["data_sha256"]["train_file"] == hashlib.sha256(b"{}\n").hexdigest()
    assert "planted" not in text


def test_a_run_of_the_python_api_has_a_record_too(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "_launch", None)
    info = yaml.safe_load(record.write_run_info(tmp_path, {"fps": 2.0}).read_text(encoding="utf-8"))
    assert info["config"] == {"fps": 2.0} and "command" not in info


def test_secrets_inside_of_a_value_are_left_out_too(tmp_path, monkeypatch):
    nested = {"model_init_kwargs": {"token": "hf_planted", "revision": "main"}, "roles": [{"api_key": "sk_planted"}]}
    argv = ["c.yaml", "model_init_kwargs={token: hf_planted}", "token=hf_planted", "eos_token=<end>", "freeze=[merger]"]
    monkeypatch.setattr(record, "_launch", record.Launch("sft", tuple(argv), ()))
    text = record.write_run_info(tmp_path, {**nested, "eos_token": "<end>"}).read_text(encoding="utf-8")
    assert "planted" not in text
    info = yaml.safe_load(text)
    assert info["config"] == {"model_init_kwargs": {"revision": "main"}, "roles": [{}], "eos_token": "<end>"}
    assert "eos_token=<end>" in info["command_line"] and "freeze=[merger]" in info["command_line"]
