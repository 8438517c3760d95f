"""How well the captions of a trace say what the gold captions say: METEOR, ROUGE-L, BLEU@1. Runs without torch.

The published definition is not known beyond the names, so this is ours: each gold segment that has a caption takes the
predicted block with the best temporal IoU (the first of equals), as in mIoU, and the two captions are compared. A gold
segment that no block overlaps scores 0, so that a model gains nothing by staying silent. A sample's score is the mean
over its gold captions, a split's the mean over its samples. Words are those of `scoring.split_words`.

| figure | what it is |
| --- | --- |
| `rouge_l` | F1 of the longest common subsequence, on stemmed words (rouge-score) |
| `bleu@1` | precision of single words with the brevity penalty, per caption, without smoothing (nltk) |
| `meteor_no_synonyms` | METEOR with the stages exact and stem only (nltk, its default weights) |
| `meteor` | METEOR with synonyms, too; only there where nltk finds the WordNet data |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from video_thinker.grounding import temporal_iou
from video_thinker.schema import Segment, TraceBlock
from video_thinker.scoring import get_rouge_scorer, get_stemmer, split_words

CaptionMetric = Callable[[str, str], float]
"""(predicted caption, gold caption) -> score in [0, 1]."""


class NoSynonyms:
    """Stands in for nltk's WordNet reader where METEOR is to match words and stems only: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        """Return the synonym sets of a word: none."""
        return []


def caption_figures(
    samples: Sequence[tuple[Sequence[TraceBlock], Sequence[Segment]]],
) -> dict[str, float | None]:
    """Compute the caption figures of (predicted blocks, gold segments) pairs; `None` if no gold has a caption."""
    pairs = [found for blocks, segments in samples if (found := match_captions(blocks, segments))]
    if not pairs:
        return dict.fromkeys(("rouge_l", "bleu@1", "meteor_no_synonyms"))
    return {
        name: sum(sum(score(*pair) for pair in sample) / len(sample) for sample in pairs) / len(pairs)
        for name, score in caption_metrics().items()
    }


def match_captions(blocks: Sequence[TraceBlock], segments: Sequence[Segment]) -> list[tuple[str, str]]:
    """Pair each gold caption with that of the block that meets its segment best, "" if none overlaps it."""
    pairs = []
    for segment in segments:
        if not split_words(segment.caption):
            continue
        best = max(blocks, key=lambda block: temporal_iou(block, segment), default=None)
        overlaps = best is not None and temporal_iou(best, segment) > 0
        pairs.append((best.caption if best is not None and overlaps else "", segment.caption))
    return pairs


@cache
def caption_metrics() -> dict[str, CaptionMetric]:
    """List the metrics that can be computed here, by name; `meteor` needs nltk's WordNet data."""
    from nltk.corpus import wordnet

    metrics: dict[str, CaptionMetric] = {
        "rouge_l": rouge_l,
        "bleu@1": bleu_1,
        "meteor_no_synonyms": lambda predicted, gold: meteor(predicted, gold, NoSynonyms()),
    }
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return metrics
    return {**metrics, "meteor": lambda predicted, gold: meteor(predicted, gold, wordnet)}


def rouge_l(predicted: str, gold: str) -> float:
    """F1 of the longest common subsequence of stemmed words."""
    return float(get_rouge_scorer().score(gold, predicted)["rougeL"].fmeasure)


def bleu_1(predicted: str, gold: str) -> float:
    """Share of the predicted words that are in the gold, each as often as there, times the brevity penalty."""
    from nltk.translate.bleu_score import sentence_bleu

    words = split_words(predicted)
    return float(sentence_bleu([split_words(gold)], words, weights=(1.0,))) if words else 0.0


def meteor(predicted: str, gold: str, wordnet: Any) -> float:
    """METEOR (Lavie and Agarwal, 2007) with nltk's weights: alpha 0.9, beta 3, gamma 0.5; `wordnet` gives synonyms."""
    from nltk.translate.meteor_score import single_meteor_score

    words = split_words(gold), split_words(predicted)
    return float(single_meteor_score(*words, stemmer=get_stemmer(), wordnet=wordnet))
