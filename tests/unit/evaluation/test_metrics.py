from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.conftest import make_item, write_items
from video_thinker.data.annotations import load_samples
from video_thinker.evaluation.metrics import (
    STATUSES,
    compute_metrics,
    confidence_interval,
    duration_bucket,
    grade,
    majority_letter,
    mean,
)
from video_thinker.runs.predictions import Prediction
from video_thinker.runs.reading import read_predictions
from video_thinker.schema import Segment, VideoSample
from video_thinker.scoring import score_answer

OPTIONS = ("A. red", "B. green", "C. blue", "D. yellow")


def sample(name: str = "q", **fields) -> VideoSample:
    values = {"problem_type": "multiple choice", "answer": "B", "options": OPTIONS, **fields}
    return VideoSample(name, "Which color?", **values)


def trace(span: str = "00:02-00:04", answer: str = "B") -> str:
    return f"I look. <time>{span}</time> <caption>green</caption> <think>that one</think> <answer>{answer}</answer>"


def graded(text: str | None, *, duration_s: float | None = 6.0, num_tokens: int = 10, finished: bool = True, **fields):
    error = "v.mp4: cannot decode" if text is None else None
    prediction = Prediction("q", text or "", num_tokens, finished, duration_s, error)
    return grade(prediction, sample(**fields))


def test_correct_wrong_unanswered_failed_and_unscorable_are_five_things():
    metrics = compute_metrics(
        [
            graded("<answer>B</answer>"),
            graded("<answer>C</answer>"),
            graded("<answer></answer>"),
            graded(None),
            graded("<answer>B</answer>", answer="E"),
        ]
    )
    assert metrics["num_samples"] == 5
    assert metrics["num_scored"] == 3
    assert (metrics["num_correct"], metrics["num_unanswered"]) == (1, 1)
    assert (metrics["num_failed"], metrics["num_unscorable"]) == (1, 1)
    assert metrics["accuracy"] == pytest.approx(1 / 3)


def test_every_sample_is_counted_once():
    metrics = compute_metrics(
        [
            *[graded("<answer>B</answer>")] * 3,
            *[graded("<answer>C</answer>")] * 2,
            graded("<answer>9</answer>", problem_type="regression", answer="10", options=()),
            graded(""),
            *[graded(None)] * 4,
            graded("<answer>B</answer>", answer="E"),
        ]
    )
    counts = {status: metrics[f"num_{status}"] for status in STATUSES}
    assert counts == {"correct": 3, "wrong": 2, "partial": 1, "unanswered": 1, "unscorable": 1, "failed": 4}
    assert metrics["num_samples"] == sum(counts.values())
    assert metrics["num_scored"] == 7
    assert metrics["accuracy"] == pytest.approx((3 + 0.9) / 7)


