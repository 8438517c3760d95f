r"""Numbers as models write them: "12", "**12**", "\boxed{12}", "x = 12", "12 cubes", "twelve", "1/2", "50\%", "1.2e3".

A text is read as a number if it names one and only one. "3 or 4", "3-4" and "at least 3" name none; "4:30" is a time.
In a calculation ("2 + 2 = 4") and in a sum ("3 red and 1 blue, so 4 in total") the result counts.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from video_thinker.schema import Score, VideoSample
from video_thinker.scoring.clean import boxed_parts, plain_lines
from video_thinker.scoring.figures import (
    HOURS,
    NUMBER_WORDS_PATTERN,
    UNITS,
    FoundQuantity,
    Quantity,
    cjk_number,
    count_in_words,
    find_numbers,
)
from video_thinker.scoring.formulas import read_formula
from video_thinker.scoring.grades import UNANSWERED, UNSCORABLE, graded

_MAX_CHARS = 2000  # a longer text names a number only where it states it
_HEDGE = (
    r"(?:about|approximately|approx\.?|around|roughly|nearly|almost|exactly|only|just|circa|~|≈|≃|约|共|大[约概]|[一总]共"
    r"|共有)"
)
# More or less than the number, or none of it; a part of a number; not the number.
_NOT_THE_NUMBER = re.compile(
    r"(?:\b(?:not|n't|never|at least|at most|more than|less than|fewer than|greater than|over|under|above|below"
    r"|up to|between"
    r"|isn't|aren't|without|either|no more than|no less than)|n't|[<>≤≥]|不是|不|至少|最多|超过|少于|大于|小于"
    r"|不到|多于)\s*(?:the |about )?$",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"(?:\b(?:answer|result|total|count|sum|value|number)s?\b[^\n.:=0-9]{0,40}?(?:\bis\b|\bare\b|\bequals\b|:|=)"
    r"|\b(?:so|thus|hence|therefore)\b,?|\bin total,?|\ba total of\b|\btotal of\b|=|≈|\bequals\b|(?:答案|结果"
    r"|总数|数量|总共|一共|共)(?:应该)?(?:是|为|有|:)*)"
    r"\s*:?\s*",
    re.IGNORECASE,
)
_IN_TOTAL = re.compile(r"\s*(?:\w+\s){0,3}(?:in total|altogether|overall|in all)\b", re.IGNORECASE)
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_PHRASES = {
    "none": 0.0, "half": 1 / 2, "a half": 1 / 2, "one half": 1 / 2, "one-half": 1 / 2, "a third": 1 / 3,
    "one third": 1 / 3, "two thirds": 2 / 3, "a quarter": 1 / 4, "one quarter": 1 / 4, "three quarters": 3 / 4,
    "a dozen": 12.0, "one dozen": 12.0, "a hundred": 100.0, "a thousand": 1000.0, "a million": 1e6,
}  # fmt: skip


def parse_number(text: str) -> float | None:
    """Read the one number that a text names: "1,200", "-3.5", "$4", "12%", "4 cubes", "x = 4", "four", "1/2", "2e3".

    `None` if it names none ("many", "nan", "4:30"), or several ("3 or 4", "3-4").
    """
    quantity = read_quantity(text)
    return None if quantity is None else quantity.value


def score_numerical(answer: str, sample: VideoSample) -> Score:
    """1 if the numbers are equal (`same_number`), else 0."""
    gold, number = read_quantity(sample.answer), read_quantity(answer)
    if gold is None:
        return UNSCORABLE
    return UNANSWERED if number is None else graded(float(same_number(number, gold)))


def score_regression(answer: str, sample: VideoSample) -> Score:
    """1 - relative error, at least 0; a gold of 0 is met by 0 only."""
    gold, number = read_quantity(sample.answer), read_quantity(answer)
    if gold is None:
        return UNSCORABLE
    if number is None:
        return UNANSWERED
    value = _in_unit_of(number, gold)
    if value is None:
        return graded(0.0)
    if gold.value == 0:
        return graded(float(value == 0))
    return graded(1.0 - min(1.0, abs(value - gold.value) / abs(gold.value)))


def same_number(number: Quantity, gold: Quantity) -> bool:
    """Say whether an answer's number is the gold's.

    Video-R1's rule: equal after rounding to 2 decimals, and both or neither written with a decimal point. It is about
    figures; words, fractions, powers and other units than the gold's are compared by value. Numbers that round to 0
    must agree in two significant digits, so that 0.0 does not meet 0.001.
    """
    value = _in_unit_of(number, gold)
    if value is None:
        return False
    if value == number.value and number.is_figure and gold.is_figure and number.has_point != gold.has_point:
        return False
    if round(value, 2) == round(gold.value, 2):
        if round(value, 2) != 0 or value == gold.value:
            return True
        return math.isclose(value, gold.value, rel_tol=0.05)
    return value != number.value and math.isclose(value, gold.value, rel_tol=1e-6)


def is_same_quantity(number: Quantity, other: Quantity) -> bool:
    """Say whether two numbers are exactly the same, in the other's unit where both have one."""
    value = _in_unit_of(number, other)
    return value is not None and math.isclose(value, other.value, rel_tol=1e-9)


