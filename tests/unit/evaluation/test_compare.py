from __future__ import annotations

import io
import json
import math
import statistics
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
from rich.console import Console

from tests.conftest import make_item, write_items
from tests.report_helpers import LOST, RIGHT, prediction, write_eval_run, write_training_run
from video_thinker.cli import main
from video_thinker.errors import ConfigError
from video_thinker.evaluation import compare
from video_thinker.evaluation.compare import bootstrap_interval, compare_runs, mcnemar_p, published_rows
from video_thinker.evaluation.tables import print_comparison

SETTINGS = {"num_frames": 16, "max_pixels": 100352, "prompt_style": "trace", "temperature": 0.1, "dtype": "bfloat16"}


@dataclass(frozen=True)
class Published:
    model: str
    benchmark: str
    metric: str
    value: float
    num_frames: int = 16
    source: str = "arXiv 1"


@pytest.fixture
def published(monkeypatch):
    module = ModuleType("published")
    module.PUBLISHED = (
        Published("Peer", "star", "accuracy", 40.0),
        Published("Peer", "vrbench", "accuracy", 50.0),
        Published("Peer", "star", "miou", 60.0),
        Published("Peer", "star", "accuracy", 70.0, num_frames=64),
        Published("Other", "vrbench", "accuracy", 80.0),
    )
    module.__spec__ = object()
    monkeypatch.setitem(sys.modules, compare.PUBLISHED_MODULE, module)


def write_run(folder, answers: str, *, key: str = "star", items_file=None, **settings):
    """Write a run whose answers are "1" for right, "0" for wrong, "-" for unanswered, "x" for failed."""
    completions = {"1": RIGHT, "0": LOST, "-": "", "x": ""}
    rows = [
        prediction(f"q{i}", completions[answer], error="broken" if answer == "x" else None)
        for i, answer in enumerate(answers)
    ]
    if items_file is None:
        items_file = write_items(folder.parent / "items.jsonl", [make_item(f"q{i}") for i in range(20)])
    return write_eval_run(folder, items_file, {key: rows}, **{**SETTINGS, **settings})


def shown(comparison, width: int = 140) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_comparison(comparison, console)
    return console.export_text()


# ---- statistics ----


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (1, 9, 2 * (1 + 10) / 2**10),
        (9, 1, 2 * (1 + 10) / 2**10),
        (0, 5, 2 / 2**5),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(only_first, only_second, p_value):
    assert mcnemar_p(only_first, only_second) == pytest.approx(p_value)


def test_bootstrap_interval_is_seeded_and_as_wide_as_theory_says():
    differences = [math.sin(i) for i in range(100)]
    low, high = bootstrap_interval(differences, 0)
    assert (low, high) == bootstrap_interval(differences, 0) != bootstrap_interval(differences, 1)
    mean = sum(differences) / 100
    half = 1.96 * statistics.pstdev(differences) / 10  # normal approximation
    assert (low, high) == (pytest.approx(mean - half, abs=0.01), pytest.approx(mean + half, abs=0.01))
    assert bootstrap_interval([0.5, 0.5], 0) == (0.5, 0.5)
    assert bootstrap_interval([1.0], 0) is None


# ---- runs ----


def test_runs_are_paired_on_the_items_that_both_have_a_score_for(tmp_path):
    base = write_run(tmp_path / "base", "1" + "0" * 9 + "11" + "x1")
    other = write_run(tmp_path / "other", "0" + "1" * 9 + "1-" + "1x")
    comparison = compare_runs([base, other])
    (paired,) = comparison.paired
    assert (paired.key, paired.first, paired.other) == ("star", "base", "other")
    assert paired.num_common == 12
    assert (paired.num_only_first_correct, paired.num_only_other_correct) == (2, 9)
    assert paired.mcnemar_p == pytest.approx(2 * (1 + 11 + 55) / 2**11)
    assert paired.difference == pytest.approx(7 / 12)
    assert paired.ci95[0] < 7 / 12 < paired.ci95[1]
    assert comparison.results["base"]["star"]["accuracy"] == pytest.approx(4 / 13)  # the failed one is in no accuracy
    assert "other, star: 1 of 14 items failed, left out of the accuracy." in comparison.notes


def test_a_longer_run_is_paired_on_the_common_items_and_noted(tmp_path):
    comparison = compare_runs([write_run(tmp_path / "base", "1100"), write_run(tmp_path / "short", "01")])
    assert (comparison.paired[0].num_common, comparison.paired[0].difference) == (2, -0.5)
    # Of the items of the manifest, so that runs which are cut off alike are noted, too.
    there = "of 20 items have a prediction; the same `eval` command goes on."
    assert comparison.notes == [f"base, star: 4 {there}", f"short, star: 2 {there}"]


def test_the_first_is_compared_with_each_other_one(tmp_path):
    folders = [write_run(tmp_path / name, answers) for name, answers in (("a", "10"), ("b", "11"), ("c", "00"))]
    assert [(p.first, p.other, p.difference) for p in compare_runs(folders).paired] == [
        ("a", "b", 0.5),
        ("a", "c", -0.5),
    ]


def test_partial_scores_have_no_mcnemar_test(tmp_path):
    regression = {"problem_type": "regression", "options": [], "solution": "10"}
    items_file = write_items(tmp_path / "items.jsonl", [make_item(f"q{i}", **regression) for i in range(2)])
    folders = [
        write_eval_run(
            tmp_path / name,
            items_file,
            {"star": [prediction(f"q{i}", f"<answer>{x}</answer>") for i, x in enumerate(xs)]},
        )
        for name, xs in (("a", (9, 10)), ("b", (10, 10)))
    ]
    (paired,) = compare_runs(folders).paired
    assert paired.mcnemar_p is None and paired.num_only_first_correct is None
    assert paired.difference == pytest.approx(0.05)


