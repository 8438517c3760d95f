r"""Numbers as models write them: "12", "**12**", "\boxed{12}", "x = 12", "12 cubes", "twelve", "1/2", "50\%", "1.2e3".

A text is read as a number if it names one and only one. "3 or 4", "3-4" and "at least 3" name none; "4:30" is a time.
In a calculation ("2 + 2 = 4") and in a sum ("3 red and 1 blue, so 4 in total") the result counts. LaTeX beyond plain
fractions goes through math-verify, with bounds that keep it from running long; it has a time limit of its own only in
a main thread, so none is used here.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from video_thinker.schema import Score, VideoSample
from video_thinker.scoring.clean import boxed_parts, plain_lines
from video_thinker.scoring.grades import UNANSWERED, UNSCORABLE, graded


def _words(text: str) -> list[str]:
    return text.split()


_MAX_CHARS = 2000  # a longer text names a number only where it states it

_UNITS: dict[str, tuple[str, float]] = {
    name: (dimension, factor)
    for dimension, factor, names in (
        ("length", 1e-3, "mm millimeter millimeters millimetre millimetres 毫米"),
        ("length", 1e-2, "cm centimeter centimeters centimetre centimetres 厘米 公分"),
        ("length", 1.0, "m meter meters metre metres 米 公尺"),
        ("length", 1e3, "km kilometer kilometers kilometre kilometres 公里 千米"),
        ("length", 0.0254, "inch inches"),
        ("length", 0.3048, "ft foot feet 英尺"),
        ("length", 1609.344, "mile miles 英里"),
        ("time", 1e-3, "ms millisecond milliseconds 毫秒"),
        ("time", 1.0, "s sec secs second seconds 秒 秒钟"),
        ("time", 60.0, "min mins minute minutes 分钟 分"),
        ("time", 3600.0, "h hr hrs hour hours 小时 个小时"),
        ("time", 86400.0, "day days 天"),
        ("mass", 1e-3, "g gram grams 克"),
        ("mass", 1.0, "kg kilogram kilograms 千克 公斤"),
        ("percent", 1.0, "% percent 百分"),
    )
    for name in names.split()
}
_HOURS = frozenset(name for name, (_, factor) in _UNITS.items() if factor == 3600.0)
_SCALES = {
    "hundred": 1e2, "thousand": 1e3, "k": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12,
    "百": 1e2, "千": 1e3, "万": 1e4, "百万": 1e6, "亿": 1e8,
}  # fmt: skip
_ONES = _words(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen
    """
)
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_NUMBER_WORDS = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_CJK_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0, "兩": 2}

