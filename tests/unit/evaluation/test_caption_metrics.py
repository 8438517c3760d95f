from __future__ import annotations

import math

import pytest

from video_thinker.evaluation import caption_metrics
from video_thinker.evaluation.caption_metrics import (
    NoSynonyms,
    bleu_1,
    caption_figures,
    match_captions,
    meteor,
    rouge_l,
)
from video_thinker.schema import Segment, TraceBlock


def block(start_s: float, end_s: float, caption: str) -> TraceBlock:
    return TraceBlock(start_s, end_s, caption, "")


class FakeWordNet:
    """Knows that an auto is a car, if its data are there."""

    def __init__(self, *, installed: bool) -> None:
        self.installed = installed

    def ensure_loaded(self) -> None:
        if not self.installed:
            raise LookupError("no data")

    def synsets(self, word: str) -> list:
        lemma = type("Lemma", (), {"name": lambda self: "car"})()
        return [type("Synset", (), {"lemmas": lambda self: [lemma]})()] if word == "auto" else []


@pytest.fixture(params=[True, False], ids=["WordNet", "no WordNet"])
def wordnet(request, monkeypatch):
    fake = FakeWordNet(installed=request.param)
    monkeypatch.setattr("nltk.corpus.wordnet", fake)
    caption_metrics.caption_metrics.cache_clear()
    yield fake
    caption_metrics.caption_metrics.cache_clear()


def test_metrics_by_hand():
    # "red" is the same, "cars" has the stem of "car": 2 of 2 predicted and 2 of 3 gold words, in one chunk.
    predicted, gold = "Red cars!", "a red car"
    assert rouge_l(predicted, gold) == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert bleu_1(predicted, gold) == pytest.approx(1 / 2 * math.exp(1 - 3 / 2))
    mean = (2 / 3) / (0.9 * 1 + 0.1 * 2 / 3)
    assert meteor(predicted, gold, NoSynonyms()) == pytest.approx(mean * (1 - 0.5 * (1 / 2) ** 3))


def test_captions_that_share_nothing_or_are_empty_score_0():
    for predicted in ("", "...", "a dog"):
        assert [rouge_l(predicted, "red car"), bleu_1(predicted, "red car")] == [0.0, 0.0]
        assert meteor(predicted, "red car", NoSynonyms()) == 0.0


def test_words_outside_of_ascii_count():
    assert rouge_l("красный шар", "красный шар") == bleu_1("красный шар", "красный шар") == 1.0


def test_synonyms_count_only_with_wordnet(wordnet):
    gold = (Segment(0, 4, "one car"),)
    figures = caption_figures([([block(0, 4, "one auto")], gold)])
    half = 0.5 * (1 - 0.5)  # one of two words
    assert figures["meteor_no_synonyms"] == pytest.approx(half)
    if wordnet.installed:
        assert figures["meteor"] == pytest.approx(1 - 0.5 * (1 / 2) ** 3)
    else:
        assert "meteor" not in figures


def test_a_gold_caption_meets_that_of_the_best_overlap():
    blocks = [block(0, 2, "early"), block(2, 5, "best"), block(2, 9, "long")]
    segments = [Segment(2, 6, "gold"), Segment(20, 30, "alone"), Segment(0, 2), Segment(0, 2, " . ")]
    assert match_captions(blocks, segments) == [("best", "gold"), ("", "alone")]
    assert match_captions([], segments[:1]) == [("", "gold")]


def test_each_sample_has_equal_weight():
    two_of_two = ([block(0, 1, "red"), block(1, 2, "blue")], (Segment(0, 1, "red"), Segment(1, 2, "blue")))
    one_of_two = ([block(0, 1, "red")], (Segment(0, 1, "red"), Segment(1, 2, "blue")))
    none_of_one = ([], (Segment(0, 1, "red"),))
    no_gold = ([block(0, 1, "red")], (Segment(0, 1),))
    figures = caption_figures([two_of_two, one_of_two, none_of_one, no_gold])
    assert figures["bleu@1"] == figures["rouge_l"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert set(caption_figures([no_gold]).values()) == {None}