def test_figures_of_a_prediction_file_by_hand(tmp_path):
    gold = [{"start_s": 2, "end_s": 4, "caption": "green"}, {"start_s": 6, "end_s": 10, "caption": "a blue ball"}]
    letters = {"q0": "B", "q1": "B", "q2": "C", "q3": "B", "q4": "A"}
    items = [make_item(name, solution=letter, segments=gold) for name, letter in letters.items()]
    samples = load_samples(write_items(tmp_path / "items.jsonl", items))
    two_blocks = trace().replace(
        "<answer>", "<time>00:06-00:09</time> <caption>ball</caption> <think>x</think> <answer>"
    )
    rows = [
        {"problem_id": "q0", "completion": two_blocks, "num_tokens": 40, "duration_s": 59.9},  # IoU 1 and 3/4, format
        {"problem_id": "q1", "completion": trace(answer="C"), "num_tokens": 20, "duration_s": 60.0},  # IoU 1 and 0
        {"problem_id": "q2", "completion": "<answer></answer>", "num_tokens": 3, "duration_s": 200.0},
        {"problem_id": "q3", "error": "broken file"},
        {"problem_id": "q4", "completion": "The answer is A", "num_tokens": 5, "duration_s": 4000.0, "finished": False},
    ]
    (tmp_path / "id.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions = read_predictions(tmp_path / "id.jsonl")
    metrics = compute_metrics([grade(predictions[one.id], one) for one in samples])
    by_hand = {
        "accuracy": 2 / 4,  # q0 and q4; q2 is unanswered; q3 failed and is not in it
        "ci95": [0.150, 0.850],  # Wilson, 2 of 4
        "num_samples": 5,
        "num_scored": 4,
        "num_correct": 2,
        "num_wrong": 1,
        "num_unanswered": 1,
        "num_failed": 1,
        "num_truncated": 1,
        "format_rate": 2 / 4,
        "miou": (7 / 8 + 1 / 2 + 0 + 0) / 4,
        "recall@0.3": (1 + 1 / 2) / 4,
        "recall@0.7": (1 + 1 / 2) / 4,
        "bleu@1": ((1 + math.exp(1 - 3)) / 2 + 1 / 2) / 4,
        "rouge_l": ((1 + 2 * (1 / 3) / (4 / 3)) / 2 + 1 / 2) / 4,
        "chance": 1 / 4,
        "majority_letter": 3 / 5,
        "mean_completion_tokens": 68 / 4,
    }
    for name, value in by_hand.items():
        assert metrics[name] == pytest.approx(value, abs=1e-3 if name == "ci95" else 1e-9), name
    parts = {name: (part["accuracy"], part["num_samples"]) for name, part in metrics["by_duration"].items()}
    assert parts == {
        "0-60 s": (1.0, 1),
        "1-3 min": (0.0, 1),
        "3-10 min": (0.0, 1),
        "30+ min": (1.0, 1),
        "unknown": (None, 1),
    }
    assert list(parts) == ["0-60 s", "1-3 min", "3-10 min", "30+ min", "unknown"]


def test_failed_samples_lower_no_figure():
    good = [graded(trace(), segments=(Segment(2, 4, "green"),))] * 2
    with_failures = [*good, *[graded(None, segments=(Segment(2, 4, "green"),))] * 2]
    for name in ("accuracy", "format_rate", "miou", "recall@0.5", "rouge_l", "mean_completion_tokens", "ci95"):
        assert compute_metrics(with_failures)[name] == compute_metrics(good)[name], name
    assert compute_metrics(with_failures)["num_failed"] == 2


def test_format_is_strict_and_the_answer_lenient():
    metrics = compute_metrics(
        [graded(trace()), graded("so <answer>B</answer>"), graded("B"), graded(trace() + trace())]
    )
    assert metrics["format_rate"] == pytest.approx(1 / 4)
    assert metrics["accuracy"] == 1.0


def test_format_knows_the_length_of_the_video():
    outside = trace("00:08-00:09")
    assert graded(outside, duration_s=6.0).valid_format is False
    assert graded(outside, duration_s=None).valid_format is True


def test_grounding_is_the_mean_over_samples_with_gold_segments():
    half = graded(trace("00:02-00:04"), segments=(Segment(2, 6),))  # IoU 0.5
    third = graded(trace("00:02-00:04"), segments=(Segment(3, 5),))  # IoU 1/3
    silent = graded("<answer>B</answer>", segments=(Segment(2, 4),))  # no span predicted: 0
    no_gold = graded(trace())
    metrics = compute_metrics([half, third, silent, no_gold])
    assert metrics["miou"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert metrics["recall@0.3"] == pytest.approx(2 / 3)
    assert metrics["recall@0.5"] == pytest.approx(1 / 3)
    assert compute_metrics([no_gold])["miou"] is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (trace(), "B"),
        ("B", "B"),
        (" green \n", "green"),
        ("<answer>C</answer> No, wait. <answer>b</answer>", "b"),
        ("<answer>C</answer><answer>b</answer>", "C or b"),
        ("Final answer: B", "B"),
        ("<think>B</think>", None),
        ("", None),
        ("<answer></answer>", None),
    ],
)
def test_the_answer_shown_is_the_one_that_was_graded(text, answer):
    one = graded(text)
    assert one.answer == answer
    assert one.score == score_answer(one.answer, sample())


def test_each_sample_is_graded_by_its_own_problem_type():
    metrics = compute_metrics(
        [
            graded("<answer>3.50</answer>", problem_type="numerical", answer="3.5", options=()),
            graded("<answer>B</answer>"),
            graded("<answer>9</answer>", problem_type="regression", answer="10", options=()),
        ]
    )
    assert metrics["accuracy"] == pytest.approx((1 + 1 + 0.9) / 3)
    assert metrics["num_correct"] == 2


def test_chance_is_the_mean_over_the_option_lists():
    assert compute_metrics([graded("B"), graded("B", options=OPTIONS[:2])])["chance"] == pytest.approx(
        (1 / 4 + 1 / 2) / 2
    )
    assert compute_metrics([graded("3", problem_type="numerical", answer="3", options=())])["chance"] is None


def test_majority_letter_is_the_most_frequent_usable_gold():
    letters = [graded(None, answer=letter).sample for letter in "ABBC"]
    assert majority_letter(letters) == 2 / 4
    words = sample(answer="green")  # the text of option B
    unusable = sample(answer="E")
    number = sample(problem_type="numerical", answer="3", options=())
    assert majority_letter([*letters, words, unusable, number]) == 3 / 5
    assert majority_letter([number, unusable]) is None


