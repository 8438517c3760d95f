from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from video_thinker.data.video import VideoSampling, load_video
from video_thinker.report.ask import load_question, make_sample
from video_thinker.toyworld.recognize import foreign_clip, is_toy_clip, is_toy_tokenizer
from video_thinker.toyworld.tokenizer import train_tokenizer
from video_thinker.toyworld.world import sample_clip, write_mp4

BASE = Path(__file__).parents[3] / "data" / "toy" / "base"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def toy_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "toy.mp4"
    write_mp4(sample_clip(random.Random(0), "test_id"), path)
    return path


def read(path: Path):
    return load_video(path, VideoSampling(num_frames=4), factor=28)


def test_the_toys_tokenizer_is_recognized(tokenizer):
    assert is_toy_tokenizer(tokenizer)
    assert not is_toy_tokenizer(train_tokenizer(["I look at the first color: green"], vocab_size=400))
    many = type("Many", (), {"__len__": lambda self: 151_665, "__call__": lambda self, *a, **k: {"input_ids": [1]}})()
    assert not is_toy_tokenizer(many)


def test_a_toy_clip_has_its_size_and_its_rate(toy_clip, media_root):
    video = read(toy_clip)
    assert is_toy_clip(toy_clip, video, 60)
    assert not is_toy_clip(toy_clip, dataclasses.replace(video, native_fps=25.0), 60)
    other = next(path for path in sorted(media_root.rglob("*.mp4")))
    assert not is_toy_clip(other, read(other), 60)


def test_only_a_toy_checkpoint_with_a_clip_from_elsewhere_is_warned_about(tokenizer, toy_clip, media_root):
    other = next(path for path in sorted(media_root.rglob("*.mp4")))
    assert "trained on the toy world" in foreign_clip(tokenizer, other, read(other), 60)
    assert foreign_clip(tokenizer, toy_clip, read(toy_clip), 60) == ""
    large = train_tokenizer(["green"], vocab_size=400)
    assert foreign_clip(large, other, read(other), 60) == ""


def test_ask_says_it(monkeypatch, tokenizer, media_root, caplog):
    other = next(path for path in sorted(media_root.rglob("*.mp4")))
    encoder = SimpleNamespace(processor=SimpleNamespace(tokenizer=tokenizer), special_tokens=None, timeout_s=60)
    monkeypatch.setattr("video_thinker.report.ask.load_encoder", lambda *args: encoder)
    monkeypatch.setattr("video_thinker.report.ask.check_texts", lambda *args: None)
    monkeypatch.setattr("video_thinker.report.ask.load_prompt", lambda *args: SimpleNamespace(videos=[read(other)]))
    load_question(make_sample(other, "Who scores?", (), letters=True), "some/model", None)
    assert "its answer says nothing about the clip" in caplog.text
