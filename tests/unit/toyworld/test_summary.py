from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.conftest import make_item
from video_thinker.errors import DataError
from video_thinker.evaluation.metrics import compute_metrics, grade
from video_thinker.evaluation.tables import metrics_table
from video_thinker.runs.predictions import Graded, Prediction, to_lines
from video_thinker.schema import Segment, VideoSample
from video_thinker.toyworld.picture import draw_learning, series, smooth
from video_thinker.toyworld.summary import build_summary, read_seconds, summarize

OPTIONS = ("A. a", "B. b", "C. c", "D. d")


TRACE = "I look. <time>00:00-00:02</time> <caption>c</caption> <think>t</think> So c."
GIBBERISH = "t nowowow"


def grade_all(num_correct: int, count: int = 20, num_failed: int = 0, think: str = "t") -> list[Graded]:
    graded = []
    for i in range(count):
        sample = VideoSample(str(i), "?", "multiple choice", "A", OPTIONS, segments=(Segment(0, 2),))
        letter = "A" if i < num_correct else "B"
        text = f"<time>00:00-00:02</time> <caption>c</caption> <think>{think}</think> <answer>{letter}</answer>"
        error = "gone" if i >= count - num_failed else None
        graded.append(grade(Prediction(str(i), text, 9, True, 6.0, error), sample))
    return graded


def figures(num_correct: int, count: int = 20, num_failed: int = 0) -> dict:
    return compute_metrics(grade_all(num_correct, count, num_failed))


def write_result(folder, **parts):
    """Write an evaluation's figures and predictions: name of a result -> its graded predictions."""
    metrics = {}
    for name, graded in parts.items():
        key = name.replace("_", ".")
        metrics[key] = compute_metrics(graded)
        write(folder / "predictions" / f"{key}.jsonl", to_lines(graded))
    write(folder / "metrics.json", metrics)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def write_traces(path, *traces):
    rows = [make_item(str(i)) for i in range(max(1, len(traces)))]
    for row, trace in zip(rows, traces or [None], strict=True):
        row["process"] = trace
    write(path, "".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))