@pytest.mark.parametrize(
    ("duration_s", "name"),
    [
        (0.5, "0-60 s"),
        (60, "1-3 min"),
        (179.9, "1-3 min"),
        (180, "3-10 min"),
        (600, "10-30 min"),
        (1800, "30+ min"),
        (1e5, "30+ min"),
        (None, "unknown"),
    ],
)
def test_duration_buckets(duration_s, name):
    assert duration_bucket(duration_s) == name


def test_durations_come_from_the_prediction_else_from_the_item():
    with_item = graded(None, duration_s=None)
    with_item = replace(with_item, sample=replace(with_item.sample, duration_s=100.0))
    metrics = compute_metrics([graded("B", duration_s=30.0), with_item])
    assert metrics["by_duration"]["1-3 min"]["num_failed"] == 1
    assert metrics["by_duration"]["0-60 s"]["accuracy"] == 1.0
    assert "by_duration" not in compute_metrics([graded("B", duration_s=None)])


def test_lengths_are_characters_where_a_backend_counts_no_tokens():
    metrics = compute_metrics([graded("B", num_tokens=0), graded("It is B.", num_tokens=9)])
    assert metrics["mean_completion_tokens"] is None
    assert metrics["mean_completion_characters"] == 4.5
    silent = compute_metrics([graded("", num_tokens=0), graded("B", num_tokens=4)])
    assert silent["mean_completion_tokens"] == 2.0 and "mean_completion_characters" not in silent


def test_lengths_and_truncation():
    metrics = compute_metrics([graded("B", num_tokens=10), graded("B", num_tokens=31, finished=False)])
    assert metrics["mean_completion_tokens"] == 20.5
    assert metrics["num_truncated"] == 1


def test_figures_by_source():
    metrics = compute_metrics(
        [graded("B", data_source="x"), graded("C", data_source="y"), graded(None, data_source="y"), graded("B")]
    )
    assert {name: figures["accuracy"] for name, figures in metrics["by_source"].items()} == {"x": 1.0, "y": 0.0}
    assert metrics["by_source"]["y"]["num_failed"] == 1
    assert "by_source" not in compute_metrics([graded("B")])


def test_figures_by_category_fall_back_on_the_source():
    def with_category(text: str, category: str, source: str):
        one = graded(text)
        categorized = SimpleNamespace(**{name: getattr(one.sample, name) for name in one.sample.__slots__})
        categorized.category, categorized.data_source = category, source
        return replace(one, sample=categorized)

    metrics = compute_metrics([with_category("B", "Time", "x"), with_category("C", "", "x"), graded("B")])
    assert {name: part["accuracy"] for name, part in metrics["by_category"].items()} == {"Time": 1.0, "x": 0.0}
    assert metrics["by_category"]["Time"]["ci95"] == confidence_interval([1.0])
    assert "by_category" not in compute_metrics([graded("B")])


def test_no_samples_give_no_figures_instead_of_an_error():
    metrics = compute_metrics([])
    assert metrics["num_samples"] == 0
    assert metrics["accuracy"] is None and metrics["ci95"] is None and metrics["miou"] is None


def test_wilson_interval_against_published_values():
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
    for correct, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        bounds = confidence_interval([1.0] * correct + [0.0] * (count - correct))
        assert bounds == pytest.approx([low, high], abs=5e-5)


def test_interval_of_partial_scores():
    assert confidence_interval([0.2, 0.4, 0.6, 0.8]) == pytest.approx([0.0891, 0.9109], abs=1e-3)  # t, 3 degrees
    assert confidence_interval([0.9, 1.0, 0.5])[1] == 1.0
    assert confidence_interval([0.5, 0.5, 0.5]) == [0.5, 0.5]
    assert confidence_interval([0.5]) == [0.0, 1.0]
    assert confidence_interval([]) is None


def test_mean_leaves_out_what_is_missing():
    assert mean([1.0, None, 0.0]) == 0.5
    assert mean([None]) is None


def test_metrics_run_without_torch():
    code = (
        "import sys\n"
        "from video_thinker.evaluation.metrics import *\n"
        "from video_thinker.schema import VideoSample\n"
        "sample = VideoSample('q', '?', 'multiple choice', 'A', ('A. x', 'B. y'))\n"
        "assert compute_metrics([grade(Prediction('q', '<answer>A</answer>'), sample)])['accuracy'] == 1.0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