def test_splits_that_only_one_run_has(tmp_path):
    comparison = compare_runs([write_run(tmp_path / "a", "10"), write_run(tmp_path / "b", "11", key="id.blank")])
    assert comparison.keys == ["star", "id.blank"] and comparison.paired == []
    assert "100.0 (34.2-100.0)" in shown(comparison)


# ---- what may not be compared ----


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_frames", 32),
        ("fps", 4.0),
        ("max_pixels", 50176),
        ("prompt_style", "plain"),
        ("prompt_sha256", "0" * 64),
        ("temperature", 1.0),
        ("max_new_tokens", 8),
        ("a_setting_to_come", 1),
    ],
)
def test_runs_of_other_settings_are_refused(tmp_path, setting, value):
    folders = [write_run(tmp_path / "base", "10"), write_run(tmp_path / "other", "11", **{setting: value})]
    brief = value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)
    with pytest.raises(ConfigError, match=rf"not made alike: {setting} is .* in base, {brief} in other\.") as raised:
        compare_runs(folders)
    assert "\n" not in str(raised.value) and "--force" in str(raised.value)
    text = shown(compare_runs(folders, force=True))
    assert text.count("NOT COMPARABLE") == 2 and setting in text and "+50.0" in text


def test_runs_on_other_items_are_refused_and_forced_ones_graded_on_their_own(tmp_path):
    items_file = write_items(tmp_path / "b.jsonl", [make_item("q0", solution="A"), make_item("q9")])
    folders = [write_run(tmp_path / "a", "10"), write_run(tmp_path / "b", "0", items_file=items_file)]
    with pytest.raises(ConfigError, match=r"sha256 of the items of star is [0-9a-f]{12} in a, [0-9a-f]{12} in b"):
        compare_runs(folders)
    forced = compare_runs(folders, force=True)
    assert (forced.paired[0].num_common, forced.paired[0].difference) == (1, 0.0)  # A is right in b


@pytest.mark.parametrize("setting", compare.NOT_COMPARED)
def test_settings_of_the_model_and_its_computation_may_differ(tmp_path, setting):
    folders = [write_run(tmp_path / "a", "10"), write_run(tmp_path / "b", "11", **{setting: "another"})]
    comparison = compare_runs(folders)
    assert comparison.differences == "" and "NOT COMPARABLE" not in shown(comparison)
    differing = [note for note in comparison.notes if "differs" in note]
    assert len(differing) == (setting != "model_sha256")


def test_what_is_no_pair_of_evaluations_is_refused(tmp_path):
    run = write_run(tmp_path / "a", "10")
    with pytest.raises(ConfigError, match="1 RUN was given; compare takes two"):
        compare_runs([run])
    with pytest.raises(ConfigError, match="is a training run"):
        compare_runs([run, write_training_run(tmp_path / "sft", [{"step": 1}])])
    with pytest.raises(ConfigError, match="--items ood=…: no RUN has such a split"):
        compare_runs([run, write_run(tmp_path / "b", "10")], items={"ood": tmp_path})


def test_items_that_were_moved_can_be_named(tmp_path):
    folders = [write_run(tmp_path / "a", "10"), write_run(tmp_path / "b", "10")]
    moved = (tmp_path / "items.jsonl").rename(tmp_path / "moved.jsonl")
    with pytest.raises(ConfigError, match="--items star=FILE"):
        compare_runs(folders)
    assert compare_runs(folders, items={"star": moved}).paired[0].mcnemar_p == 1.0


# ---- published figures ----


def test_published_figures_stand_beside_benchmarks_of_their_name(tmp_path, published):
    rows = published_rows(["Star", "star.blank", "id"])
    assert [(row.model, row.num_frames, row.accuracy) for row in rows] == [
        ("Peer", 16, {"Star": 0.4}),
        ("Peer", 64, {"Star": 0.7}),
    ]
    text = shown(compare_runs([write_run(tmp_path / "a", "10"), write_run(tmp_path / "b", "11")]))
    (line,) = [line for line in text.splitlines() if "Peer, 16 frames (published)" in line]
    assert line.split()[-1] == "40.0"
    assert "Published: arXiv 1" in text and "not measured here" in text


def test_no_published_figures_for_other_names(published):
    assert published_rows(["id", "star.blank", "stars"]) == []


def test_the_real_table_of_published_figures():
    pytest.importorskip(compare.PUBLISHED_MODULE)
    rows = {(row.model, row.num_frames): row.accuracy for row in published_rows(["star", "id"])}
    assert rows["Video-Thinker-7B", 16] == {"star": pytest.approx(0.7066)}
    assert len(rows) == 9


# ---- command ----


def test_the_command(tmp_path, capsys, published):
    folders = [str(write_run(tmp_path / "a", "1000")), str(write_run(tmp_path / "b", "1110"))]
    out = tmp_path / "out.json"
    assert main(["compare", *folders, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "Against a" in text and "+50.0" in text
    written = json.loads(out.read_text())
    assert written["comparable"] is True
    assert written["results"]["a"]["star"]["accuracy"] == 0.25
    assert written["paired"][0]["num_only_other_correct"] == 2
    assert written["published"][0]["accuracy"] == {"star": 0.4}
    other = str(write_run(tmp_path / "c", "1000", num_frames=8))
    assert main(["compare", folders[0], other, "--json", str(out)]) == 2
    assert "num_frames is 16 in a, 8 in c" in capsys.readouterr().err
    assert main(["compare", folders[0], other, "--json", str(out), "--force"]) == 0
    assert json.loads(out.read_text())["comparable"] is False