@pytest.fixture
def run_dir(tmp_path):
    for stage, correct in (("base", 1), ("sft", 8), ("grpo", 18)):
        parts = {"id": grade_all(correct), "ood": grade_all(correct // 2, num_failed=1)}
        if stage == "grpo":
            parts |= {"id_blank": grade_all(5, think=GIBBERISH), "id_shuffled": grade_all(6)}
        write_result(tmp_path / "eval" / stage, **parts)
    write_traces(tmp_path / "data" / "train_sft.jsonl", TRACE)
    logs = [{"step": i, "loss": 2 - i / 20, "reward": 1 + i / 20} for i in range(1, 11)]
    for row in logs:
        row |= {"rewards/accuracy_reward/mean": 0.5, "rewards/format_reward/mean": 1.0, "groups/mixed": 0.6}
    for stage in ("sft", "grpo"):
        write(tmp_path / stage / "trainer_state.json", {"log_history": [*logs, {"step": 10, "train_runtime": 3.0}]})
    write(tmp_path / "seconds.yaml", "data: 12\nsft: 80.25\ngrpo: 200\n")
    return tmp_path


def test_the_summary_has_the_promised_form(run_dir):
    console = Console(file=io.StringIO(), width=120)
    summarize(run_dir, seed=3, console=console)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["seed"] == 3
    assert summary["seconds"] == {"data": 12.0, "sft": 80.2, "grpo": 200.0}
    assert set(summary["results"]) == {"base", "sft", "grpo"}
    for stage in summary["results"].values():
        for split in ("id", "ood"):
            assert {"accuracy", "ci95", "format_rate", "miou", "num_samples", "num_failed"} <= set(stage[split])
    grpo = summary["results"]["grpo"]
    assert grpo["id"]["accuracy"] == 0.9 and grpo["id"]["miou"] == 1.0 and grpo["id"]["num_samples"] == 20
    assert grpo["id"]["ci95"] == pytest.approx([0.699, 0.972], abs=1e-3)
    assert grpo["ood"]["accuracy"] == pytest.approx(9 / 19) and grpo["ood"]["num_failed"] == 1
    assert summary["controls"]["blank"]["accuracy"] == 0.25
    assert summary["controls"]["shuffled"]["accuracy"] == 0.3
    assert summary["chance"] == {"id": 0.25, "ood": 0.25}


def test_the_table_shows_the_same_figures(run_dir):
    console = Console(file=io.StringIO(), width=120)
    summarize(run_dir, seed=3, console=console)
    text = console.file.getvalue()
    assert "seed 3" in text
    lines = {line.strip().split("  ")[0]: line for line in text.splitlines()}
    assert "90.0 (69.9-97.2)" in lines["GRPO"] and "47.4" in lines["GRPO"]
    assert "25.0 (" in lines["GRPO, blank video"]
    assert "30.0 (" in lines["GRPO, shuffled video"]
    assert "base, own wording" not in lines


def test_the_base_in_its_own_wording_is_added_where_it_was_evaluated(run_dir):
    write_result(run_dir / "eval" / "base_plain", id=grade_all(10), ood=grade_all(9))
    console = Console(file=io.StringIO(), width=120)
    summary = summarize(run_dir, seed=0, console=console)
    assert summary["results"]["base_plain"]["id"]["accuracy"] == 0.5
    assert "base, own wording" in console.file.getvalue()


def test_a_missing_evaluation_or_control_is_named(run_dir):
    metrics = json.loads((run_dir / "eval" / "grpo" / "metrics.json").read_text())
    del metrics["id.blank"]
    write(run_dir / "eval" / "grpo" / "metrics.json", metrics)
    with pytest.raises(DataError, match=r"grpo/metrics\.json: has no 'id\.blank'"):
        build_summary(run_dir, 0, {})
    (run_dir / "eval" / "sft" / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"sft/metrics\.json: no such file"):
        build_summary(run_dir, 0, {})


def test_thoughts_in_words_of_the_teacher_are_measured_for_each_result(run_dir):
    console = Console(file=io.StringIO(), width=140)
    summary = summarize(run_dir, seed=0, console=console)
    assert summary["results"]["sft"]["id"]["thought_words_known"] == 1.0
    assert summary["results"]["grpo"]["ood"]["thought_words_known"] == 1.0
    assert summary["controls"]["blank"]["thought_words_known"] == 0.0
    assert summary["controls"]["shuffled"]["thought_words_known"] == 1.0
    lines = {line.strip().split("  ")[0]: line.split() for line in console.file.getvalue().splitlines()}
    assert lines["GRPO, blank video"][7] == "0.0" and lines["GRPO, shuffled video"][7] == "100.0"


def test_one_gibberish_completion_lowers_the_share(run_dir):
    graded = [*grade_all(19, 19), *grade_all(1, 1, think=GIBBERISH)]
    graded[-1] = dataclasses.replace(graded[-1], prediction=dataclasses.replace(graded[-1].prediction, problem_id="19"))
    write_result(run_dir / "eval" / "sft", id=graded, ood=grade_all(3))
    figures = build_summary(run_dir, 0, {})["results"]["sft"]["id"]
    assert figures["accuracy"] == figures["format_rate"] == 1.0  # which do not see it
    assert figures["thought_words_known"] == pytest.approx(19 / 20)


def test_a_model_without_thoughts_has_no_such_figure(run_dir):
    sample = VideoSample("q", "?", "multiple choice", "A", OPTIONS)
    plain = [grade(Prediction("q", "A", 1, True, 6.0), sample)]
    write_result(run_dir / "eval" / "base_plain", id=plain, ood=plain)
    assert build_summary(run_dir, 0, {})["results"]["base_plain"]["id"]["thought_words_known"] is None


def test_the_words_are_those_of_the_runs_own_teacher(run_dir):
    write_traces(run_dir / "data" / "train_sft.jsonl", TRACE.replace("<think>t<", f"<think>{GIBBERISH}<"))
    summary = build_summary(run_dir, 0, {})
    assert summary["controls"]["blank"]["thought_words_known"] == 1.0
    assert summary["results"]["sft"]["id"]["thought_words_known"] == 0.0


def test_missing_traces_and_completions_are_named(run_dir):
    (run_dir / "eval" / "sft" / "predictions" / "ood.jsonl").unlink()
    with pytest.raises(DataError, match=r"sft/predictions/ood\.jsonl: has no completions"):
        build_summary(run_dir, 0, {})
    write_traces(run_dir / "data" / "train_sft.jsonl")
    with pytest.raises(DataError, match=r"train_sft\.jsonl: no item has a trace"):
        build_summary(run_dir, 0, {})
    (run_dir / "data" / "train_sft.jsonl").unlink()
    with pytest.raises(DataError, match=r"train_sft\.jsonl"):
        build_summary(run_dir, 0, {})


def test_a_trainer_without_a_log_is_named(run_dir):
    write(run_dir / "grpo" / "trainer_state.json", {"log_history": []})
    with pytest.raises(DataError, match=r"grpo/trainer_state\.json: has no log_history"):
        summarize(run_dir, seed=0, console=Console(file=io.StringIO()))


@pytest.mark.parametrize("text", ["", "fast", "sft: quick\n", "- 1\n"])
def test_damaged_seconds_are_an_error(tmp_path, text):
    write(tmp_path / "seconds.yaml", text)
    with pytest.raises(DataError, match=r"seconds\.yaml"):
        read_seconds(tmp_path / "seconds.yaml")


def test_series_takes_the_steps_where_a_figure_was_logged():
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 9.0}, {"step": 3, "loss": 1.0}]
    assert series(history, "loss") == ([1, 3], [2.0, 1.0])
    assert series(history, "reward") == ([], [])


