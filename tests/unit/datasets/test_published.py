from __future__ import annotations

import re

import pytest

from video_thinker.datasets.published import IN_DOMAIN, NUM_ITEMS, OUT_OF_DOMAIN, PUBLISHED, published_table


def test_a_table_by_frames():
    table = published_table()
    assert len(table) == 7
    assert table["Video-Thinker-7B"]["cg_bench_reasoning"] == 33.25
    assert table["Qwen2.5-VL-7B"] == {
        "video_holmes": 34.02, "cg_bench_reasoning": 27.10, "vrbench": 63.42, "activitynet": 70.96, "star": 69.25,
        "scalelong": 40.06, "youcook2": 63.74, "lvbench": 33.33,
    }  # fmt: skip
    assert list(published_table(num_frames=64)) == ["Video-Thinker-7B"]
    assert published_table(num_frames=8) == {}


def test_grounding_and_captioning_tables():
    assert published_table("miou") == {
        "Qwen2.5-VL-7B": {"caption_labelled_1k": 27.47},
        "Video-Thinker-7B": {"caption_labelled_1k": 48.22},
    }
    assert published_table("bleu@1")["Video-R1"] == {"caption_labelled_1k": 7.52}


def test_figures_are_percent_and_there_once():
    assert all(0 < result.value < 100 for result in PUBLISHED)
    keys = [(result.model, result.benchmark, result.metric, result.num_frames) for result in PUBLISHED]
    assert len(set(keys)) == len(keys) == 9 * len(OUT_OF_DOMAIN + IN_DOMAIN) + 6 + 9
    assert {re.fullmatch(r"arXiv \d{4}\.\d{5}", result.source) is not None for result in PUBLISHED} == {True}


@pytest.mark.parametrize("benchmark", NUM_ITEMS)
def test_the_sizes_of_the_test_sets_fit_the_accuracies(benchmark):
    """An accuracy over N questions is a whole number of questions, rounded or cut to the two decimals of the table."""
    accuracies = [result.value for result in PUBLISHED if (result.benchmark, result.metric) == (benchmark, "accuracy")]
    size = NUM_ITEMS[benchmark]
    misfits = [value for value in accuracies if abs(100 * round(value * size / 100) / size - value) > 0.0106]
    assert misfits == ([70.66] if benchmark == "star" else [])
