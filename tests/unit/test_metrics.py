from __future__ import annotations

import subprocess
import sys

import pytest

from video_thinker.evaluation.metrics import Prediction, compute_metrics, confidence_interval, grade, mean
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


def test_failed_samples_lower_no_figure():
    good = [graded(trace(), segments=(Segment(2, 4),))] * 2
    with_failures = [*good, *[graded(None, segments=(Segment(2, 4),))] * 2]
    for name in ("accuracy", "format_rate", "miou", "recall@0.5", "mean_completion_tokens", "ci95"):
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
        ("<answer>C</answer><answer>b</answer>", "b"),
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
