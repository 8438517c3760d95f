"""Too little room for a checkpoint is known before the model is loaded."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest

from video_thinker.errors import WriteError
from video_thinker.training.loop.room import check_room, saved_bytes


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.safetensors").write_bytes(bytes(3000))
    (tmp_path / "model" / "b.safetensors").write_bytes(bytes(1000))
    (tmp_path / "model" / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    return str(tmp_path / "model")


def free(monkeypatch, num_bytes):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=num_bytes))


def args(**changed):
    return SimpleNamespace(
        **{
            "output_dir": "run",
            "should_save": True,
            "save_strategy": "steps",
            "save_only_model": False,
            "deepspeed": None,
            **changed,
        }
    )


def test_the_size_follows_the_type_of_the_run(model, tmp_path):
    assert saved_bytes(model, "auto") == saved_bytes(model, "bfloat16") == 4000
    assert saved_bytes(model, "float32") == 8000
    assert saved_bytes("Qwen/Qwen2.5-VL-7B-Instruct", "float32") is None


def test_less_room_than_the_weights_is_refused(model, monkeypatch):
    free(monkeypatch, 3999)
    with pytest.raises(WriteError, match=r"run: 0.0 MiB are free, and the weights of .* no checkpoint and no result"):
        check_room(args(), model, "auto", use_peft=False)
    check_room(args(), model, "auto", use_peft=True)
    check_room(args(should_save=False), model, "auto", use_peft=False)


@pytest.mark.parametrize(
    ("changed", "room", "warned"),
    [
        ({}, 11999, True),
        ({}, 12000, False),
        ({"save_only_model": True}, 4000, False),
        ({"save_strategy": "no"}, 4000, False),
        ({"deepspeed": "z.json"}, 27999, True),
    ],
)
def test_room_for_the_weights_alone_is_a_warning(model, monkeypatch, caplog, changed, room, warned):
    free(monkeypatch, room)
    check_room(args(**changed), model, "auto", use_peft=False)
    assert ("a checkpoint may not fit" in caplog.text) == warned
