"""An answer against the gold: `Score`. Rewards and evaluation both grade with it. Runs without torch.

One rule per problem type, those of Video-R1 (arXiv 2503.21776, its reward code), so that figures compare:

| problem type | value |
| --- | --- |
| multiple choice | 1 for the gold option's letter, else 0 |
| numerical | 1 if equal after rounding to 2 decimals and both or neither are written with a decimal point, else 0 |
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

import math
import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from video_thinker.grounding import set_iou
from video_thinker.schema import ProblemType, Score, VideoSample
from video_thinker.trace import (
    extract_answer,
    find_time_ranges,
    has_tags,
    parse_time_range,
    parse_trace,
    untagged_prose,
)

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer

UNSCORABLE = Score(None, "unscorable")
UNANSWERED = Score(0.0, "unanswered")

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"

_OPTION = re.compile(r"\(?([A-Za-z])[.):](?![A-Za-z]\.)\s*(.*)", re.DOTALL)  # "A. milk", not the initials "A.D."
# Meant: B, (B), B., B: milk, B because, B是. Not meant: Banana, A man, A.M., B is wrong.
_LEADING_LETTER = re.compile(
    r"[(\[]?([A-Za-z])(?:$|[)\].:,;、。](?![A-Za-z]\.)"
    rf"|(?<=[A-Z])(?:[{_CJK}]| [-–—=(]| (?:because|since|as|is (?:the )?(?:correct|right|best|answer))\b))"
)
# After a leading letter, another one joined to it: "A, B", "(A) or (B)", "A/B". Not the text of an option: "C, a dog".
_SECOND_LETTER = re.compile(
    r"[)\].:]{0,2} ?(?:(?<=,)|[,/&]|and\b|or\b) ?(?:and |or )?[(\[]?[A-Za-z](?:$|[)\].:,/]| (?:and|or)\b)"
)
_ANSWER_NOUN = r"(?:(?:the|my|correct|right|best|final|most likely) ){0,3}(?:answer|option|choice)"
_ANSWER_PHRASE = re.compile(
    r"^(?:(?:so|thus|hence|therefore|ok|okay),? )?"
    rf"(?:(?:{_ANSWER_NOUN}(?: is| would be)? ?:? ?){{1,2}}|it(?: is|'s) "
    r"|(?:i (?:would |will )?|i'd |i'll )?(?:choose|pick|select|say|go with) (?:option )?"
    r"|(?:正确)?(?:答案|选项|选择|选)(?:应该)?[是为]? ?:? ?)?",
    re.IGNORECASE,
)
# Inside of a longer text only words that state the answer count, not every mention of an option.
_STATED_ANSWER = re.compile(
    rf"\b{_ANSWER_NOUN}[\"'*_]{{0,3}}(?: is\b| would be\b| ?:)[ :]{{0,2}}|(?:答案|选项)(?:应该)?[是为:][ :]{{0,2}}",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\(?:text|mathrm|mathbf|textbf)\{)?([^{}]{1,200})\}")
_NUMBER = re.compile(
    r"[$€£]?([+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)(?: ?%)?\.?"
)
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")  # scripts without spaces count by character


def score_answer(answer: str | None, sample: VideoSample) -> Score:
    """Grade one answer, as `trace.extract_answer` found it, by the sample's own problem type.

    Returns:
        value `None` and "unscorable" if the gold cannot be used (empty; not one of the options; not a number);
        0.0 and "unanswered" if there is no answer, or none that the problem type can read; else a value in [0, 1].
    """
    return _GRADERS[sample.problem_type]((answer or "").strip(), sample)


def score_completion(text: str, sample: VideoSample, *, strict: bool = False) -> Score:
    """Grade a whole completion.

    Lenient: by `extract_answer`. Without such an answer, a completion without any tag is an answer in plain words and
    is graded as a whole; of one with tags, a choice may still be read from the prose outside of them ("B. <time>…").
    Strict: a completion that breaks the trace format is unanswered.
    """
    if strict:
        trace = parse_trace(text, strict=True, duration_s=sample.duration_s)
        return score_answer(trace.answer if trace else None, sample)
    answer = extract_answer(text)
    if answer is None and (sample.problem_type == "multiple choice" or not has_tags(text)):
        answer = untagged_prose(text)
    return score_answer(answer, sample)


def option_letters(options: Sequence[str]) -> dict[str, str]:
    """Map each option's letter to its bare text: `["A. milk", "B. oil"]` -> `{"A": "milk", "B": "oil"}`.

    Options that carry no letters get them by position.
    """
    matches = [_OPTION.fullmatch(option.strip()) for option in options]
    lettered = {match.group(1).upper(): match.group(2).strip() for match in matches if match}
    if len(lettered) == len(options):
        return lettered
    return {letter: option.strip() for letter, option in zip(string.ascii_uppercase, options, strict=False)}


def options_are_lettered(options: Sequence[str]) -> bool:
    """Say whether the options carry their own letters ("A. milk"), so that a letter is a natural answer."""
    return any(text != option.strip() for text, option in zip(option_letters(options).values(), options, strict=False))


def extract_choice(answer: str, options: Sequence[str]) -> str | None:
    """Find the one option letter (upper case) that an answer names, or `None`.

    Read as B: "B", "b", "(B)", "B.", "B. any text", "The answer is B", "B oil" and "oil" if that is the text of option
    B; in a longer text a boxed B, "… so the answer is B …" (the last one counts), and a last line that is only "B".
    A letter inside a word is none, nor is an article ("A man walks"), nor are several letters ("A, B"). The letter
    need not be one of the options: then the answer is wrong, not missing.
    """
    letters = option_letters(options)
    for text in _places_of_a_choice(unicodedata.normalize("NFKC", answer)):
        bare = _ANSWER_PHRASE.sub("", text)
        choice = _letter_of_text(text, letters) or _letter_of_text(bare, letters) or _leading_letter(bare)
        if choice is not None:
            return choice
    return None


def parse_number(text: str) -> float | None:
    """Read "1,200", "-3.5", "$4", "12%", "7." or "2e3" as a float; `None` for anything else, infinities included."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or not any(char.isdigit() for char in match.group(1).partition("e")[0]):
        return None
    number = float(match.group(1).replace(",", ""))
    return number if math.isfinite(number) else None


