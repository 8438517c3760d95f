"""Every number in a text, with its unit: figures, fractions, powers, English and Chinese number words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass


def _words(text: str) -> list[str]:
    return text.split()


UNITS: dict[str, tuple[str, float]] = {
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
HOURS = frozenset(name for name, (_, factor) in UNITS.items() if factor == 3600.0)
_SCALES = {
    "hundred": 1e2, "dozen": 12.0, "thousand": 1e3, "k": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12,
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
    r"|[0-9]{1,400})?(?P<frac>\.[0-9]{1,400}|(?<=[0-9]),[0-9]{1,2}(?![0-9,]))?"  # "2,5" is 2.5, "1,200" is 1200
    r"(?:[eE](?P<exp>[+-]?[0-9]{1,3})(?![0-9A-Za-z])"
    r"| ?(?:[x×*·⋅]|\\times|\\cdot) ?10 ?(?:\^|\*\*) ?\{?\(?(?P<pow>[+-]?[0-9]{1,3})\)?\}?)?"
)
_ONES_PATTERN, _TENS_PATTERN = "|".join(sorted(_ONES, key=len, reverse=True)), "|".join(_TENS)
NUMBER_WORDS_PATTERN = re.compile(
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
_SCALE = re.compile(r" ?(hundred|dozen|thousand|million|billion|trillion|百万|[百千万亿]|k(?![A-Za-z]))", re.IGNORECASE)
_WORDS_GO_ON = re.compile(r" (?:and )?(?=[A-Za-z])")  # "one thousand two hundred"
_UNIT = re.compile(
    r"[ -]?(" + "|".join(sorted((re.escape(unit) for unit in UNITS), key=len, reverse=True)) + r")(?![A-Za-z])",
    re.IGNORECASE,
)


_TIMES_WORDS = {"once": 1.0, "twice": 2.0, "thrice": 3.0}
_TIMES_WORD = re.compile(r"(?<!at )(?<!not )(?<!than )(?<!least )(?<!most )\b(once|twice|thrice)\Z", re.IGNORECASE)
_THERE_ARE_NONE = re.compile(
    r"there (?:are|were) no (?!clue|answer|number|option|indication|detail)(?:[a-z]+ ){0,3}"
    r"(?:[a-z]+s|people|men|women|children)(?: (?:in|on|at|shown|visible|present)\b[a-z ]{0,40})?",
    re.IGNORECASE,
)


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
class FoundQuantity:
    """A quantity and where it stands in the text."""

    quantity: Quantity
    start: int
    end: int


def find_numbers(text: str) -> Iterator[FoundQuantity]:
    """Find every number in a text, in order."""
    taken = 0
    for match in re.finditer(rf"[0-9]|\.[0-9]|[A-Za-z]+|[{''.join(_CJK_DIGITS)}十百]", text):
        if match.start() < taken:
            continue
        found = _figure(text, match.start()) or _word(text, match.start()) or _cjk_at(text, match)
        if found is not None:
            yield found
            taken = found.end


def count_in_words(text: str) -> Quantity | None:
    """Read a short sentence that counts without a number: "He does it twice", "There are no cubes"."""
    if len(text) > 200 or next(find_numbers(text), None) is not None:
        return None
    if _THERE_ARE_NONE.fullmatch(text):
        return Quantity(0.0)
    word = _TIMES_WORD.search(text)
    return None if word is None else Quantity(_TIMES_WORDS[word.group(1).casefold()])


def _figure(text: str, start: int) -> FoundQuantity | None:
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
        value = float(f"{whole}{(match['frac'] or '').replace(',', '.')}e{exponent or 0}")
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


def _word(text: str, start: int) -> FoundQuantity | None:
    if text[start].isdigit():
        return None
    words = NUMBER_WORDS_PATTERN.match(text, start)
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
    found = _with_unit(text, -value if words["minus"] else value, words.start(), words.end())
    return found and _with_lower_part(text, found)


def _with_lower_part(text: str, found: FoundQuantity) -> FoundQuantity:
    """Add what follows a scale in words: the "two hundred" of "one thousand two hundred"."""
    value = abs(found.quantity.value)
    scale = next((scale for scale in (1e9, 1e6, 1e3) if value and value % scale == 0), None)
    gap = _WORDS_GO_ON.match(text, found.end)
    if scale is None or gap is None or found.quantity.unit:
        return found
    rest = _word(text, gap.end())
    if rest is None or not 0 < rest.quantity.value < scale:
        return found
    total = math.copysign(value + rest.quantity.value, found.quantity.value)
    return FoundQuantity(Quantity(total, rest.quantity.unit), found.start, rest.end)


def _is_pronoun(text: str, words: re.Match[str]) -> bool:
    """Say whether "one" stands for a thing: "the red one", "this one", "one of them", "one by one"."""
    before = text[max(0, words.start() - 20) : words.start()]
    return bool(re.search(r"\b(?:the|this|that|which|each|every|no|another|\w+er)(?: \w+)? $", before, re.IGNORECASE))


def _cjk_at(text: str, match: re.Match[str]) -> FoundQuantity | None:
    if match.group() not in _CJK_DIGITS and match.group() not in "十百":
        return None
    number = _CJK_NUMBER.match(text, match.start())
    value = cjk_number(number.group()) if number else None
    if number is None or value is None or re.match(r"[些样般起定直边旁]", text[number.end() : number.end() + 1]):
        return None
    return _with_unit(text, float(value), number.start(), number.end())


def cjk_number(text: str) -> int | None:
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
) -> FoundQuantity | None:
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
    return FoundQuantity(Quantity(value, unit, is_figure, has_point), start, end)
