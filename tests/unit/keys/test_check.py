"""Every value is checked against its type and rule, and the message names key, value, rule, place and fix."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from tests.conftest import REPO
from video_thinker.errors import ConfigError
from video_thinker.keys.check import describe
from video_thinker.keys.commands import CONFIG_CLASSES
from video_thinker.keys.rules import LIBRARY_RULES, LIBRARY_TYPES, Count, Positive, one_of
from video_thinker.keys.settings import check_command_line, known_keys, read_config
from video_thinker.keys.source import module_path

GRPO, SFT = CONFIG_CLASSES["grpo"], CONFIG_CLASSES["sft"]


@dataclass
class Args:
    rate: Positive = 1.0
    size: Count | None = 3
    names: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    word: Annotated[str, one_of("no", "steps")] = "no"
    folder: str = "x"
    flag: bool = False
    extra: dict | None = None


def read(tmp_path: Path, *overrides: str, text: str = "flag: false\n", kinds=(Args,)):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return read_config(kinds, [str(path), *overrides])


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("rate=1e-5", 1e-5),
        ("rate='1e-5'", 1e-5),
        ("size=1e3", 1000),
        ("size=010", 10),
        ("size=null", None),
        ("weights=[1e-1, 2]", [0.1, 2.0]),
        ("weights=1e-1", [0.1]),
        ("names=qkv", ["qkv"]),
        ("word=no", "no"),
        ("folder=007", "007"),
        ("folder=2026-01-31", "2026-01-31"),
        ("folder=12:30", "12:30"),
        ("folder=off", "off"),
        ("folder=a #1", "a #1"),
        ("flag=yes", True),
        ("flag=off", False),
        ("extra={a: {b: no}}", {"a": {"b": False}}),
    ],
)
def test_a_value_is_read_as_its_key_wants_it(tmp_path, override, value):
    (found,) = (v for k, v in read(tmp_path, override).items() if k == override.partition("=")[0])
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("rate=0", "a number above 0"),
        ("rate=-1e-5", "a number above 0"),
        ("rate=.nan", "a number above 0"),
        ("rate=nan", "a number above 0"),
        ("rate=.inf", "a number above 0"),
        ("rate=true", "a number above 0"),
        ("rate=fast", "a number above 0"),
        ("rate=[1]", "a number above 0"),
        ("rate={a: 1}", "a number above 0"),
        ("size=0", "a whole number of at least 1 or null"),
        ("size=2.5", "a whole number of at least 1 or null"),
        ("size=no", "a whole number of at least 1 or null"),
        ("names=[1]", r"a list \(each a text\)"),
        ("names={a: b}", r"a list \(each a text\)"),
        ("weights=[1, .nan]", r"a list \(each a number\)"),
        ("weights=[a]", r"a list \(each a number\)"),
        ("word=step", "one of no, steps"),
        ("folder=[a]", "a text"),
        ("flag=2", "true or false"),
        ("flag=maybe", "true or false"),
        ("extra=text", "a mapping or null"),
        ("extra={a: .inf}", "a mapping or null"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_one_line(tmp_path, override, rule):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^command line: {key}=.*: must be {rule}; correct it ") as caught:
        read(tmp_path, override)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=rf"config\.yaml:3: {key}=.*: must be {rule};"):
        read(tmp_path, text="# a comment\n\n" + override.replace("=", ": ", 1) + "\n")


SENSELESS = [
    "learning_rate=0 -1 .nan .inf fast [1] true",
    "num_train_epochs=0 -1 .nan",
    "max_steps=0 -2 1.5 99999999999999999999999",
    "loss_type=dapo2 nll",
    "scale_rewards=groups",
    "importance_sampling_level=word",
    "train_sampling_strategy=randomly",
    "log_level=loud",
    "freeze=vision [vision_tower,head]",
    "prompt_style=tracee",
    "video_backend=vlc",
    "attn_implementation=flash",
    "num_generations=0 1 -8 [8] 2.5",
    "temperature=0 -1 .nan",
    "top_p=0 1.5",
    "beta=-0.1 .nan",
    "max_completion_length=0 -5",
    "max_prompt_length=0",
    "per_device_train_batch_size=0 -1 1e30 9999999999999",
    "gradient_accumulation_steps=0",
    "save_steps=0 -1 2.5",
    "logging_steps=0 -5",
    "save_total_limit=0",
    "max_grad_norm=-1 .inf",
    "seed=-1",
    "save_strategy=sometimes",
    "lr_scheduler_type=cosin",
    "optim=adamm",
    "reward_weights=[1, a] [.nan]",
    "canary_steps=-1 1.5",
    "step_timeout_s=-1 .nan",
    "fps=0 -2 .inf [2]",
    "num_frames=0 -1",
    "max_frames=0",
    "max_pixels=0 -1 1.5",
    "media_timeout_s=0 -1 .nan .inf 1e12",
    "media_cache_mib=-1",
    "max_decode_errors=2 -0.1",
    "on_decode_error=drop",
    "dtype=float99",
    "resume=sometimes",
    "lora_r=0",
    "lora_dropout=1",
    "dataloader_num_workers=-1",
    "max_tokens_per_forward=0",
    "dynamic_sampling_rounds=-1",
]


@pytest.mark.parametrize("line", SENSELESS, ids=[line.partition("=")[0] for line in SENSELESS])
def test_senseless_settings_of_a_training_are_refused(tmp_path, line):
    key, _, values = line.partition("=")
    for value in values.replace("[1, a]", "[1,a]").split():
        with pytest.raises(ConfigError, match=rf"^command line: {key}=.*: must be "):
            read(tmp_path, f"{key}={value}", text="bf16: false\n", kinds=GRPO)


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("eval", ["concurrency=0", "temperature=-1", "num_processes=-1", "max_new_tokens=0", "request_timeout_s=0"]),
        ("difficulty", ["num_generations=0", "min_pass_rate=1.5", "top_p=2"]),
        ("synthesize", ["max_cost=-1", "max_tokens=0", "test_share=2", "min_options=1", "max_attempts=0"]),
    ],
)
def test_senseless_settings_of_other_commands_are_refused(tmp_path, command, overrides):
    for override in overrides:
        with pytest.raises(ConfigError, match="^command line: .*: must be "):
            read(tmp_path, override, text="output_dir: x\n", kinds=CONFIG_CLASSES[command])


def test_a_value_that_may_be_secret_is_never_shown(tmp_path):
    for override in ("extra_body=sk-planted", "base_url=[sk-planted]", "sk-plante=sk-planted"):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, override, text="output_dir: x\n", kinds=CONFIG_CLASSES["eval"])
        assert "planted" not in str(caught.value)


def test_a_config_of_another_command_is_named(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"config\.yaml:1: unknown key 'num_generations'; .* those of `grpo`: start it with `video-thinker grpo`",
    ):
        read(tmp_path, text="num_generations: 4\nbeta: 0.1\n", kinds=SFT)


def test_a_missing_key_or_file_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("output_dir: x\n")
    with pytest.raises(ConfigError, match="model_name_or_path is missing: it must be a text"):
        check_command_line("sft", [str(path)])
    with pytest.raises(ConfigError, match=r"train_file='nowhere\.json': no such file, seen from "):
        check_command_line("sft", [str(path), "model_name_or_path=x", "train_file=nowhere.json"])


def test_rules_are_those_of_keys_that_exist():
    names = set(known_keys(GRPO)) | set(known_keys(SFT))
    assert set(LIBRARY_RULES) <= names


@pytest.mark.parametrize("command", ["sft", "grpo", "eval", "difficulty", "synthesize"])
def test_the_source_says_what_the_imported_classes_say(command):
    """Names, types, rules and required keys that are read from the source are those of the installed versions."""
    import importlib

    for name in CONFIG_CLASSES[command]:
        module, _, kind = name.rpartition(".")
        live, source = known_keys([getattr(importlib.import_module(module), kind)]), known_keys([name])
        assert list(map(str, sorted(live))) == sorted(source)
        for key in live:
            # `Any` stands for a class of a library that nothing in a YAML file can be.
            if "a value" not in source[key].words:
                assert source[key].words == live[key].words, key
            assert (source[key].default == "required") == (live[key].default == "required"), key


@pytest.mark.parametrize("value", ["3", "nowhere.json", "configs"])
def test_deepspeed_names_a_file(monkeypatch, value):
    monkeypatch.chdir(REPO)
    with pytest.raises(
        ConfigError, match=rf"deepspeed='{value}': no such file, .*e\.g\. configs/deepspeed/zero2\.json"
    ):
        check_command_line(
            "sft", ["configs/sft/toy.yaml", "train_file=README.md", "media_root=.", f"deepspeed={value}"]
        )


def test_the_choices_of_a_library_are_those_of_the_installed_version():
    """Where Transformers and TRL list the choices of a key in their own field, ours are the same."""
    for name, kind in LIBRARY_TYPES.items():
        module = "sft_config" if name in ("truncation_mode", "packing_strategy") else "training_args"
        path = module_path(f"{'trl.trainer' if module == 'sft_config' else 'transformers'}.{module}")
        field = re.search(rf"^    {name}: .*?\n    \)", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        listed = field and re.search(r'"choices": (\[.*?\])', field[0], re.DOTALL)
        if listed:
            assert all(f" {choice}" in f" {describe(kind)}" for choice in ast.literal_eval(listed[1])), name
