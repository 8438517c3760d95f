"""Damaged small files of a checkpoint folder: each is one message that names the file."""

from __future__ import annotations

import json

import pytest

from video_thinker.errors import CheckpointError
from video_thinker.models.folder import check_model_folder

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3270160\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "tokenizer.json", "generation_config.json", "model.safetensors.index.json"):
        (tmp_path / name).write_text(json.dumps({"a": "é"}), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% endfor %}"
    )
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    return tmp_path


def test_a_whole_folder_and_a_name_of_the_hub_pass(folder):
    check_model_folder(folder)
    check_model_folder(folder / "none")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "", r"config\.json: is damaged or cut short \(line 1: Expecting value\)"),
        ("config.json", "[]", "is no JSON object"),
        ("tokenizer.json", '{"a": ', r"tokenizer\.json: is damaged or cut short"),
        ("tokenizer.json", LFS, "is a pointer of Git LFS.*git lfs pull"),
        ("model.safetensors", LFS, "is a pointer of Git LFS"),
        ("model.safetensors.index.json", "{", "is damaged or cut short"),
        ("processor_config.json", "{", "is damaged or cut short"),
        ("chat_template.jinja", "{% if %}", r"is no template \(line 1"),
        ("chat_template.jinja", " ", "is empty"),
        ("generation_config.json", "\xff", "is no UTF-8 text"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, message):
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=message):
        check_model_folder(folder)
