"""Config parsing: defaults < YAML < overrides, and every mistake is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import REPO
from video_thinker.config import DataArguments, ModelArguments, PeftArguments, VideoArguments
from video_thinker.errors import ConfigError
from video_thinker.keys.settings import parse_config


@dataclass
class Args:
    rate: float = 1.0
    names: list[str] = field(default_factory=list)
    flag: bool = False
    size: int | None = None
    extra: dict | None = None


def parse(tmp_path: Path, text: str, *overrides: str) -> Args:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return parse_config((Args,), [str(path), *overrides])[0]


def test_overrides_win_over_yaml_and_yaml_over_defaults(tmp_path):
    args = parse(tmp_path, "rate: 1e-5\nnames: [a, b]\n", "names=[c]", "flag=true", "size=3", "extra={a: 1}")
    assert (args.rate, args.names, args.flag, args.size, args.extra) == (1e-5, ["c"], True, 3, {"a": 1})
    assert parse(tmp_path, "names: [a]\n").rate == 1.0


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("raet: 2\n", [], r"config\.yaml:1: unknown key 'raet'; did you mean 'rate'"),
        ("rate: 2\n", ["raet=2"], r"command line: unknown key 'raet'"),
        ("rate: 2\n", ["rate"], "write key=value"),
        ("rate: 2\n", ["rate="], "value is empty"),
        ("rate: 2\n", ["rate=null"], "value is empty; write a number, or drop the key: the default is 1.0"),
        ("rate: 2\n", ["size="], "value is empty"),
        ("rate: fast\n", [], r"config\.yaml:1: rate=fast: must be a number; correct it"),
        ("- 1\n", [], "must hold a YAML mapping"),
    ],
)
def test_mistakes_are_named(tmp_path, text, overrides, message):
    with pytest.raises(ConfigError, match=message):
        parse(tmp_path, text, *overrides)


def test_null_unsets_what_may_be_unset(tmp_path):
    assert parse(tmp_path, "size: 3\nextra: {a: 1}\n", "size=null", "extra=~").size is None


def test_a_media_time_limit_is_a_time_or_none(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("fps: 1.0\n")
    limits = [
        parse_config((VideoArguments,), [str(path), *given])[0].media_timeout_s
        for given in ([], ["media_timeout_s=null"])
    ]
    assert limits == [120.0, None]
    for value in ("0", "-1", ".nan"):
        with pytest.raises(ConfigError, match=r"media_timeout_s=.* must be a number above 0 or null"):
            parse_config((VideoArguments,), [str(path), f"media_timeout_s={value}"])


def test_missing_file_and_missing_argument():
    with pytest.raises(ConfigError, match="no such config file"):
        parse_config((Args,), ["nowhere.yaml"])
    with pytest.raises(ConfigError, match="first argument must be a YAML"):
        parse_config((Args,), ["rate=2"])


def test_one_name_is_a_list_of_one(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model_name_or_path: x\nfreeze: merger\nuse_peft: true\nlora_parts: vision_tower\n")
    overrides = ["lora_target_modules=qkv", "lora_modules_to_save=[a, b]"]
    model_args, peft_args = parse_config((ModelArguments, PeftArguments), [str(path), *overrides])
    assert model_args.freeze == ["merger"] and peft_args.lora_parts == ["vision_tower"]
    assert (peft_args.lora_target_modules, peft_args.lora_modules_to_save) == (["qkv"], ["a", "b"])


@pytest.mark.parametrize(
    "path", sorted((REPO / "configs").glob("*/qwen*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_every_model_gets_128_vision_tokens_a_frame_pair(path):
    factor = 28 if path.name.startswith("qwen2_5_vl") else 32
    assert f"\nmax_pixels: {128 * factor**2} " in path.read_text()


@pytest.mark.parametrize("path", sorted((REPO / "configs").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_shipped_config_parses(path, tmp_path):
    overrides = [f"output_dir={tmp_path}"]
    if path.parent.name == "sft":
        from video_thinker.training.sft import VideoSFTConfig as Config
    elif path.parent.name == "grpo":
        from video_thinker.training.grpo import VideoGRPOConfig as Config
    elif path.parent.name == "synthesis":
        from video_thinker.synthesis.arguments import SynthesisArguments

        (args,) = parse_config((SynthesisArguments,), [str(path), *overrides])
        assert args.source_files() and args.endpoints()
        return
    elif path.parent.name == "serve":
        from video_thinker.generation.arguments import ServeArguments

        model_args, args = parse_config((ModelArguments, ServeArguments), [str(path)])
        assert model_args.model_name_or_path and args.host == "127.0.0.1"
        return
    else:
        from video_thinker.evaluation.arguments import EvalArguments
        from video_thinker.evaluation.difficulty import DifficultyArguments

        kind = DifficultyArguments if path.parent.name == "difficulty" else EvalArguments
        model_args, _, args = parse_config((ModelArguments, VideoArguments, kind), [str(path), *overrides])
        assert args.output_dir == str(tmp_path) and model_args.model_name_or_path
        return
    model_args, _, data_args, args = parse_config(
        (ModelArguments, PeftArguments, DataArguments, Config), [str(path), *overrides, "use_cpu=true", "bf16=false"]
    )
    assert args.output_dir == str(tmp_path) and args.learning_rate < 1e-2
    assert model_args.model_name_or_path and data_args.train_file
