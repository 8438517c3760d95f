"""`video-thinker difficulty` with a tiny random model on generated clips."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.conftest import make_item, write_items
from video_thinker import cli
from video_thinker.data.annotations import load_samples
from video_thinker.errors import ConfigError, DataError
from video_thinker.evaluation import difficulty
from video_thinker.generation.backend import Completion, LocalBackend
from video_thinker.runs import lock

pytestmark = pytest.mark.integration

NUM_PASSES = 3


@pytest.fixture
def config(tmp_path, tiny_model_dir, media_root, items_file) -> Path:
    path = tmp_path / "difficulty.yaml"
    values = {
        "model_name_or_path": str(tiny_model_dir),
        "items_file": str(items_file),
        "media_root": str(media_root),
        "output_dir": str(tmp_path / "out"),
        "prompt_style": "plain",
        "num_generations": NUM_PASSES,
        "max_new_tokens": 8,
        "batch_size": 2,
        "min_pass_rate": 0.0,
        "max_pass_rate": 1.0,
    }
    path.write_text(yaml.safe_dump(values))
    return path


def outputs(folder: Path) -> dict[str, bytes]:
    names = ("pass_rates.jsonl", "items.jsonl", *(f"predictions/pass_{i}.jsonl" for i in range(NUM_PASSES)))
    return {name: (folder / name).read_bytes() for name in names}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stop_after(monkeypatch, num_batches: int | None) -> list[int]:
    """Count the batches that the model answers, and interrupt the run after some."""
    generate, batches = LocalBackend.generate, []

    def counted(self, prompts, *, seed):
        if len(batches) == num_batches:
            raise KeyboardInterrupt
        batches.append(len(prompts))
        return generate(self, prompts, seed=seed)

    monkeypatch.setattr(LocalBackend, "generate", counted)
    return batches


def test_every_item_is_answered_several_times_with_a_seed_of_its_own(config, tmp_path, items):
    assert cli.main(["difficulty", str(config)]) == 0
    out = tmp_path / "out"
    texts = [[row["completion"] for row in rows(out / "predictions" / f"pass_{i}.jsonl")] for i in range(NUM_PASSES)]
    assert [len(one) for one in texts] == [len(items)] * NUM_PASSES
    assert texts[0] != texts[1] != texts[2]
    kept = rows(out / "items.jsonl")
    assert [{k: v for k, v in row.items() if k != "pass_rate"} for row in kept] == items
    assert all(row["completions"] == NUM_PASSES and row["kept"] for row in rows(out / "pass_rates.jsonl"))
    assert len(load_samples(out / "items.jsonl")) == len(items)


def test_an_interrupted_run_goes_on_where_it_was(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        whole = stop_after(patch, None)
        assert difficulty.main([str(config), f"output_dir={tmp_path / 'whole'}"]) == 0
    with monkeypatch.context() as patch:
        first = stop_after(patch, 4)  # 3 batches a pass: in the second one
        with pytest.raises(KeyboardInterrupt):
            difficulty.main([str(config)])
    assert not (tmp_path / "out" / "items.jsonl").exists()
    with monkeypatch.context() as patch:
        rest = stop_after(patch, None)
        assert difficulty.main([str(config)]) == 0
    assert first + rest == whole and len(rest) == 5
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")
    with monkeypatch.context() as patch:
        more = stop_after(patch, None)
        assert difficulty.main([str(config), f"num_generations={NUM_PASSES + 1}"]) == 0
    assert len(more) == 3
    with pytest.raises(ConfigError, match="temperature"):
        difficulty.main([str(config), "temperature=0.5"])


def test_a_second_process_on_the_same_folder_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_TIMEOUT_S", 0.1)
    with (
        lock.run_lock(tmp_path / "out"),
        pytest.raises(ConfigError, match="another run is working there"),
    ):
        difficulty.main([str(config)])


def test_only_the_band_is_kept_and_unreadable_media_are_no_wrong_answers(config, tmp_path, monkeypatch, items, caplog):
    passes = {"q0": 0, "q1": 1, "q2": 2, "q3": 3, "q4": 1, "q5": 0}  # of three
    asked = Counter()

    def scripted(self, prompts, *, seed):
        completions = []
        for prompt in prompts:
            name, gold = prompt.sample.id, prompt.sample.answer
            right = asked[name] < passes[name]
            asked[name] += 1
            completions.append(Completion(f"<answer>{gold if right else 'none'}</answer>", 3))
        return completions

    monkeypatch.setattr(LocalBackend, "generate", scripted)
    file = write_items(tmp_path / "items.jsonl", [*items, make_item("broken", "broken.mp4")])
    argv = [str(config), f"items_file={file}", "min_pass_rate=0.2", "max_pass_rate=0.7"]
    with pytest.raises(DataError, match="items: 1 of 7 items cannot be shown"):
        difficulty.main(argv)
    assert difficulty.main([*argv, "max_failed=0.5"]) == 0
    found = {row["problem_id"]: (row["pass_rate"], row["kept"]) for row in rows(tmp_path / "out" / "pass_rates.jsonl")}
    assert found == {
        **{name: (count / 3, count in (1, 2)) for name, count in passes.items()},
        "broken": (None, False),
    }
    assert [row["problem_id"] for row in rows(tmp_path / "out" / "items.jsonl")] == ["q1", "q2", "q4"]
    assert "1 items have no pass rate" in caplog.text
    assert difficulty.main([*argv, "max_failed=0.5", "max_pass_rate=0.4"]) == 0  # another band asks nobody
    assert [row["problem_id"] for row in rows(tmp_path / "out" / "items.jsonl")] == ["q1", "q4"]
    assert set(asked.values()) == {NUM_PASSES}
