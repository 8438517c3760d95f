"""The options of a multiple-choice sample, and texts that are one option and nothing else."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from video_thinker.scoring.clean import EAST_ASIAN, plain_lines

_OPTION = re.compile(r"\(?([A-Za-z])[.):](?![A-Za-z]\.)\s*(.*)", re.DOTALL)  # "A. milk", not the initials "A.D."

_NUMBERED = re.compile(r"\(?([0-9]{1,2})[.):]\s+(.*)", re.DOTALL)

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

_CJK_ORDINALS = "一二三四五六七八九十"

_ORDINAL = re.compile(
    rf"(?:the )?(?:({'|'.join(_ORDINALS)}|last)|([0-9]{{1,2}})(?:st|nd|rd|th)) (?:option|choice|answer)"
    rf"|第([{_CJK_ORDINALS}0-9])(?:个|项|个选项|个选择|个答案|选项)"
)

_ARTICLE = re.compile(r"\b(?:a|an|the)\s+(?=\w)")

_INITIALS = re.compile(r"\b([a-z])\.([a-z])\b\.?")  # "a.m." is "am"

_SUBJECT = re.compile(
    r"(?:he|she|they|it|(?:a |the )?(?:man|woman|person|people|men|women|boy|girl|child|kid|player|guy"
    r"|lady|individual)) "
)
_LOOSE = re.compile(r"(?<![0-9])[^\w\s+-]|[^\w\s+-](?![0-9])|[-+](?![0-9])|_")
MAX_OPTION_CHARS = 1600  # a longer text is no option


@dataclass(frozen=True)
class Options:
    """The options of a sample, prepared for comparisons."""

    texts: Mapping[str, str]
    lettered: bool
    by_text: tuple[Mapping[str, frozenset[str]], ...]
    pattern: re.Pattern[str] | None
    numbers: Mapping[str, str]


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


@lru_cache(maxsize=4096)
def prepare_options(options: tuple[str, ...]) -> Options:
    """Prepare the options of a sample for comparisons."""
    texts = {letter: plain_lines(text) for letter, text in option_letters(options).items()}
    levels: list[Mapping[str, frozenset[str]]] = []
    for compare in _COMPARISONS:
        found: dict[str, frozenset[str]] = {}
        for letter, text in texts.items():
            if key := compare(text):
                found[key] = found.get(key, frozenset()) | {letter}
        levels.append(found)
    numbered = [_NUMBERED.fullmatch(text) for text in texts.values()]
    numbers = {match.group(1): letter for letter, match in zip(texts, numbered, strict=True) if match}
    if len(numbers) < len(texts):
        numbers = {}
    bare = {match.group(2) for match in numbered if match} if numbers else set()
    for letter, match in zip(texts, numbered, strict=True):
        if numbers and match:
            for level, compare in zip(levels, _COMPARISONS, strict=True):
                if isinstance(level, dict) and (key := compare(match.group(2))):
                    level[key] = level.get(key, frozenset()) | {letter}
    words = sorted({text for text in [*texts.values(), *bare] if text}, key=len, reverse=True)
    pattern = "|".join(r"\s+".join(map(re.escape, text.split())) for text in words)
    return Options(
        texts=texts,
        lettered=options_are_lettered(options),
        by_text=tuple(levels),
        pattern=re.compile(rf"(?<![^\W{EAST_ASIAN}])(?:{pattern})(?![^\W{EAST_ASIAN}])", re.IGNORECASE)
        if words
        else None,
        numbers=numbers,
    )


def _exact(text: str) -> str:
    return " ".join(text.split()).casefold().strip("'\"").rstrip(".!。")


def _loose(text: str) -> str:
    """Without punctuation (but inside of numbers) and articles: "The  Red-car!" is "red car"."""
    bare = _ARTICLE.sub("", _INITIALS.sub(r"\1\2", text.casefold().replace("&", " and ")))
    return " ".join(_LOOSE.sub(" ", bare).split()) or " ".join(text.casefold().split())


def _squeezed(text: str) -> str:
    return _loose(text).replace(" ", "") if not any(char.isdigit() for char in text) else ""


def _without_subject(text: str) -> str:
    """Without who does it: "He opens the door" and "The man opens the door" are both "opens door"."""
    bare = _loose(text)
    predicate = _SUBJECT.sub("", bare, count=1) if _SUBJECT.match(bare) else ""
    return predicate if len(predicate.split()) >= 2 else ""


_COMPARISONS = (_exact, _loose, _squeezed, _without_subject)


def whole_option(text: str, options: Options) -> str | None:
    """Read a text that is one option and nothing else: its text, its letter, or letter and text."""
    bare = text.strip(" \n.,;:!?*_\"'(){}[]<>。")
    is_letter = len(bare) == 1 and bare.isascii() and bare.isalpha()
    if is_letter and options.lettered and (bare.upper() in options.texts or not _letter_of_text(text, options)):
        return bare.upper()
    if letter := _letter_of_text(text, options):
        return letter
    if is_letter:
        return bare.upper()
    numbered = re.fullmatch(r"(?:(?:option|choice|answer|number) ?\(?)?([0-9]{1,2})", bare, re.IGNORECASE)
    if numbered and numbered.group(1) in options.numbers:
        return options.numbers[numbered.group(1)]
    label = re.match(r"[(\[<]?([A-Za-z])(?:[)\]>.:]{1,2}| ?[-]|(?= ))\s*", text)
    if label and label.group(1).upper() in options.texts:
        rest = letters_of_text(text[label.end() :], options)
        if label.group(1).upper() in rest:
            return label.group(1).upper()
    return _ordinal(bare, options)


def _ordinal(text: str, options: Options) -> str | None:
    match = _ORDINAL.fullmatch(text.casefold())
    if match is None or not options.texts:
        return None
    word, digits, cjk = match.groups()
    letters = list(options.texts)
    if word == "last":
        return letters[-1]
    place = _ORDINALS.index(word) + 1 if word else int(digits) if digits else 0
    if cjk:
        place = int(cjk) if cjk.isdigit() else _CJK_ORDINALS.index(cjk) + 1
    return letters[place - 1] if 1 <= place <= len(letters) else None


def letters_of_text(text: str, options: Options) -> frozenset[str]:
    """Give the letters of the options whose text this is, by the strictest comparison that finds any."""
    if len(text) > MAX_OPTION_CHARS:
        return frozenset()
    for compare, found in zip(_COMPARISONS, options.by_text, strict=True):
        key = compare(text)
        if key and key in found:
            return found[key]
    return frozenset()


def _letter_of_text(text: str, options: Options) -> str | None:
    letters = letters_of_text(text, options)
    return next(iter(letters)) if len(letters) == 1 else None
