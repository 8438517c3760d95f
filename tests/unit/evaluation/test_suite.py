from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from video_thinker.errors import ConfigError
from video_thinker.evaluation import suite
from video_thinker.evaluation.flags import split_pairs
from video_thinker.evaluation.suite import plan_suite
from video_thinker.evaluation.tables import print_suite

FIGURES = {"accuracy": 0.5, "ci95": [0.4, 0.6], "num_failed": 0}


def names(models: list[str], frame_counts=(None,)) -> list[str]:
    return [run.name for run in plan_suite(models, frame_counts, Path("out"))]


def test_models_times_frames():
    runs = plan_suite(["runs/a", "Qwen/B"], [16, 32], Path("out"))
    assert [run.name for run in runs] == ["a-frames16", "a-frames32", "B-frames16", "B-frames32"]
    assert runs[3].pairs == ("model_name_or_path=Qwen/B", "output_dir=out/B-frames32", "num_frames=32")
    assert plan_suite(["runs/a"], [None], Path("out"))[0].pairs == ("model_name_or_path=runs/a", "output_dir=out/a")


def test_models_of_one_name_do_not_collide():
    found = names(["runs/one/sft", "runs/two/sft"])
    assert found == ["one/sft", "two/sft"]
    assert len(set(names(["a-b/c", "a/b-c", "z/c"]))) == 3


@pytest.mark.parametrize("models", [["a", "a"], ["runs/a", "./runs/a/"]])
def test_a_model_given_twice_is_an_error(models):
    with pytest.raises(ConfigError, match="given twice"):
        names(models)


def test_frames_given_twice_are_an_error():
    with pytest.raises(ConfigError, match="--num-frames 8 8"):
        names(["a"], [8, 8])


def test_pairs_may_stand_anywhere():
    argv = ["--model", "a=b", "temperature=0", "--num-frames", "16", "32", "batch_size=4", "--suite", "x.yaml"]
    flags, pairs = split_pairs(argv)
    assert pairs == ["temperature=0", "batch_size=4"]
    assert flags == ["--model", "a=b", "--num-frames", "16", "32", "--suite", "x.yaml"]


@pytest.fixture
def calls(monkeypatch):
    """Command lines of the evaluations; each leaves figures, and that of the model "bad" fails without."""
    found = []

    def run_one(commands, environments):
        (command,) = commands
        found.append(command[4:])
        pairs = dict(pair.split("=", 1) for pair in command[5:])
        if pairs["model_name_or_path"] == "bad":
            return [-9]
        folder = Path(pairs["output_dir"])
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"id": FIGURES}))
        return [0]

    monkeypatch.setattr(suite, "run_processes", run_one)
    return found


def test_a_failing_evaluation_does_not_stop_the_others(tmp_path, calls, capsys):
    config = tmp_path / "suite.yaml"
    config.write_text("{}")
    flags = [
        "--suite",
        str(config),
        "--output-dir",
        str(tmp_path / "out"),
        "--num-frames",
        "8",
        "--video",
        "real",
        "none",
    ]
    assert suite.main(["--model", "bad", "--model", "good", *flags, "batch_size=3"]) == 1
    assert [call[0] for call in calls] == [str(config)] * 2
    assert {"batch_size=3", "video=[real,none]", "num_frames=8", "model_name_or_path=good"} <= set(calls[1])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if "-frames8" in line}
    assert rows == {"bad-frames8": ["-", "-9"], "good-frames8": ["50.0", "(40.0-60.0)", "0"]}
    assert suite.main(["--model", "other", *flags]) == 0


@pytest.mark.parametrize("pair", ["model_name_or_path=x", "output_dir=x", "process=0"])
def test_pairs_that_flags_own_are_refused(tmp_path, pair):
    with pytest.raises(ConfigError, match=pair):
        suite.main(["--model", "a", "--suite", str(tmp_path), "--output-dir", "o", pair])


def test_a_missing_suite_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: no such config"):
        suite.main(["--model", "a", "--suite", str(tmp_path / "no.yaml"), "--output-dir", "o"])


def test_the_summary_shows_every_key_and_failures_beside(capsys):
    metrics = {f"split{i}": {**FIGURES, "num_failed": 3 * (i == 1)} for i in range(6)}
    print_suite({"model": (0, metrics), "other": (1, {})}, Console(width=110, highlight=False))
    text = capsys.readouterr().out
    assert all(f"split{i}" in text for i in range(6)) and text.count("3 failed") == 1


def test_the_summary_names_frames_and_controls_and_the_first_reason_of_failures(capsys):
    figures = {**FIGURES, "num_failed": 2, "first_failure": "q7: a.mp4: no such file"}
    settings = {"a": {"fps": 2.0, "min_frames": 4, "max_frames": 16}, "b": {"num_frames": 32, "fps": 2.0}}
    results = {"id": figures, "id.blank": FIGURES, "id.none": FIGURES}
    print_suite({"a": (0, results), "b": (0, {})}, Console(width=150, highlight=False), settings=settings)
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "id, blank frames",
        "id, no video",
        "32 frames",
        "2 fps,",
        "a: id: 2 items failed; the first, q7: a.mp4",
    ):
        assert words in text, words