def _in_unit_of(number: Quantity, gold: Quantity) -> float | None:
    """Express a number in the gold's unit; `None` if it is of another kind (seconds for meters).

    A percentage meets a bare gold by its figure (50% and 50), or by its value where the gold is a part of 1 (0.5).
    """
    if number.unit == gold.unit or (not number.unit and gold.unit not in ("%", "percent")):
        return number.value
    percent = ("%", "percent")
    if number.unit in percent and gold.unit in percent:
        return number.value
    if number.unit in percent and not gold.unit:
        is_part = 0 < abs(gold.value) < 1 and abs(number.value / 100 - gold.value) < abs(number.value - gold.value)
        return number.value / 100 if is_part else number.value
    if gold.unit in percent and not number.unit:
        is_part = abs(number.value) <= 1 < abs(gold.value) and not float(number.value).is_integer()
        return number.value * 100 if is_part else number.value
    if not gold.unit:
        return number.value
    (dimension, factor), (gold_dimension, gold_factor) = UNITS[number.unit], UNITS[gold.unit]
    return number.value * factor / gold_factor if dimension == gold_dimension else None


@lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    """Read the one number that a text names, with its unit; `None` if it names none or several."""
    text = _plain(text)
    if not text:
        return None
    if (value := _PHRASES.get(text.rstrip(".!").casefold())) is not None:
        return Quantity(value)
    if boxes := boxed_parts(text):
        values = [_only(content) or read_formula(content) for _, _, content in boxes[-2:]]
        if len(boxes) > 1 and values[0] != values[1] and _is_list_gap(text[boxes[-2][1] : boxes[-1][0]]):
            return None
        return values[-1]
    if "\\" in text or "√" in text or "π" in text or "^" in text:
        if (found := read_formula(text)) is not None:
            return found
        last = re.split(r"[=≈:]|\bis\b", text[-200:])[-1].strip(" .")
        if "\\" in last and (found := read_formula(last)) is not None:
            return found
    if len(text) <= _MAX_CHARS and (found := _only(text)) is not None:
        return found
    return _stated(text) or count_in_words(text.rstrip(" .!"))


def _is_list_gap(gap: str) -> bool:
    """Say whether numbers with this text between them are listed side by side."""
    return re.fullmatch(r"[\s,;/&$|]*(?:(?:and|or|和|或)[\s$]*)?", gap) is not None


def _plain(text: str) -> str:
    for char, fraction in _VULGAR.items():
        if char in text:
            text = text.replace(char, f" {fraction} ")
    text = re.sub(
        r"(?<=[0-9a-z)])([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]{1,4})", lambda match: "^" + match.group().translate(_SUPERSCRIPTS), text
    )
    text = re.sub(r"(?<![0-9\w])[\u2013\u2014] ?(?=[0-9])", "-", text)
    text = re.sub(r"(?<=[0-9 ])(mm|cm|km|m|ft|in|inch|s)(?:\^\{?-?[23]\}?|\*\*[23])(?![0-9])", r"square \1", text)
    text = re.sub(r"^\s*- (?=[0-9][0-9.,]*\s*$)", "-", text)
    text = re.sub(r"(?<=[0-9])\*\*(?=[-+0-9(])", "^", text)
    text = re.sub(r"\bsqrt ?\(([^()]{1,20})\)", r"\\sqrt{\1}", text)
    text = re.sub(r"^\s*>\s*(?=[0-9])", "more than ", text)
    text = re.sub(r"\b(?:minus|negative) (?=[0-9])", "-", text)
    text = text.replace("\\$", "$").replace("{,}", ",").replace("\\%", "%").replace("°", " °")
    text = re.sub(r"(?<=[0-9])\\[,!:; ](?=[0-9]{3})", ",", text)
    text = plain_lines(re.sub(r"\$(?=\s?[0-9][0-9,.]{0,30}(?![0-9,.$\\]|\s*\$))", " ", text))
    text = re.sub(r"\\(?:approx|simeq|sim)\b", "≈", text)
    text = re.sub(r"(?<=[0-9]) ?\\(?:deg|degree|circ)\b|\^\{?\\circ\}?", " ", text)
    return text.strip().strip("*_`\"'")


