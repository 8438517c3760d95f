"""Hints while GRPO cannot learn: each once per stretch, with the command to look."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from video_thinker.training.logging.hints import PATIENCE_STEPS, TROUBLES, Hints

FINE = {
    "reward": 1.0,
    "rewards/format_reward/mean": 0.5,
    "rewards/own_reward/mean": None,
    "frac_reward_zero_std": 0.5,
    "completions/clipped_ratio": 0.2,
    "kl": 0.1,
}
BAD = {
    "format": {"rewards/format_reward/mean": 0.0},
    "equal": {"frac_reward_zero_std": 1.0},
    "clipped": {"completions/clipped_ratio": 1.0},
    "kl": {"kl": 50.0},
    "no reward": {"rewards/format_reward/mean": None},
}


def run(entries, first=0, every=1):
    hints = Hints(Path("out/completions.jsonl"))
    hints.on_train_begin(None, SimpleNamespace(global_step=first), None)
    for number, logs in enumerate(entries, start=1):
        state = SimpleNamespace(global_step=first + number * every, is_world_process_zero=True)
        hints.on_log(None, state, None, logs=logs)


def test_a_run_that_learns_gets_no_hint(caplog):
    run([FINE] * 50 + [{"train_loss": 0.0}, {"eval_reward": 0.0}])
    assert not caplog.records


@pytest.mark.parametrize("name", BAD)
def test_each_trouble_is_named_once_per_stretch(caplog, name):
    assert {trouble.name for trouble in TROUBLES} == set(BAD)
    bad = {**FINE, **BAD[name]}
    run([FINE] * 3 + [bad] * 30 + [FINE] + [bad] * 30)
    (trouble,) = [trouble for trouble in TROUBLES if trouble.name == name]
    assert len(caplog.records) == 2
    first = caplog.records[0].message
    assert trouble.text in first and "Look: video-thinker completions out/completions.jsonl" in first
    assert f"for {trouble.patience} steps (up to step {3 + trouble.patience})" in first


@pytest.mark.parametrize("name", [name for name in BAD if name != "kl"])
def test_bad_luck_for_some_steps_is_none(caplog, name):
    run(([{**FINE, **BAD[name]}] * (PATIENCE_STEPS - 1) + [FINE]) * 3)
    assert not caplog.records


def test_an_entry_stands_for_the_steps_since_the_last_one_also_after_a_resume(caplog):
    run([{**FINE, **BAD["format"]}], first=100, every=PATIENCE_STEPS)
    assert f"for {PATIENCE_STEPS} steps (up to step {100 + PATIENCE_STEPS})" in caplog.text


def test_groups_without_a_usable_gold_are_no_reward(caplog):
    run([{**FINE, "groups/ungraded": 1.0}] * PATIENCE_STEPS)
    assert "The golds cannot be graded" in caplog.text