def test_smoothing_keeps_length_and_level():
    assert smooth([1.0, 1.0, 4.0, 1.0, 1.0], 1) == pytest.approx([1.0, 2.0, 2.0, 2.0, 1.0])
    assert smooth([3.0], 5) == [3.0]


def bar_height(picture: np.ndarray, color: str) -> int:
    """Height in pixels of the tallest column of one color."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((picture == rgb).all(axis=2).sum(axis=0).max())


def test_bars_are_as_high_as_the_figures(run_dir):
    summary = build_summary(run_dir, 0, {})
    log = json.loads((run_dir / "grpo" / "trainer_state.json").read_text())["log_history"]
    path = draw_learning(run_dir / "learning.png", summary, log, log)
    picture = np.asarray(Image.open(path).convert("RGB"))
    sft, control = bar_height(picture, "#56B4E9"), bar_height(picture, "#CC79A7")
    assert sft / control == pytest.approx(0.4 / 0.3, rel=0.1)


def test_a_result_without_any_scored_sample_can_be_drawn(run_dir):
    write_result(run_dir / "eval" / "base", id=grade_all(0, 2, num_failed=2), ood=grade_all(1))
    summary = summarize(run_dir, seed=0, console=Console(file=io.StringIO(), width=120))
    assert summary["results"]["base"]["id"]["accuracy"] is None
    assert (run_dir / "learning.png").stat().st_size > 20_000


@pytest.mark.parametrize(("width", "wide"), [(80, False), (110, True)])
def test_the_results_table_fits_its_terminal(width, wide):
    console = Console(file=io.StringIO(), width=width)
    console.print(metrics_table({"id.shuffled": figures(18)}, "runs/[x]", wide=wide))
    text = console.file.getvalue()
    assert "runs/[x]" in text and "69.9-97.2" in text and "…" not in text
    assert ("R@0.3" in text) is wide