def _only(text: str) -> Quantity | None:
    """Read a text that names one number and no other."""
    text = _main_clause(text).rstrip(" .,;:!?。\"')]}").lstrip(" ,;:!?\"'([{")
    found = list(find_numbers(text))
    if not found or not all(math.isfinite(one.quantity.value) for one in found):
        return None
    if len(found) > 1 and (compound := _compound(text, found)):
        return compound
    if len(found) > 1:
        found = _without_others(text, found)
    first = found[0]
    # The same number may be said twice, as "4 (four)".
    if any(one.quantity.value != first.quantity.value or one.quantity.unit != first.quantity.unit for one in found[1:]):
        return None
    if any(_NOT_THE_NUMBER.search(text[max(0, one.start - 16) : one.start]) for one in found):
        return None
    if any(_is_part(text, one) or _OR_MORE.match(text, one.end) for one in found):
        return None
    figures = [one.quantity for one in found if one.quantity.is_figure]
    return figures[0] if figures else first.quantity


_OR_MORE = re.compile(r" ?(?:[a-z]+ ){0,2}(?:or|and) (?:more|less|fewer|above|below|higher|lower|greater|up)\b", re.I)
_REJECTED = re.compile(
    r"(?:\b(?:not|rather than|instead of|isn't|aren't|neither|nor)|不是|而非) (?:just |only )?\Z"
    r"|(?:不是|而非)\Z",
    re.IGNORECASE,
)
_CORRECTED = re.compile(r"\b(?:no,|wait|actually|sorry|i mean|correction)|不对|[,.\u2026-] ?no \Z", re.IGNORECASE)
_PLACE = re.compile(
    r"(?:\b(?:frames?|scenes?|clips?|videos?|shots?|steps?|images?|questions?|options?)|第) ?(?:no\.? ?|number |#)?\Z",
    re.IGNORECASE,
)


def _without_others(text: str, found: list[FoundQuantity]) -> list[FoundQuantity]:
    """Drop numbers that are not the answer: corrected ("3, no, 4"), rejected ("4, not 5"), places ("in frame 3")."""
    for index in range(len(found) - 1, 0, -1):
        if _CORRECTED.search(text[found[index - 1].end : found[index].start]):
            found = found[index:]
            break
    kept: list[FoundQuantity] = []
    rejects, end = False, 0
    for one in found:
        before = text[max(end, one.start - 24) : one.start]
        rejects = bool(_REJECTED.search(before)) or (rejects and re.search(r"but|而是|;|\.", before) is None)
        if not rejects and not _PLACE.search(before):
            kept.append(one)
        end = one.end
    return kept or found


_PARTS = re.compile(r"\(([^()\n]{3,80})\)")
_OUT_OF = re.compile(r"(?<=[0-9a-z]) (?:out of|of) (?:the |all |a total of )?[0-9]{1,6}(?![0-9.:,/]\d)", re.IGNORECASE)
_AT_CLOCK = re.compile(
    r"\b(?:at|around|by|from|to|until|after|before) (?:about )?[0-9]{1,2}(?::[0-5][0-9]){1,2}(?![0-9:])",
    re.IGNORECASE,
)


def _main_clause(text: str) -> str:
    """Leave out what only belongs to the number: "4 (out of 10)", "4 cubes (2 red, 2 blue)", "4 people at 0:12"."""
    shorter = _AT_CLOCK.sub(" ", _OUT_OF.sub(" ", text))
    for part in list(_PARTS.finditer(shorter))[:3]:
        values = [one.quantity.value for one in find_numbers(part.group(1))]
        before = [one.quantity.value for one in find_numbers(shorter[: part.start()])]
        if len(values) > 1 and before and math.isclose(sum(values), before[-1]):
            shorter = shorter.replace(part.group(), " ", 1)
    return shorter if re.search(r"[0-9]", shorter) or NUMBER_WORDS_PATTERN.search(shorter) else text


