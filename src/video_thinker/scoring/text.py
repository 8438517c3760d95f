"""OCR and free-form answers: word error rate and ROUGE."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from video_thinker.schema import Score, VideoSample
from video_thinker.scoring.clean import CJK, normalize_space
from video_thinker.scoring.grades import UNANSWERED, UNSCORABLE, graded

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer

_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")  # scripts without spaces count by character


def score_ocr(answer: str, sample: VideoSample) -> Score:
    """1 - word error rate, at least 0. White space is white space, texts are compared in NFC, case counts.

    Quotes or markdown around the whole answer cost nothing.
    """
    gold, answer = normalize_space(sample.answer), normalize_space(answer)
    if not gold:
        return UNSCORABLE
    if not answer:
        return UNANSWERED
    import jiwer

    bare = _unwrapped(answer)
    best = max(1.0 - jiwer.wer(gold, text) for text in {answer, bare} if text)
    return graded(max(0.0, best))


def score_free_form(answer: str, sample: VideoSample) -> Score:
    """Mean of the ROUGE-1, ROUGE-2 and ROUGE-L F1 with stemming; a gold of one word leaves out ROUGE-2."""
    gold, answer = normalize_space(sample.answer), normalize_space(answer)
    num_gold_words = len(split_words(gold))
    if num_gold_words == 0:
        return UNSCORABLE
    if not answer:
        return UNANSWERED
    rouges = get_rouge_scorer().score(gold, answer)
    kinds = ["rouge1", "rougeL"] if num_gold_words == 1 else ["rouge1", "rouge2", "rougeL"]
    return graded(sum(rouges[kind].fmeasure for kind in kinds) / len(kinds))


def _unwrapped(answer: str) -> str:
    for left, right in (("**", "**"), ("`", "`"), ('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u300c", "\u300d")):
        if answer.startswith(left) and answer.endswith(right) and len(answer) > len(left) + len(right):
            answer = answer[len(left) : -len(right)].strip()
    return answer


def split_words(text: str) -> list[str]:
    """Split a text into its words in lower case, without punctuation; scripts without spaces by character."""
    return _WORD.findall(text.lower())


@cache
def get_stemmer() -> PorterStemmer:
    """Make nltk's Porter stemmer, with a memory: stemming would be most of the time of scoring captions."""
    from nltk.stem.porter import PorterStemmer

    class RememberingStemmer(PorterStemmer):  # type: ignore[misc]  # nltk has no types
        stem = lru_cache(maxsize=100_000)(PorterStemmer.stem)

    return RememberingStemmer()


@cache
def get_rouge_scorer() -> RougeScorer:
    """Make the scorer of ROUGE-1, ROUGE-2 and ROUGE-L, on stemmed words of any script."""
    from rouge_score import rouge_scorer
    from rouge_score.tokenizers import Tokenizer

    stemmer = get_stemmer()

    class WordTokenizer(Tokenizer):  # type: ignore[misc]  # rouge-score has no types
        """rouge-score's own tokens for ASCII text (words over 3 letters are stemmed), and other scripts' words too."""

        def tokenize(self, text: str) -> list[str]:
            return [stemmer.stem(word) if len(word) > 3 else word for word in split_words(text)]

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=WordTokenizer())