_FIGURE = re.compile(
    r"(?P<sign>(?<![\w.)])[-+] ?)?"
    r"(?P<int>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?:[ '][0-9]{3})+(?![0-9])"
    r"|[0-9]{1,400})?(?P<frac>\.[0-9]{1,400})?"
    r"(?:[eE](?P<exp>[+-]?[0-9]{1,3})(?![0-9A-Za-z])"
    r"| ?(?:[x×*·⋅]|\\times|\\cdot) ?10 ?(?:\^|\*\*) ?\{?\(?(?P<pow>[+-]?[0-9]{1,3})\)?\}?)?"
)
_ONES_PATTERN, _TENS_PATTERN = "|".join(sorted(_ONES, key=len, reverse=True)), "|".join(_TENS)
_WORDS = re.compile(
    rf"\b(?P<minus>minus |negative )?(?:(?P<tens>{_TENS_PATTERN})(?:[- ](?P<one>{_ONES_PATTERN}))?"
    rf"|(?P<small>{_ONES_PATTERN}))"
    r"(?: (?P<hundred>hundred)(?: (?:and )?(?P<rest_tens>"
    + _TENS_PATTERN
    + r")?[- ]?(?P<rest>"
    + _ONES_PATTERN
    + r")?)?)?\b",
    re.IGNORECASE,
)
_CJK_NUMBER = re.compile(r"[零〇一二三四五六七八九两兩]?[十百]?[零〇一二三四五六七八九]?[十]?[一二三四五六七八九]?")
_SCALE = re.compile(r" ?(hundred|thousand|million|billion|trillion|百万|[百千万亿]|k(?![A-Za-z]))", re.IGNORECASE)
_UNIT = re.compile(
    r"[ -]?(" + "|".join(sorted((re.escape(unit) for unit in _UNITS), key=len, reverse=True)) + r")(?![A-Za-z])",
    re.IGNORECASE,
)
_HEDGE = (
    r"(?:about|approximately|approx\.?|around|roughly|nearly|almost|exactly|only|just|circa|~|≈|≃|约|大约|大概"
    r"|共|一共|总共|共有)"
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
_COMMANDS = re.compile(r"\\([A-Za-z]+)")
_MATH_COMMANDS = frozenset(_words("frac dfrac tfrac sqrt pi times cdot div left right"))
_SIMPLE_FRACTION = re.compile(r"(-? ?[0-9]{0,9}) ?\\[dt]?frac ?(?:\{(-?[0-9]{1,9})\} ?\{([0-9]{1,9})\}|([0-9])([0-9]))")
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


_PHRASES = {
    "none": 0.0, "half": 1 / 2, "a half": 1 / 2, "one half": 1 / 2, "one-half": 1 / 2, "a third": 1 / 3,
    "one third": 1 / 3, "two thirds": 2 / 3, "a quarter": 1 / 4, "one quarter": 1 / 4, "three quarters": 3 / 4,
    "a dozen": 12.0, "one dozen": 12.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number that a text names.

    `unit` is its unit in lower case where it is one that can be converted ("cm", "%"), else "". `is_figure` is true
    for digits with or without a decimal point, for which Video-R1's rule asks whether there is one (`has_point`).
    """

    value: float
    unit: str = ""
    is_figure: bool = False
    has_point: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    quantity: Quantity
    start: int
    end: int


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
    (dimension, factor), (gold_dimension, gold_factor) = _UNITS[number.unit], _UNITS[gold.unit]
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
        values = [_only(content) or _latex(content) for _, _, content in boxes[-2:]]
        if len(boxes) > 1 and values[0] != values[1] and _is_list_gap(text[boxes[-2][1] : boxes[-1][0]]):
            return None
        return values[-1]
    if "\\" in text or "√" in text or "π" in text or "^" in text:
        if (found := _latex(text)) is not None:
            return found
        last = re.split(r"[=≈:]|\bis\b", text[-200:])[-1].strip(" .")
        if "\\" in last and (found := _latex(last)) is not None:
            return found
    if len(text) <= _MAX_CHARS and (found := _only(text)) is not None:
        return found
    return _stated(text)


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


def _latex(text: str) -> Quantity | None:
    r"""Read a formula without variables: "\frac{1}{2}", "2\sqrt{3}", "10^3", "3\pi"."""
    text = text.strip(" .$=≈").rstrip(".")
    if match := _SIMPLE_FRACTION.fullmatch(text):
        whole, above, below, short_above, short_below = match.groups()
        divisor = int(below or short_below)
        if divisor == 0:
            return None
        number = int(whole.replace("-", "").strip() or 0) + int(above or short_above) / divisor
        return Quantity(-number if whole.startswith("-") else number)
    unit = ""
    if text.endswith("%"):
        text, unit = text[:-1].strip(), "%"
    text = text.replace("π", r"\pi ").replace("√", r"\sqrt")
    if not _is_safe_formula(text):
        return None
    value = _evaluate(text)
    return None if value is None else Quantity(value, unit)


def _is_safe_formula(text: str) -> bool:
    """Say whether a formula is short and cannot become large: digits, few commands, small exponents, no variables."""
    if len(text) > 80 or not re.search(r"[0-9]|\\pi", text):
        return False
    if not all(command in _MATH_COMMANDS for command in _COMMANDS.findall(text)):
        return False
    rest = _COMMANDS.sub(" ", text)
    if re.search(r"[^0-9\s.,+\-*/(){}\[\]^]", rest) or re.search(r"\*\*", rest):
        return False
    exponents = re.findall(r"\^ ?(\{[^{}]{0,8}\}|[+-]?[0-9]|.?)", text)
    small = all(re.fullmatch(r"\{? ?[+-]?[0-9]{1,2} ?\}?", exponent) for exponent in exponents)
    digits = re.findall(r"[0-9]+", text)
    has_operator = bool(re.search(r"\\|\^", text))
    return small and len(exponents) <= 3 and all(len(part) <= 12 for part in digits) and has_operator


@lru_cache(maxsize=4096)
def _evaluate(formula: str) -> float | None:
    """Evaluate a formula with math-verify's LaTeX parser; `None` if it is none, or no finite real number."""
    from math_verify import parse
    from math_verify.parser import LatexExtractionConfig

    logging.getLogger("math_verify.parser").setLevel(logging.ERROR)  # it warns that there is no time limit
    try:
        parsed = parse(
            f"${formula}$",
            extraction_config=[LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
        value = float(parsed[0].evalf()) if parsed else math.nan
    except (TypeError, ValueError, ArithmeticError, AttributeError):  # an equation, a set, an interval, zoo
        return None
    return value if math.isfinite(value) else None


def _only(text: str) -> Quantity | None:
    """Read a text that names one number and no other."""
    text = text.rstrip(" .,;:!?。\"')]}").lstrip(" ,;:!?\"'([{")
    found = list(_numbers(text))
    if not found or not all(math.isfinite(one.quantity.value) for one in found):
        return None
    if len(found) > 1 and (compound := _compound(text, found)):
        return compound
    first = found[0]
    # The same number may be said twice, as "4 (four)".
    if any(one.quantity.value != first.quantity.value or one.quantity.unit != first.quantity.unit for one in found[1:]):
        return None
    if any(_NOT_THE_NUMBER.search(text[max(0, one.start - 16) : one.start]) for one in found):
        return None
    if any(_is_part(text, one) for one in found):
        return None
    figures = [one.quantity for one in found if one.quantity.is_figure]
    return figures[0] if figures else first.quantity


def _is_part(text: str, found: _Found) -> bool:
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


def _compound(text: str, found: list[_Found]) -> Quantity | None:
    """Read "1 h 30 min": units of one kind, each smaller than the one before; the result is in the last one's unit."""
    names = [one.quantity.unit for one in found]
    if names[0] in _HOURS:  # "2h30m"
        names = ["min" if name == "m" else name for name in names]
    units = [_UNITS.get(name) for name in names]
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
        if re.search(r"[0-9]", claim) is None and _WORDS.search(claim) is None and _cjk_number(claim) is None:
            continue
        if (found := _only(claim)) is not None:
            return None if _is_contradicted(text, match, found) else found
        if "\\" in claim:
            return _latex(claim)
        return None
    for one in _numbers(text[-300:]):
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


def _numbers(text: str) -> Iterator[_Found]:
    """Find every number in a text, in order."""
    taken = 0
    for match in re.finditer(rf"[0-9]|\.[0-9]|[A-Za-z]+|[{''.join(_CJK_DIGITS)}十百]", text):
        if match.start() < taken:
            continue
        found = _figure(text, match.start()) or _word(text, match) or _cjk_at(text, match)
        if found is not None:
            yield found
            taken = found.end


def _figure(text: str, start: int) -> _Found | None:
    if text[start] not in "0123456789.":
        return None
    at = start
    while at > 0 and text[at - 1] == " " and start - at < 1:
        at -= 1
    has_sign = at > 0 and text[at - 1] in "-+" and (at < 2 or re.match(r"[\w.)]", text[at - 2]) is None)
    match = _FIGURE.match(text, at - 1 if has_sign else start)
    if match is None or (match["int"] is None and match["frac"] is None):
        return None
    whole = re.sub(r"[ ,']", "", match["int"] or "0")
    exponent = match["exp"] or match["pow"]
    try:
        value = float(f"{whole}{match['frac'] or ''}e{exponent or 0}")
    except ValueError:
        return None
    if (match["sign"] or "").startswith("-"):
        value = -value
    end, is_figure = match.end(), exponent is None
    start = match.start()
    if exponent is None and (power := re.compile(r"(?:\^|\*\*)\{?\(?([+-]?[0-9]{1,3})\)?\}?").match(text, end)):
        try:
            value, end, is_figure = value ** int(power.group(1)), power.end(), False
        except (OverflowError, ZeroDivisionError):
            return None
    fraction = re.compile(r"(?: (?P<above>[0-9]{1,9}))? ?/ ?(?P<below>[0-9]{1,9})(?![0-9/.:])").match(text, end)
    if fraction and float(value).is_integer() and int(fraction["below"]) and match["frac"] is None:
        below = int(fraction["below"])
        part = int(fraction["above"]) / below if fraction["above"] else None
        value = value / below if part is None else math.copysign(abs(value) + part, value)
        end, is_figure = fraction.end(), False
    if isinstance(value, complex):
        return None
    return _with_unit(text, value, start, end, is_figure=is_figure, has_point=match["frac"] is not None)


def _word(text: str, match: re.Match[str]) -> _Found | None:
    if match.group()[0].isdigit():
        return None
    words = _WORDS.match(text, match.start())
    if words is None:
        return None
    value = float(
        _NUMBER_WORDS[words["small"].casefold()] if words["small"] else _NUMBER_WORDS[words["tens"].casefold()]
    )
    if words["one"]:
        value += _NUMBER_WORDS[words["one"].casefold()]
    if words["hundred"]:
        value *= 100
        value += sum(_NUMBER_WORDS[words[part].casefold()] for part in ("rest_tens", "rest") if words[part])
    if words.group().casefold() == "one" and _is_pronoun(text, words):
        return None
    return _with_unit(text, -value if words["minus"] else value, words.start(), words.end())


def _is_pronoun(text: str, words: re.Match[str]) -> bool:
    """Say whether "one" stands for a thing: "the red one", "this one", "one of them", "one by one"."""
    before = text[max(0, words.start() - 20) : words.start()]
    return bool(re.search(r"\b(?:the|this|that|which|each|every|no|another|\w+er)(?: \w+)? $", before, re.IGNORECASE))


def _cjk_at(text: str, match: re.Match[str]) -> _Found | None:
    if match.group() not in _CJK_DIGITS and match.group() not in "十百":
        return None
    number = _CJK_NUMBER.match(text, match.start())
    value = _cjk_number(number.group()) if number else None
    if number is None or value is None or re.match(r"[些样般起定直边旁]", text[number.end() : number.end() + 1]):
        return None
    return _with_unit(text, float(value), number.start(), number.end())


def _cjk_number(text: str) -> int | None:
    """Read "十二" as 12, "三百零五" as 305."""
    match = re.search(rf"[{''.join(_CJK_DIGITS)}十百]+", text)
    if match is None:
        return None
    total, digit = 0, None
    for char in match.group():
        if char in _CJK_DIGITS:
            if digit:
                return None
            digit = _CJK_DIGITS[char]
        else:
            total += (1 if digit is None else digit) * (10 if char == "十" else 100)
            digit = None
    return total + (digit or 0)


def _with_unit(
    text: str, value: float, start: int, end: int, *, is_figure: bool = False, has_point: bool = False
) -> _Found | None:
    """Add what follows a number: "2 million", "12 cm", "50%", "4th"."""
    if scale := _SCALE.match(text, end):
        value, end = value * _SCALES[scale.group(1).casefold()], scale.end()
        is_figure = False
    unit = ""
    if match := _UNIT.match(text, end):
        unit, end = match.group(1).casefold(), match.end()
        if not text[match.start()].isspace() and unit in ("m", "s", "h", "g") and text[end : end + 1] == "^":
            unit = ""
    elif ordinal := re.compile(r"(?:st|nd|rd|th)\b").match(text, end):
        end = ordinal.end()
    return _Found(Quantity(value, unit, is_figure, has_point), start, end)