def _score_choice(answer: str, sample: VideoSample) -> Score:
    gold = extract_choice(sample.answer, sample.options)
    if gold is None or (sample.options and gold not in option_letters(sample.options)):
        return UNSCORABLE
    choice = extract_choice(answer, sample.options)
    return UNANSWERED if choice is None else _graded(float(choice == gold))


def _score_numerical(answer: str, sample: VideoSample) -> Score:
    gold, number = parse_number(sample.answer), parse_number(answer)
    if gold is None:
        return UNSCORABLE
    if number is None:
        return UNANSWERED
    same_kind = _has_decimals(answer) == _has_decimals(sample.answer)
    return _graded(float(same_kind and round(number, 2) == round(gold, 2)))


def _score_regression(answer: str, sample: VideoSample) -> Score:
    gold, number = parse_number(sample.answer), parse_number(answer)
    if gold is None:
        return UNSCORABLE
    if number is None:
        return UNANSWERED
    if gold == 0:
        return _graded(float(number == 0))
    return _graded(1.0 - min(1.0, abs(number - gold) / abs(gold)))


def _score_ocr(answer: str, sample: VideoSample) -> Score:
    if not sample.answer.strip():
        return UNSCORABLE
    if not answer:
        return UNANSWERED
    import jiwer

    return _graded(max(0.0, 1.0 - jiwer.wer(sample.answer, answer)))


def _score_free_form(answer: str, sample: VideoSample) -> Score:
    num_gold_words = len(split_words(sample.answer))
    if num_gold_words == 0:
        return UNSCORABLE
    if not answer:
        return UNANSWERED
    rouges = get_rouge_scorer().score(sample.answer, answer)
    kinds = ["rouge1", "rougeL"] if num_gold_words == 1 else ["rouge1", "rouge2", "rougeL"]
    return _graded(sum(rouges[kind].fmeasure for kind in kinds) / len(kinds))


