"""A run goes on with the data and the settings it was begun with, or is refused with what changed."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from video_thinker.config import DataArguments
from video_thinker.errors import ConfigError, DataError
from video_thinker.schema import Media, VideoSample
from video_thinker.training.loop.same_run import SAMPLES_FILE, check_same_samples, check_same_settings

CHECKPOINT = Path("out/checkpoint-2")
EARLIER = {
    "fps": 2.0,
    "max_frames": 16,
    "max_pixels": 100352,
    "prompt_style": "trace",
    "reward_funcs": ["accuracy", "format"],
    "reward_weights": None,
    "temperature": 1.0,
    "num_generations": 8,
    "beta": 0.04,
    "seed": 42,
    "dtype": "bfloat16",
    "model_name_or_path": "base",
    "model_fingerprint": "a",
    "lora_r": 16,
    "learning_rate": 1e-5,
    "weight_decay": 0.0,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "max_steps": 2,
    "num_train_epochs": 1.0,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
    "output_dir": "out",
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fps", 4.0),
        ("max_frames", 32),
        ("max_pixels", 50176),
        ("prompt_style", "answer"),
        ("reward_funcs", ["accuracy"]),
        ("reward_weights", [1.0, 0.5]),
        ("temperature", 0.9),
        ("num_generations", 4),
        ("beta", 0.0),
        ("seed", 1),
        ("dtype", "float32"),
        ("model_name_or_path", "other"),
        ("model_fingerprint", "b"),
        ("lora_r", 8),
    ],
)
def test_what_decides_a_step_is_fixed(key, value):
    with pytest.raises(ConfigError) as refused:
        check_same_settings(CHECKPOINT, EARLIER, {**EARLIER, key: value})
    assert f"made with {key}={EARLIER[key]!r}, this run has {key}={value!r}; it decides what a step" in str(
        refused.value
    )


@pytest.mark.parametrize("key", ["learning_rate", "weight_decay", "lr_scheduler_type", "warmup_steps"])
def test_what_the_optimizer_holds_is_never_announced_and_ignored(key):
    with pytest.raises(ConfigError, match="the optimizer's state in the checkpoint holds it"):
        check_same_settings(CHECKPOINT, EARLIER, {**EARLIER, key: "other"})


def test_a_key_nobody_knows_is_fixed():
    with pytest.raises(ConfigError, match="a_key_of_next_year"):
        check_same_settings(CHECKPOINT, {**EARLIER, "a_key_of_next_year": 1}, {**EARLIER, "a_key_of_next_year": 2})


def test_what_is_read_anew_may_change_and_is_named(caplog):
    check_same_settings(CHECKPOINT, EARLIER, {**EARLIER, "max_grad_norm": 0.5, "output_dir": "moved", "new_key": 1})
    assert [record.message for record in caplog.records] == [
        "continuing with max_grad_norm=0.5; up to checkpoint-2 it was 1.0"
    ]


@pytest.mark.parametrize(
    ("schedule", "says"),
    [("linear", "follows the linear schedule of the new length"), ("constant", "the schedule is constant")],
)
def test_more_steps_change_the_schedule_and_that_is_said(caplog, schedule, says):
    settings = {**EARLIER, "lr_scheduler_type": schedule}
    check_same_settings(CHECKPOINT, settings, {**settings, "max_steps": 4})
    assert "max_steps=4; up to checkpoint-2 it was 2" in caplog.text and says in caplog.text


def samples(**changes: object) -> list[VideoSample]:
    made = []
    for number in range(4):
        fields = {"answer": "A", "media": (Media("video", f"{number % 2}.mp4"),), "location": f"t.jsonl:{number + 1}"}
        made.append(VideoSample(f"q{number}", "Which?", "free-form", **{**fields, **(changes if number == 2 else {})}))
    return made


@pytest.fixture
def check(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.mp4").write_bytes(b"film" * (number + 1))
    data = DataArguments(train_file="t.jsonl", media_root=str(tmp_path))

    def run(now: list[VideoSample], checkpoint: Path | None = CHECKPOINT, process_index: int = 0) -> None:
        args = SimpleNamespace(output_dir=str(tmp_path / "out"), process_index=process_index)
        check_same_samples(args, checkpoint, now, data)

    run(samples(), checkpoint=None)
    return run


def test_the_same_samples_go_on_also_in_a_file_of_another_layout(check, caplog):
    check(samples())
    check(samples(location="t.jsonl:99"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (samples(answer="B"), r"sample 3, 'q2' \(t\.jsonl:3\), has other content; 4 samples then, 4 now"),
        (samples(process="<think>"), r"sample 3, 'q2' \(t\.jsonl:3\), has other content"),
        (samples(media=(Media("video", "1.mp4"),)), r"sample 3, 'q2'"),
        (samples()[::-1], r"sample 1, 'q3' \(t\.jsonl:4\), was 'q0'"),
        (samples()[:3], r"4 samples then, 3 now, from 'q3' on"),
        (samples()[:1] + samples()[2:], r"sample 2, 'q2' \(t\.jsonl:3\), was 'q1'; 4 samples then, 3 now"),
        ([*samples(), VideoSample("q4", "?", "free-form", "A")], r"4 samples then, 5 now, from 'q4' on"),
    ],
    ids=["answer", "trace", "media", "order", "fewer", "one less", "more"],
)
def test_other_samples_are_refused_naming_the_first(check, now, message):
    with pytest.raises(DataError, match=message):
        check(now)
    check(now, process_index=1)  # the first process looks, for all


def test_another_film_under_the_same_name_is_refused(check, tmp_path):
    (tmp_path / "1.mp4").write_bytes(b"another")
    with pytest.raises(DataError, match=r"1\.mp4 of sample 'q1' \(t\.jsonl:2\) had 8 bytes, now 7"):
        check(samples())


def test_a_film_that_was_written_anew_is_named(check, tmp_path, caplog):
    os.utime(tmp_path / "1.mp4", (1, 1))
    check(samples())
    assert "1 media files were written anew since the run began, with the same size (the first: 1.mp4)" in caplog.text


def test_a_run_of_an_earlier_version_goes_on_and_says_what_is_not_compared(check, tmp_path, caplog):
    (tmp_path / "out" / SAMPLES_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        check(samples()[:2])
    assert "the data of the earlier sitting are not compared" in caplog.text


@pytest.mark.parametrize("content", [b'{"id": "q', b"[1]\n", b"3\n", b"\xff\xfe\n", b'{"id": "q0"}\n', b"null\n"])
def test_a_damaged_record_of_the_samples_is_one_message(check, tmp_path, content):
    (tmp_path / "out" / SAMPLES_FILE).write_bytes(content)
    with pytest.raises(DataError, match=r"samples\.jsonl: is damaged .*; remove it to continue"):
        check(samples())
