"""An answer against the gold: `Score`. Rewards and evaluation both grade with it. Runs without torch.

One rule per problem type, those of Video-R1 (arXiv 2503.21776, its reward code), so that figures compare. An answer is
read as a person would read it, in the forms models write (`choice.py`, `numbers.py`, `text.py`, `grounding.py`):

| problem type | value |
| --- | --- |
| multiple choice | 1 for the gold option, named alone; else 0 |
| numerical | 1 if equal after rounding to 2 decimals and both or neither figure has a decimal point, else 0 |
| OCR | 1 - word error rate, at least 0 |
| free-form | mean of the ROUGE-1, ROUGE-2 and ROUGE-L F1 with stemming |
| regression | 1 - min(1, abs(answer - gold) / abs(gold)) |
| grounding | temporal IoU of the time spans in the answer with those in the gold (not in Video-R1) |

Where that code would not give the gold itself 1.0, this one does: a free-form gold of one word leaves out ROUGE-2 (it
has no bigram), words outside of ASCII count, and a regression gold of 0 is met by 0 exactly.

Wrong, unanswered and unscorable are three different things, see `Score`. Nothing is equal to an empty answer, not even
an empty gold: that one is unscorable.
"""

from __future__ import annotations

from collections.abc import Callable

from video_thinker.schema import ProblemType, Score, VideoSample
from video_thinker.scoring.choice import extract_choice, score_choice
from video_thinker.scoring.grades import UNANSWERED, UNSCORABLE
from video_thinker.scoring.grounding import score_grounding
from video_thinker.scoring.numbers import parse_number, score_numerical, score_regression
from video_thinker.scoring.options import option_letters, options_are_lettered
from video_thinker.scoring.text import get_rouge_scorer, get_stemmer, score_free_form, score_ocr, split_words
from video_thinker.trace import answer_places, parse_trace

__all__ = [
    "UNANSWERED",
    "UNSCORABLE",
    "extract_choice",
    "get_rouge_scorer",
    "get_stemmer",
    "grade_completion",
    "has_usable_gold",
    "option_letters",
    "options_are_lettered",
    "parse_number",
    "score_answer",
    "score_completion",
    "split_words",
]


def score_answer(answer: str | None, sample: VideoSample) -> Score:
    """Grade one answer, as `trace.extract_answer` found it, by the sample's own problem type.

    Returns:
        value `None` and "unscorable" if the gold cannot be used (empty; not one of the options; not a number);
        0.0 and "unanswered" if there is no answer, or none that the problem type can read; else a value in [0, 1].
    """
    return _GRADERS[sample.problem_type]((answer or "").strip(), sample)


def score_completion(text: str, sample: VideoSample, *, strict: bool = False) -> Score:
    """Grade a whole completion.

    Lenient: by the first of `trace.answer_places` that the problem type can read. Strict: a completion that breaks the
    trace format is unanswered.
    """
    if strict:
        trace = parse_trace(text, strict=True, duration_s=sample.duration_s)
        return score_answer(trace.answer if trace else None, sample)
    return grade_completion(text, sample)[1]


def grade_completion(text: str, sample: VideoSample) -> tuple[str | None, Score]:
    """Grade a whole completion leniently, and return the answer that was graded: `None` if there was none at all."""
    answer, score = None, score_answer(None, sample)
    for place in answer_places(text, is_choice=sample.problem_type == "multiple choice"):
        answer = answer or place.strip() or None
        if score.status == "unscorable":
            break
        found = score_answer(place, sample)
        if found.status != "unanswered":
            return place.strip(), found
    return answer, score


def has_usable_gold(sample: VideoSample) -> bool:
    """Say whether answers can be graded against the sample's gold at all."""
    return score_answer(None, sample).value is not None


_GRADERS: dict[ProblemType, Callable[[str, VideoSample], Score]] = {
    "multiple choice": score_choice,
    "numerical": score_numerical,
    "OCR": score_ocr,
    "free-form": score_free_form,
    "regression": score_regression,
    "grounding": score_grounding,
}
