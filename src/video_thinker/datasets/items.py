"""Items of the benchmarks: options and their gold as official files write them, grounding, captioning."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from video_thinker.data.texts import brief
from video_thinker.datasets.base import Item, Record, as_seconds, as_text
from video_thinker.prompts import CAPTIONING_QUESTION, grounding_question
from video_thinker.scoring import extract_choice

LETTERS = string.ascii_uppercase

# "B. oil" and "(B) oil", not the initials "A.D."
_OWN_LETTER = re.compile(r"[(（]?([A-Za-z])[)）.:．：、](?![A-Za-z]\.)(.*)", re.DOTALL)
_LETTER_AND_TEXT = re.compile(r"[(\[【]?\s*([A-Za-z])\s*[)\]】.:、](?![A-Za-z]\.)\s*(.+)", re.DOTALL)


def read_options(record: Record, values: object, key: str = "options") -> dict[str, str]:
    """Read options by letter, from a list of texts or a JSON object by letter.

    Letters that a list's texts carry ("A. milk", in order) are taken off. Nulls at the end are no options (parquet
    fills up with them), nor are empty texts there, which are noted; an empty one before the last keeps its letter, so
    that the others keep theirs. What is odd is noted, since a letter still says which option is meant.

    Raises:
        DataError: there are none, too many, keys that are no letters, or one that is no text.
    """
    values = _without_nulls(values)
    if isinstance(values, dict):
        options = {_letter_key(record, name, key): _option(record, value, key) for name, value in values.items()}
    elif isinstance(values, list):
        texts = [_option(record, value, key) for value in values]
        if len(texts) > len(LETTERS):
            raise record.error(f"{len(texts)} {key}", f"there are at most {len(LETTERS)}, one for each letter")
        options = dict(zip(LETTERS, _without_own_letters(texts), strict=False))
    else:
        record.get(key, list, "a list of texts")
        raise record.error(f"{key}={brief(values)}", f"{key} is a list of texts, or an object of them by letter")
    options = dict(sorted(options.items()))
    while options and not options[last := max(options)]:
        record.note("empty option", f"{key}: option {last} is empty; it is left out")
        del options[last]
    if not options:
        raise record.error(f"{key}={brief(values)}", "a question has options that are not empty")
    _note_odd_options(record, options, key)
    return options


def _without_nulls(values: object) -> object:
    """Take the nulls off the end of a list, or of an object in the order of its keys."""
    if isinstance(values, dict):
        values = dict(sorted(values.items(), key=lambda item: str(item[0])))
        while values and next(reversed(values.values())) is None:
            values.popitem()
    elif isinstance(values, list):
        values = list(values)
        while values and values[-1] is None:
            values.pop()
    return values


def _without_own_letters(texts: Sequence[str]) -> list[str]:
    """Take the letters off texts that all carry theirs, in order: `["A. milk", "B. oil"]` -> `["milk", "oil"]`."""
    bare = []
    for letter, text in zip(LETTERS, texts, strict=False):
        match = _OWN_LETTER.fullmatch(text)
        if text and (match is None or match.group(1).upper() != letter):
            return list(texts)
        bare.append(match.group(2).strip() if match else "")
    return bare


def _letter_key(record: Record, name: object, key: str) -> str:
    letter = unicodedata.normalize("NFKC", str(name)).strip("() .:").upper()
    if len(letter) != 1 or letter not in LETTERS:
        raise record.error(f"{name!r} among the {key}", "options are named by letters, A, B, C")
    return letter


def _option(record: Record, value: object, key: str) -> str:
    text = "" if value is None else as_text(value)
    if text is None:
        raise record.error(f"{brief(value)} in {key}", f"{key} are texts")
    return text


def _note_odd_options(record: Record, options: Mapping[str, str], key: str) -> None:
    by_text: dict[str, list[str]] = {}
    for letter, text in options.items():
        if text:
            by_text.setdefault(comparable(text), []).append(letter)
        else:
            record.note("empty option", f"{key}: option {letter} is empty; it keeps its letter")
    for letters in by_text.values():
        if len(letters) > 1:
            record.note("equal options", f"{key}: {' and '.join(letters)} are both {brief(options[letters[0]])}")
    if len(options) < 2:
        record.note("one option", f"{key}: there is one option only")
    elif list(options) != list(LETTERS[: len(options)]):
        record.note("letters with gaps", f"{key}: the letters are {', '.join(options)}")


def letter_of(record: Record, key: str, options: Mapping[str, str]) -> str:
    """Return the letter of the option that a field names by its letter: "B", "b", "Ｂ", "(B)", "B. oil".

    Official scorers compare letters: the letter counts, also where the text after it is another option's, or where a
    question has no options at all.

    Raises:
        DataError: there is no gold, or it is none of the options.
    """
    gold = unicodedata.normalize("NFKC", record.text(key))
    letter, text = _stated_letter(gold)
    if letter is None or (options and letter not in options):
        letter, text = extract_choice(gold, rendered(options)), ""
        if letter is not None:
            record.note("answer as text", f"{key}={brief(gold)} is no letter; it is option {letter}")
    if letter is None or (options and letter not in options):
        rule = f"it is one of the options' letters {', '.join(options)}" if options else "it is a letter"
        raise record.error(f"{key}: the answer {brief(gold)}", rule)
    if options:
        note_text(record, key, text, letter, options)
    return letter


def _stated_letter(gold: str) -> tuple[str | None, str]:
    """Read "b", "(B)", "B." as "B", and "B. oil" as "B" and "oil"; `None` if it is neither."""
    bare = gold.strip("()[]【】.:、 ")
    if len(bare) == 1 and bare.upper() in LETTERS:
        return bare.upper(), ""
    match = _LETTER_AND_TEXT.fullmatch(gold)
    return (match.group(1).upper(), match.group(2)) if match else (None, "")


def letter_of_text(record: Record, key: str, options: Mapping[str, str]) -> str:
    """Return the letter of the option that a field names by its text; case and white space do not count.

    Raises:
        DataError: there is no gold, it is none of the options, or it is several that are equal.
    """
    gold = record.text(key)
    found = [letter for letter, text in options.items() if text == gold]
    if not found:
        found = [letter for letter, text in options.items() if comparable(text) == comparable(gold)]
        if len(found) == 1:
            record.note("answer spelt differently", f"{key}={brief(gold)} is option {found[0]}, {options[found[0]]!r}")
    if not found:
        letter, text = _stated_letter(unicodedata.normalize("NFKC", gold))
        if letter is not None and letter in options:
            record.note("answer as letter", f"{key}={brief(gold)} is no option's text; its letter counts")
            note_text(record, key, text, letter, options)
            return letter
    if len(found) != 1:
        raise record.error(
            f"{key}: the answer {brief(gold)} is {len(found)} of the options {brief(dict(options))}",
            "it is exactly one of them",
        )
    return found[0]


def letter_of_index(record: Record, key: str, options: Mapping[str, str]) -> str:
    """Return the letter of the option that a field names by its number from 0.

    Raises:
        DataError: there is no gold, or it is none of the options.
    """
    value = record.get(key, object, f"the number of the right option, from 0 to {len(options) - 1}")
    if isinstance(value, float) and value.is_integer():  # a parquet column with missing values
        value = int(value)
    text = as_text(value) or ""
    if text.upper() in options:
        record.note("answer as letter", f"{key}={brief(value)} is a letter where a number is usual")
        return text.upper()
    if not text.isdecimal() or int(text) >= len(options):
        raise record.error(f"{key}={brief(value)}", f"it is the number of an option, from 0 to {len(options) - 1}")
    return list(options)[int(text)]


def note_text(record: Record, key: str, text: str, letter: str, options: Mapping[str, str]) -> None:
    """Say so where the text beside a gold letter is not that option's: the letter counts."""
    if text and comparable(text) != comparable(options[letter]):
        record.note(
            "letter and text disagree",
            f"{key}: {brief(text)} is not the text of option {letter}, {brief(options[letter])}; the letter counts",
        )