def _score_grounding(answer: str, sample: VideoSample) -> Score:
    gold = [span for part in sample.answer.split(",") if (span := parse_time_range(part)) and span[0] < span[1]]
    if len(gold) != len(sample.answer.split(",")):
        return UNSCORABLE
    spans = find_time_ranges(answer)
    return _graded(set_iou(spans, gold)) if spans else UNANSWERED


_GRADERS: dict[ProblemType, Callable[[str, VideoSample], Score]] = {
    "multiple choice": _score_choice,
    "numerical": _score_numerical,
    "OCR": _score_ocr,
    "free-form": _score_free_form,
    "regression": _score_regression,
    "grounding": _score_grounding,
}


def _graded(value: float) -> Score:
    return Score(value, "correct" if value == 1.0 else "wrong" if value == 0.0 else "partial")


def _plain(text: str) -> str:
    """Drop markdown, quotes and braces around an answer, and runs of white space inside it."""
    return " ".join(text.replace("**", "").split()).strip("*_`\"'${} ")


def _places_of_a_choice(answer: str) -> Iterator[str]:
    """Cut out where an answer may name its choice, the most telling place first."""
    lines = answer.strip().splitlines()
    if not lines:
        return
    if boxed := _BOXED.findall(answer):
        yield _plain(boxed[-1])
    if stated := list(_STATED_ANSWER.finditer(answer)):
        yield _plain(answer[stated[-1].end() :].lstrip().partition("\n")[0])
    yield _plain(answer)
    yield _plain(lines[0])
    if re.fullmatch(r"[(\[]?[A-Za-z][)\]]?[.]?", last := _plain(lines[-1])):
        yield last


def _letter_of_text(text: str, letters: dict[str, str]) -> str | None:
    if len(text) == 1 and text.upper() in letters:
        return text.upper()
    wanted = _comparable(text)
    found = [letter for letter, option in letters.items() if _comparable(option) == wanted]
    if len(found) == 1 and wanted:
        return found[0]
    letter, _, rest = text.partition(" ")
    if len(letter) == 1 and rest and _comparable(letters.get(letter.upper(), "")) == _comparable(rest):
        return letter.upper()
    return None


def _leading_letter(text: str) -> str | None:
    match = _LEADING_LETTER.match(text)
    if match is None or _SECOND_LETTER.match(text, match.end()):
        return None
    return match.group(1).upper()


def _comparable(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold().strip("'\"").rstrip(".!。")


def _has_decimals(text: str) -> bool:
    return "." in text.strip().removesuffix(".")


def split_words(text: str) -> list[str]:
    """Split a text into its words in lower case, without punctuation; scripts without spaces by character."""
    return _WORD.findall(text.lower())


@cache
def get_stemmer() -> PorterStemmer:
    """Make nltk's Porter stemmer, with a memory: stemming would be most of the time of scoring captions."""
    from nltk.stem.porter import PorterStemmer

    class RememberingStemmer(PorterStemmer):  # type: ignore[misc]
        stem = lru_cache(maxsize=100_000)(PorterStemmer.stem)

    return RememberingStemmer()


@cache
def get_rouge_scorer() -> RougeScorer:
    """Make the scorer of ROUGE-1, ROUGE-2 and ROUGE-L, on stemmed words of any script."""
    from rouge_score import rouge_scorer
    from rouge_score.tokenizers import Tokenizer

    stemmer = get_stemmer()

    class WordTokenizer(Tokenizer):  # type: ignore[misc]
        """rouge-score's own tokens for ASCII text (words over 3 letters are stemmed), and other scripts' words too."""

        def tokenize(self, text: str) -> list[str]:
            return [stemmer.stem(word) if len(word) > 3 else word for word in split_words(text)]

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=WordTokenizer())
