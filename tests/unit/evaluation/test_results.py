from __future__ import annotations

import json
import logging

import pytest

from tests.conftest import make_item, write_items
from video_thinker.data.annotations import load_samples
from video_thinker.errors import ConfigError, DataError
from video_thinker.evaluation import score
from video_thinker.evaluation.metrics import grade
from video_thinker.evaluation.results import conclude, merge_result, prediction_file, read_result, stored_keys
from video_thinker.runs.files import file_sha256, read_json, write_json
from video_thinker.runs.predictions import Prediction

RIGHT = "<time>00:03-00:04</time> <caption>yellow</caption> <think>last</think> <answer>D</answer>"


@pytest.fixture
def samples(tmp_path):
    return load_samples(write_items(tmp_path / "items.jsonl", [make_item(f"q{i}") for i in range(4)]))


@pytest.fixture
def folder(tmp_path):
    """A run folder without predictions."""
    items = tmp_path / "items.jsonl"
    splits = {"id": {"file": str(items), "sha256": file_sha256(items), "num_samples": 4}} if items.exists() else {}
    write_json(tmp_path / "run" / "manifest.json", {"settings": {}, "splits": splits, "config": {}})
    return tmp_path / "run"


def put(folder, samples, texts: dict[int, str], key: str = "id", process: int | None = None) -> None:
    """Store completions by number of the sample; "!" is a failure."""
    graded = [
        grade(Prediction(f"q{i}", "" if text == "!" else text, 5, error="gone" if text == "!" else None), samples[i])
        for i, text in texts.items()
    ]
    prediction_file(folder, key, process).append(graded)


def test_parts_are_merged_in_the_order_of_the_items(samples, folder):
    put(folder, samples, {2: "c"})
    put(folder, samples, {3: "d"}, process=1)
    put(folder, samples, {1: "b", 0: "a"}, process=0)
    put(folder, samples, {0: "x"}, key="id.blank", process=0)
    assert stored_keys(folder) == ["id", "id.blank"]
    merge_result(folder, "id", samples)
    rows = [json.loads(line) for line in prediction_file(folder, "id").path.read_text().splitlines()]
    assert [(row["problem_id"], row["completion"]) for row in rows] == [
        ("q0", "a"),
        ("q1", "b"),
        ("q2", "c"),
        ("q3", "d"),
    ]
    left = [path.name for path in (folder / "predictions" / "parts").iterdir()]
    assert left == ["id.blank.0.jsonl"], "another result's part is not touched"


def test_a_completion_wins_over_a_failure(samples, folder):
    put(folder, samples, {0: "a", 1: "!", 2: "!"})
    put(folder, samples, {0: "!", 1: "b", 2: "!"}, process=0)
    found = read_result(folder, "id")
    assert [(found[f"q{i}"].completion, found[f"q{i}"].error) for i in range(3)] == [
        ("a", None),
        ("b", None),
        ("", "gone"),
    ]


def test_merging_twice_changes_nothing(samples, folder):
    put(folder, samples, {1: "b", 0: "a"}, process=0)
    merge_result(folder, "id", samples)
    path = prediction_file(folder, "id").path
    before = path.read_bytes(), path.stat().st_mtime_ns
    merge_result(folder, "id", samples)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_prediction_of_no_item_is_an_error(samples, folder):
    put(folder, samples, {3: "a"})
    with pytest.raises(DataError, match="'q3'.*none of its items"):
        merge_result(folder, "id", samples[:3])
    assert read_result(folder, "id").keys() == {"q3"}


def test_only_complete_results_get_figures(samples, folder, caplog):
    write_json(folder / "metrics.json", {"id": {"accuracy": 1.0}, "id.none": {}, "id.shuffled": {}})
    put(folder, samples, {0: RIGHT, 1: RIGHT})
    put(folder, samples, {i: RIGHT for i in range(4)}, key="id.blank")
    metrics = conclude(folder, {"id": samples, "id.blank": samples})
    assert list(metrics) == ["id.blank"] and "2 of 4 items have a prediction" in caplog.text
    assert list(read_json(folder / "metrics.json")) == ["id.blank", "id.shuffled", "id.none"]
    put(folder, samples, {2: RIGHT, 3: "!"}, process=1)
    conclude(folder, {"id": samples})
    figures = read_json(folder / "metrics.json")
    assert list(figures) == ["id", "id.blank", "id.shuffled", "id.none"], "in the order of splits and controls"
    assert (figures["id"]["accuracy"], figures["id"]["num_scored"], figures["id"]["num_failed"]) == (1.0, 3, 1)
    counts = read_json(folder / "manifest.json")["results"]["id"]
    assert counts == {"num_samples": 4, "num_scored": 3, "num_failed": 1}


# The command


def test_score_grades_what_is_stored(samples, folder, capsys):
    put(folder, samples, {0: RIGHT, 1: "<answer>A</answer>", 2: "I do not know"})
    put(folder, samples, {3: RIGHT}, process=0)
    path = prediction_file(folder, "id").path
    path.write_text(path.read_text().replace('"status": "correct"', '"status": "wrong"'))  # by an older grader
    assert score.main([str(folder)]) == 0
    figures = read_json(folder / "metrics.json")["id"]
    names = ("num_correct", "num_wrong", "num_unanswered", "num_failed")
    assert [figures[name] for name in names] == [2, 1, 1, 0]
    statuses = [json.loads(line)["status"] for line in path.read_text().splitlines()]
    assert statuses == ["correct", "wrong", "unanswered", "correct"]
    assert "50.0" in capsys.readouterr().out


def test_score_of_a_run_that_is_not_complete(samples, folder, caplog):
    put(folder, samples, {0: RIGHT})
    with caplog.at_level(logging.ERROR):
        assert score.main([str(folder)]) == 1
    assert "1 of 4" in caplog.text and read_json(folder / "metrics.json") == {}


def test_score_counts_failures_against_the_limit_of_the_run(samples, folder):
    put(folder, samples, {0: RIGHT, 1: RIGHT, 2: RIGHT, 3: "!"})
    assert score.main([str(folder)]) == 1
    write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), "config": {"max_failed": 0.25}})
    assert score.main([str(folder)]) == 0


def test_score_needs_a_run_and_its_items(samples, folder, tmp_path):
    with pytest.raises(ConfigError, match="no predictions"):
        score.main([str(folder)])
    put(folder, samples, {i: RIGHT for i in range(4)})
    moved = (tmp_path / "items.jsonl").rename(tmp_path / "moved.jsonl")
    with pytest.raises(ConfigError, match="--items id=FILE"):
        score.main([str(folder)])
    assert score.main([str(folder), "--items", f"id={moved}"]) == 0
    moved.write_text(moved.read_text() + "\n")
    with pytest.raises(ConfigError, match="changed"):
        score.main([str(folder), "--items", f"id={moved}"])


@pytest.mark.parametrize("content", ["{", "[]", '{"id": 3, "ood": 4}'])
def test_damaged_figures_are_made_again_from_the_predictions(samples, folder, caplog, content):
    put(folder, samples, dict.fromkeys(range(4), RIGHT))
    (folder / "metrics.json").write_text(content)
    figures = conclude(folder, {"id": samples})
    assert figures["id"]["accuracy"] == 1.0 and read_json(folder / "metrics.json").keys() == {"id"}
    assert ("written anew from the predictions" in caplog.text) == (content != '{"id": 3, "ood": 4}')
