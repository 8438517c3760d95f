r"""Formulas without variables: "\frac{1}{2}", "2\sqrt{3}", "10^3".

LaTeX beyond plain fractions goes through math-verify, with bounds that keep it from running long; it has a time limit
of its own only in a main thread, so none is used here.
"""

from __future__ import annotations

import logging
import math
import re
from functools import lru_cache

from video_thinker.scoring.figures import Quantity

_COMMANDS = re.compile(r"\\([A-Za-z]+)")
_MATH_COMMANDS = frozenset(("frac", "dfrac", "tfrac", "sqrt", "pi", "times", "cdot", "div", "left", "right"))
_SIMPLE_FRACTION = re.compile(r"(-? ?[0-9]{0,9}) ?\\[dt]?frac ?(?:\{(-?[0-9]{1,9})\} ?\{([0-9]{1,9})\}|([0-9])([0-9]))")


def read_formula(text: str) -> Quantity | None:
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