def rendered(options: Mapping[str, str]) -> list[str]:
    """Write options as an item holds them: "A. milk"."""
    return [f"{letter}. {text}".strip() for letter, text in options.items()]


def comparable(text: str) -> str:
    """Write a text so that width, case, white space and a full stop at its end do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold().rstrip(".。")


def multiple_choice(options: Mapping[str, str], letter: str, **fields: Any) -> Item:
    """Make a multiple-choice item of options by letter; without any, the letter alone is graded."""
    return {
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": rendered(options),
        "solution": f"<answer>{letter}</answer>",
        **fields,
    }


def free_form(answer: str, **fields: Any) -> Item:
    """Make an item whose gold is a text in free words."""
    return {"data_type": "video", "problem_type": "free-form", "solution": answer, **fields}


def segment(start_s: object, end_s: object, caption: str = "") -> Item:
    """Write a gold segment; times in milliseconds' precision, since some files hold 172.07999999999998."""
    start, end = (time if as_seconds(time) is None else round(as_seconds(time) or 0.0, 3) for time in (start_s, end_s))
    return {"start_s": start, "end_s": end, "caption": caption.strip()}


def spans(record: Record, key: str) -> Iterable[Item]:
    """Give the gold segments of an optional field that is a list of [start, end]; note what is none."""
    values = record.fields.get(key)
    if not isinstance(values, list) or not values:
        record.note("no times", f"{key}={brief(values)}: no gold segments; it is a list of [start, end]")
        return
    for value in values:
        if isinstance(value, list) and len(value) == 2:
            yield segment(*value)
        else:
            record.note("unusable times", f"{brief(value)} in {key}: not kept; it is a list of [start, end]")


def grounding(record: Record, caption: str, start_s: object, end_s: object, **fields: Any) -> Item:
    """Make an item that asks when something happens; the gold is the span in seconds.

    Raises:
        DataError: the gold is no span.
    """
    gold = segment(start_s, end_s, fields.pop("gold_caption", ""))
    start, end = as_seconds(gold["start_s"]), as_seconds(gold["end_s"])
    if start is None or end is None:
        raise record.error(f"the gold times are {brief([start_s, end_s])}", "they are seconds from 0")
    if start >= end:
        relation = "after" if start > end else "equal to"
        raise record.error(
            f"the gold span has start_s={start} {relation} end_s={end}", "no answer overlaps with such a span"
        )
    return {
        "data_type": "video",
        "problem_type": "grounding",
        "problem": grounding_question(caption),
        "solution": f"{start}-{end}",
        "segments": [gold],
        **fields,
    }


def captioning(segments: Sequence[Item], **fields: Any) -> Item:
    """Make an item that asks what happens; the gold is the captions of the segments, one after the other."""
    return {
        "data_type": "video",
        "problem_type": "free-form",
        "problem": CAPTIONING_QUESTION,
        "solution": " ".join(segment["caption"] for segment in segments if segment["caption"]),
        "segments": list(segments),
        **fields,
    }