def _is_part(text: str, found: FoundQuantity) -> bool:
    """Say whether a number is a part of a time, a date, a range, a name or a version: "4:30", "3-", "B12", "1.2.3"."""
    before, after = text[max(0, found.start - 2) : found.start], text[found.end : found.end + 2]
    if re.match(r" ?(?:[ap]\.?m\b|o'clock)", text[found.end : found.end + 9], re.IGNORECASE):
        return True
    return bool(
        re.search(
            r"[0-9][:/.,-]$|[A-Za-z_]$|[:/]$|[A-Za-z]-$|\.$|-$", before.rstrip() if before.endswith(": ") else before
        )
        and not before.endswith((": ", ". "))
        or re.match(r"[:/.,-][0-9]|\+|[-–—~]\s?$", after)
    )


def _compound(text: str, found: list[FoundQuantity]) -> Quantity | None:
    """Read "1 h 30 min": units of one kind, each smaller than the one before; the result is in the last one's unit."""
    names = [one.quantity.unit for one in found]
    if names[0] in HOURS:  # "2h30m"
        names = ["min" if name == "m" else name for name in names]
    units = [UNITS.get(name) for name in names]
    if any(unit is None or unit[0] not in ("length", "time", "mass") for unit in units):
        return None
    known = [unit for unit in units if unit is not None]
    if len({dimension for dimension, _ in known}) > 1 or any(
        a[1] <= b[1] for a, b in zip(known, known[1:], strict=False)
    ):
        return None
    gaps = [text[a.end : b.start] for a, b in zip(found, found[1:], strict=False)]
    if any(re.fullmatch(r"\s*(?:,|and|,\s*and|零|又)?\s*", gap) is None for gap in gaps):
        return None
    total = sum(one.quantity.value * factor for one, (_, factor) in zip(found, known, strict=True))
    return Quantity(total / known[-1][1], names[-1])


def _stated(text: str) -> Quantity | None:
    """Read the number in the last words that state a result: "the answer is 4", "2 + 2 = 4", "so 4 in total"."""
    for match in reversed(list(_STATED.finditer(text))[-20:]):
        before = text[max(0, match.start() - 40) : match.start()]
        if match.group().startswith("=") and re.search(r"[0-9].*(?:\bor|\band|,)\s*\(?[A-Za-z]?\s*$", before):
            return None  # "x = 3 or x = 4"
        if re.search(r"\b(?:not|n't)\s*$", before):
            continue
        claim = re.split(r"(?<![0-9])[.;!?。\n]|[.;!?](?:\s|$)|\n", text[match.end() : match.end() + 200], maxsplit=1)[
            0
        ]
        claim = re.split(r"\b(?:because|since|as)\b|因为", claim, maxsplit=1)[0]
        if (
            re.search(r"[0-9]", claim) is None
            and NUMBER_WORDS_PATTERN.search(claim) is None
            and cjk_number(claim) is None
        ):
            continue
        if (found := _only(claim)) is not None:
            return None if _is_contradicted(text, match, found) else found
        if "\\" in claim:
            return read_formula(claim)
        return None
    for one in find_numbers(text[-300:]):
        if _IN_TOTAL.match(text[-300:], one.end) and math.isfinite(one.quantity.value):
            return one.quantity
    return _last_line(text)


def _is_contradicted(text: str, statement: re.Match[str], found: Quantity) -> bool:
    r"""Say whether the line before states another answer in the same words: "Answer: 3\nAnswer: 4"."""
    lines = text[: statement.start()].rstrip().splitlines()
    words = statement.group().strip().casefold()
    if not lines or not lines[-1].strip().casefold().startswith(words) or not words.startswith("answer"):
        return False
    other = _only(lines[-1].strip()[len(words) :])
    return other is not None and other.value != found.value


def _last_line(text: str) -> Quantity | None:
    """Read a last line that is a number and nothing else, below lines of prose."""
    *others, last = text.splitlines() or [""]
    bare = re.compile(rf"\s*(?:{_HEDGE} ?)?-?[0-9][0-9.,/ %]{{0,30}}")
    if not others or bare.fullmatch(last) is None or any(bare.fullmatch(line) for line in others):
        return None
    return _only(last)
