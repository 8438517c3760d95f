"""Multiple choice: which one option does a text name?

A text names an option by its letter in the form of a label ("B", "(b)", "B.", "option B"), by its text ("oil"), or by
both ("B. oil"). Naming two different options is no choice, in whatever form. Options that are ruled out ("not A",
"A is wrong") are not named, and neither is one that only occurs in an explanation ("B, because A is wrong").
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from video_thinker.schema import Score, VideoSample
from video_thinker.scoring.clean import CJK, boxed_parts, plain_lines
from video_thinker.scoring.grades import UNANSWERED, UNSCORABLE, graded

_OPTION = re.compile(r"\(?([A-Za-z])[.):](?![A-Za-z]\.)\s*(.*)", re.DOTALL)  # "A. milk", not the initials "A.D."
_NUMBERED = re.compile(r"\(?([0-9]{1,2})[.):]\s+(.*)", re.DOTALL)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_CJK_ORDINALS = "一二三四五六七八九十"
_ORDINAL = re.compile(
    rf"(?:the )?(?:({'|'.join(_ORDINALS)}|last)|([0-9]{{1,2}})(?:st|nd|rd|th)) (?:option|choice|answer)"
    rf"|第([{_CJK_ORDINALS}0-9])(?:个|项|个选项|个选择|个答案|选项)"
)
_FEW_WORDS = 40  # of a text in which a long option's words may stand anywhere
_LONG_OPTION_WORDS = 3

_NOUN = r"(?:answers?|options?|choices?|selections?|ans)"
_ADVERB = r"(?:(?:clearly|therefore|thus|probably|most likely|likely|definitely|indeed|either|both|simply|just|obviously)[ ,]{1,2})?"
# Words after which the text states its answer.
_STATED = re.compile(
    rf"\b{_NOUN}[\"'*_ )]{{0,4}}(?:(?:to|for) (?:the|this) (?:question|problem)[ ,]{{0,2}})?"
    r"(?:(?:is|are|was|be|would be|should be|must be|will be|has to be|seems to be|appears to be|=|:|->|\u2192)"
    r"(?!\w)[\"'*_\s]{0,4}){1,2}" + _ADVERB + r"(?:option |choice |letter )?"
    r"|\b(?:choose|pick|select|go with|going with|go for|going for|opt for|vote for|settle on|settle for|choosing|picking"
    r"|selecting|chose|picked|selected|say|guess|choice of) (?:option |choice |letter |answer )?:? ?"
    r"|(?:答案|选项|正解|選項)(?:应该|应当|应|應該)?(?:是|为|為|选|:)[ :是为]{0,3}"
    r"|(?<![不没勿可])(?:应|故|就|我|该)?(?:选择?|選擇?)(?:项|的是|了)?[ :是为]{0,3}",
    re.IGNORECASE,
)
# "So B", "it's B": states the answer where nothing follows.
_CONCLUDED = re.compile(
    r"(?:\b(?:so|thus|hence|therefore|consequently|but|it's|it is|it must be|that's|that is|must be|should be|leaving"
    r"|leaves|remains)\b|所以|因此|故|因而|就是|应该是)[ ,:]{0,3}",
    re.IGNORECASE,
)
_CORRECTED = re.compile(
    r"\b(?:wait|no|but|however|actually|so|thus|therefore|hence|final|finally|corrected|correction|instead|rather"
    r"|reconsider\w*|conclusion|oops|sorry)\b|不对|但|所以|因此|最终|最后|更正|其实|而是",
    re.IGNORECASE,
)
_MAX_CLAIM_CHARS = 400
_MAX_CLAIMS = 20
_MAX_MENTIONS = 100  # more of them are a loop, not an answer

# Words that may stand before the option that a text names, and those between two options it lists.
_LEAD_WORDS = frozenset(
    [
        "option",
        "options",
        "answer",
        "answers",
        "choice",
        "letter",
        "it",
        "it's",
        "its",
        "is",
        "are",
        "was",
        "so",
        "thus",
        "therefore",
        "hence",
        "then",
        "probably",
        "maybe",
        "perhaps",
        "possibly",
        "likely",
        "most",
        "either",
        "both",
        "neither",
        "not",
        "but",
        "rather",
        "the",
        "correct",
        "right",
        "best",
        "final",
        "wrong",
        "incorrect",
        "false",
        "eliminated",
        "out",
        "and",
        "or",
        "must",
        "be",
        "would",
        "should",
        "i",
        "i'd",
        "i'll",
        "i'm",
        "we",
        "my",
        "think",
        "believe",
        "say",
        "guess",
        "choose",
        "pick",
        "select",
        "go",
        "with",
        "going",
        "clearly",
        "definitely",
        "obviously",
        "surely",
        "certainly",
        "ok",
        "okay",
        "sure",
        "well",
        "yes",
        "hmm",
        "that",
        "that's",
        "this",
        "here",
        "ans",
        "selected",
        "chosen",
        "would",
        "will",
        "leaning",
        "towards",
        "toward",
        "for",
        "my",
        "only",
        "named",
        "called",
        "a",
        "an",
        "答案",
        "选",
        "选择",
        "选项",
        "是",
        "为",
        "应该",
        "应",
        "我",
        "所以",
        "因此",
        "故",
        "正确",
        "正确的",
        "正确答案",
        "正确答案是",
        "答案是",
        "应选",
        "故选",
        "我选",
        "应该选",
        "因此选",
        "所以选",
        "的",
        "最终答案",
        "最终答案是",
        "本题选",
        "本题",
        "应该是",
        "就是",
        "错误",
        "不对",
        "错",
        "不正确",
        "排除",
        "而是",
        "是选项",
    ]
)
_JOIN_WORDS = frozenset(
    [
        "and",
        "or",
        "both",
        "either",
        "also",
        "plus",
        "maybe",
        "perhaps",
        "possibly",
        "option",
        "options",
        "answer",
        "answers",
        "choice",
        "choices",
        "then",
        "as",
        "well",
        "to",
        "through",
        "vs",
        "versus",
        "else",
        "even",
        "with",
        "nor",
        "alternatively",
        "probably",
        "either",
        "the",
        "is",
        "it",
        "it's",
        "could",
        "be",
        "might",
        "may",
        "may",
        "和",
        "或",
        "或者",
        "与",
        "及",
        "以及",
        "还是",
        "跟",
        "并",
        "且",
        "同",
        "至",
        "到",
        "选项",
        "也",
        "都",
        "又",
    ]
)
_WORD = re.compile(rf"[^\W\d_{CJK}]+(?:'[a-z]+)?|[{CJK}]+")
_REASON = re.compile(
    r"\b(?:because|since|as|due|given|for|which|where|while|whereas|though|although)\b|因为|由于|理由|因"
)
# A heading after which a text only explains.
_EXPLANATION = re.compile(
    r"(?:\n|(?<=[.;!]) )[ ]?(?:explanation|reason(?:ing)?|rationale|analysis|justification|why|解析|理由|分析|原因|解释)[ ]?(?::|\n|\uff1a)",
    re.IGNORECASE,
)
_RULED_OUT_BEFORE = re.compile(
    r"(?:\b(?:not|neither|nor|never|except|excluding|excludes?d?|eliminat\w{1,5}|rul\w{1,4} out|rejects?|rejected|unlike"
    r"|without|than|instead of|over|discards?|discarded|against|no)|n't|不是|不选|不可能是|不|非|排除|除了|而非|并非|不能选)"
    r"(?: ?(?:the|be|options?|answers?|letter|choice|either|both|of|choose|pick|select|say|out|选项|选))*[ :(\"']{0,3}$",
    re.IGNORECASE,
)
_RULED_OUT_AFTER = re.compile(
    r"[)\].:,\"']{0,2}(?:[ ]?[^\w\s][ ]?|[ ])?(?:(?:is|are|was|were|does|do|did|can|could|would|seems?|looks?|has|have|must be|"
    r"both|all|clearly|also|definitely|obviously|simply|just|option|options|选项|是|都|均|明显|显然|也)[ ,]?){0,4}"
    r"(?:n't|not\b|never\b|cannot\b|can't|isn't|aren't|doesn't|don't|didn't|wasn't|won't|no\b|wrong|incorrect|false\b|ruled|"
    r"eliminated|excluded|out\b|unlikely|impossible|irrelevant|\?[ ]?no\b|不|错|排除|没有|未)"
    r"|[ ]?\?[ ]?no\b|[ ]?[\u2717\u2718\u274c\u00d7]",
    re.IGNORECASE,
)
_PLURAL = re.compile(r"\b(?:are|were|do|have|both|all)\b|aren't|don't|weren't|都|均")
# What may follow a letter without punctuation: "B because …", "B is correct", "B 是…".
_FOLLOWS_LETTER = re.compile(
    rf"\s*(?:$|\n|[^\w\s]|[{CJK}]|(?:because|since|as|i think|i believe|i guess|option|obviously|definitely|for sure|"
    r"please|shows|matches|fits|describes|depicts|seems|rather|instead|over|and|or|but|not|to|through|vs|"
    r"(?:is|would be|must be|should be|seems) (?:the |a )?(?:most |only |definitely |clearly )?"
    r"(?:correct|right|best|answer|true|accurate|likely|one|option|choice|not|wrong|incorrect|false|proper|appropriate|it|my))\b"
    r"|(?:it is|it's|isn't|are|was|can't|cannot|doesn't)\b)",
    re.IGNORECASE,
)
_FOLLOWS_ARTICLE = re.compile(
    r"\s*(?:$|\n|[^\w\s]|(?:because|since|as|is|are|and|or|but|not|rather|instead|isn't|cannot|can't|vs|to|through)\b)"
)
_FOLLOWS_TEXT = re.compile(
    rf"\s*(?:$|\n|[^\w\s]|(?:because|since|as|and|or|i think|i believe|i guess|rather|instead|is|are|was|isn't|not|but)\b|[{CJK}])",
    re.IGNORECASE,
)
_LETTER = re.compile(rf"(?<![^\W{CJK}])[A-Za-z](?![^\W{CJK}])")


class _Nothing(Enum):
    """What a text names if it is not one option."""

    NONE = 0
    SEVERAL = 1


_Reading = str | _Nothing


@dataclass(frozen=True, slots=True)
class _Mention:
    """One place in a text that names an option; `letters` are several where options have the same text."""

    letters: frozenset[str]
    start: int
    end: int
    is_label: bool = True


@dataclass(frozen=True)
class _Options:
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


def extract_choice(answer: str, options: Sequence[str]) -> str | None:
    """Find the one option letter (upper case) that an answer names, or `None`.

    Read as B, where option B is oil: "B", "b", "(B)", "B. any text", "The answer is B", "B because A is wrong", "not A,
    B", "oil", "the oil."; in a longer text a boxed B, "… so the answer is B …" (the last one counts), and a last line
    that is only "B". A letter inside a word is none, nor is an article ("A man walks"). Several options are none, in
    whatever form: "A, B", "A or B", "ABCD", all options copied, a letter with the text of another option. The letter
    need not be one of the options: then the answer is wrong, not missing.
    """
    reading = _read(plain_lines(answer), _prepare(tuple(options)))
    return reading if isinstance(reading, str) else None


def score_choice(answer: str, sample: VideoSample) -> Score:
    """1 for the gold option, 0 for another one; unscorable if the gold names no option, or several."""
    gold = extract_choice(sample.answer, sample.options)
    if gold is None or (sample.options and gold not in option_letters(sample.options)):
        return UNSCORABLE
    choice = extract_choice(answer, sample.options)
    return UNANSWERED if choice is None else graded(float(choice == gold))


@lru_cache(maxsize=4096)
def _prepare(options: tuple[str, ...]) -> _Options:
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
    return _Options(
        texts=texts,
        lettered=options_are_lettered(options),
        by_text=tuple(levels),
        pattern=re.compile(rf"(?<![^\W{CJK}])(?:{pattern})(?![^\W{CJK}])", re.IGNORECASE) if words else None,
        numbers=numbers,
    )


def _exact(text: str) -> str:
    return " ".join(text.split()).casefold().strip("'\"").rstrip(".!。")


_ARTICLE = re.compile(r"\b(?:a|an|the)\s+")
_LOOSE = re.compile(r"(?<![0-9])[^\w\s+-]|[^\w\s+-](?![0-9])|[-+](?![0-9])|_")


def _loose(text: str) -> str:
    """Without punctuation (but inside of numbers) and articles: "The  Red-car!" is "red car"."""
    words = " ".join(_LOOSE.sub(" ", text.casefold()).split())
    return _ARTICLE.sub("", words) or words


def _squeezed(text: str) -> str:
    return _loose(text).replace(" ", "") if not any(char.isdigit() for char in text) else ""


_COMPARISONS = (_exact, _loose, _squeezed)


def _read(text: str, options: _Options) -> _Reading:
    """Look at the places where a text may name its choice, the most telling first."""
    if not text:
        return _Nothing.NONE
    if letter := _whole(text, options):
        return letter
    for reading in (_boxed(text, options), _stated(text, options)):
        if reading is not _Nothing.NONE:
            return reading
    if letter := _after_copied_options(text, options):
        return letter
    if letter := _concluded(text, options):
        return letter
    reading = _claim(text, options)
    if reading is not _Nothing.NONE:
        return reading
    return _last_line(text, options) or _contained(text, options) or _Nothing.NONE


def _whole(text: str, options: _Options) -> str | None:
    """Read a text that is one option and nothing else: its text, its letter, or letter and text."""
    bare = text.strip(" \n.,;:!?*_\"'(){}[]<>。")
    is_letter = len(bare) == 1 and bare.isascii() and bare.isalpha()
    if is_letter and options.lettered:
        return bare.upper()
    if letter := _letter_of_text(text, options):
        return letter
    if is_letter:
        return bare.upper()
    if bare in options.numbers:
        return options.numbers[bare]
    label = re.match(r"[(\[<]?([A-Za-z])(?:[)\]>.:,]{1,2}| ?[-]|(?= ))\s*", text)
    if label and label.group(1).upper() in options.texts:
        rest = _letters_of_text(text[label.end() :], options)
        if label.group(1).upper() in rest:
            return label.group(1).upper()
    return _ordinal(bare, options)


def _ordinal(text: str, options: _Options) -> str | None:
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


def _letters_of_text(text: str, options: _Options) -> frozenset[str]:
    """Give the letters of the options whose text this is, by the strictest comparison that finds any."""
    if len(text) > 4 * _MAX_CLAIM_CHARS:
        return frozenset()
    for compare, found in zip(_COMPARISONS, options.by_text, strict=True):
        key = compare(text)
        if key and key in found:
            return found[key]
    return frozenset()


def _letter_of_text(text: str, options: _Options) -> str | None:
    letters = _letters_of_text(text, options)
    return next(iter(letters)) if len(letters) == 1 else None


def _boxed(text: str, options: _Options) -> _Reading:
    boxes = boxed_parts(text)
    if not boxes:
        return _Nothing.NONE
    first = len(boxes) - 1
    while first > 0 and _joins(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    contents = [content for _, _, content in boxes[first:]]
    return _read_claim_text(" , ".join(contents), options)


def _stated(text: str, options: _Options) -> _Reading:
    """Read what follows words that state the answer; the last statement counts.

    Statements that differ are several options, unless words of correction or conclusion stand between them.
    """
    matches = list(_STATED.finditer(text))[-_MAX_CLAIMS:]
    chosen: _Reading = _Nothing.NONE
    start = len(text)
    for match in reversed(matches):
        if _RULED_OUT_BEFORE.search(text[max(0, match.start() - 20) : match.start()]):
            continue
        reading = _read_claim_text(_rest_of_claim(text, match.end()), options)
        if reading is _Nothing.NONE:
            continue
        if chosen is _Nothing.NONE:
            chosen, start = reading, match.start()
        elif reading != chosen and not _CORRECTED.search(text[match.end() : start + 12]):
            return _Nothing.SEVERAL
        else:
            break
    return chosen


def _rest_of_claim(text: str, start: int) -> str:
    """Cut out what follows a statement: the rest of its line and of the lines after, within bounds."""
    return text[start : start + _MAX_CLAIM_CHARS].lstrip(" \n")


def _read_claim_text(text: str, options: _Options) -> _Reading:
    """Read what a statement states: its first line if that is one option, else as a claim."""
    line = text.partition("\n")[0]
    for part in (text, line, re.split(r"(?<=[^A-Z\W])[.;!?。](?:\s|$)", line, maxsplit=1)[0]):
        if letter := _whole(part, options):
            others = [line for line in text[len(part) :].splitlines() if _starts_with_label(line, options, letter)]
            return (
                _Nothing.SEVERAL
                if others and part is not text and _claim(text, options) is _Nothing.SEVERAL
                else letter
            )
    return _claim(text, options)


def _starts_with_label(line: str, options: _Options, letter: str) -> bool:
    first = next(_mentions(line, options), None)
    return first is not None and first.start <= 2 and letter not in first.letters


def _concluded(text: str, options: _Options) -> str | None:
    """Read a conclusion at the very end: "…, so B.", "A or B, but I think B"."""
    tail_at = max(0, len(text) - _MAX_CLAIM_CHARS)
    matches = list(_CONCLUDED.finditer(text, tail_at))
    for match in reversed(matches[-4:]):
        rest = text[match.end() :]
        if _RULED_OUT_BEFORE.search(rest + " ") or "\n" in rest.strip():
            return None
        if letter := _whole(rest, options):
            return letter
        if (reading := _claim(rest, options)) and reading is not _Nothing.NONE:
            return reading if isinstance(reading, str) else None
    return None


def _after_copied_options(text: str, options: _Options) -> str | None:
    """Read a letter on a line of its own after a copy of all options, each on its line."""
    lines = [line for line in text.splitlines() if line]
    if len(options.texts) < 2 or len(lines) <= len(options.texts):
        return None
    listed = [_whole(line, options) if len(line) > 3 else None for line in lines[:-1]]
    bare = lines[-1].strip("().[] ")
    if listed[-len(options.texts) :] == list(options.texts) and len(bare) == 1 and bare.upper() in options.texts:
        return bare.upper()
    return None


def _last_line(text: str, options: _Options) -> str | None:
    """Read a last line, or a last sentence, that is an option and nothing else, if no other line is one."""
    lines = [line for line in text.splitlines() if line]
    last = lines[-1]
    if len(lines) > 1 and (letter := _whole(last, options)):
        return None if any(_starts_with_label(line, options, letter) for line in lines[:-1]) else letter
    match = re.search(r"[.!?。]\s*\(?([A-Z])\)?\.?$", last)
    if match and match.group(1) in options.texts:
        mentioned = {letter for mention in _mentions(text, options) for letter in mention.letters}
        return match.group(1) if mentioned == {match.group(1)} else None
    return None


def _contained(text: str, options: _Options) -> str | None:
    """Read the one option of at least three words whose text stands somewhere in a short text."""
    if len(text) > 4 * _MAX_CLAIM_CHARS or len(text.split()) > _FEW_WORDS:
        return None
    mentions = _ruled_in(text, list(_mentions(text, options)))
    letters = {letter for mention in mentions for letter in mention.letters}
    if len(letters) != 1:
        return None
    num_words = len(options.texts[next(iter(letters))].split()) if letters <= options.texts.keys() else 0
    return next(iter(letters)) if num_words >= _LONG_OPTION_WORDS else None


def _claim(text: str, options: _Options) -> _Reading:
    """Read a text that begins with the option it names: "B. oil", "B because A is wrong", "not A, B", "A or B"."""
    if heading := _EXPLANATION.search(text):
        text = text[: heading.start()]
    all_mentions = list(_mentions(text, options))
    mentions = _ruled_in(text, all_mentions)
    if not mentions:
        return _Nothing.NONE
    if len(mentions) > _MAX_MENTIONS:
        return _Nothing.SEVERAL
    first = mentions[0]
    if not _leads(text[: first.start], [m for m in all_mentions if m.start < first.start]):
        return _Nothing.NONE
    named = first.letters
    joined = True
    for previous, mention in zip(mentions, mentions[1:], strict=False):
        joined = joined and _joins(text[previous.end : mention.start])
        if joined or _begins_item(text, mention):
            if not named & mention.letters:
                return _Nothing.SEVERAL
            named &= mention.letters
    return next(iter(named)) if len(named) == 1 else _Nothing.NONE


def _mentions(text: str, options: _Options) -> Iterator[_Mention]:
    """Find the options that a text mentions, in order. A label and the option's own text right after it are one."""
    found = [*_text_mentions(text, options)]
    covered = [(mention.start, mention.end) for mention in found]
    position = 0
    for match in _LETTER.finditer(text):
        while position < len(covered) and covered[position][1] <= match.start():
            position += 1
        inside = position < len(covered) and covered[position][0] <= match.start()
        if not inside and _is_label(text, match, options):
            found.append(_Mention(frozenset({match.group().upper()}), match.start(), match.end()))
    found.sort(key=lambda mention: mention.start)
    index = 0
    while index < len(found):
        mention = found[index]
        following = found[index + 1] if index + 1 < len(found) else None
        if following and mention.is_label != following.is_label and mention.letters & following.letters:
            gap = text[mention.end : following.start]
            if len(gap) <= 5 and not _WORD.search(gap):
                yield _Mention(mention.letters & following.letters, mention.start, following.end, is_label=True)
                index += 2
                continue
        yield mention
        index += 1


def _text_mentions(text: str, options: _Options) -> Iterator[_Mention]:
    if options.pattern is None:
        return
    for match in options.pattern.finditer(text):
        if len(match.group()) == 1 and match.group().isascii() and match.group().isalpha():
            continue  # an option whose text is a letter is named by whole texts only
        if letters := _letters_of_text(match.group(), options):
            if _FOLLOWS_TEXT.match(text, match.end()) and not _inside_number(text, match):
                yield _Mention(letters, match.start(), match.end(), is_label=False)


def _inside_number(text: str, match: re.Match[str]) -> bool:
    """Say whether a figure is only a part of what is written: the 3 of "3.5" or of "1:30"."""
    after = re.match(r"[.,:/][0-9]", text[match.end() : match.end() + 2])
    before = re.search(r"[0-9][.,:/]$", text[max(0, match.start() - 2) : match.start()])
    return match.group()[-1:].isdigit() and after is not None or match.group()[:1].isdigit() and before is not None


def _is_label(text: str, match: re.Match[str], options: _Options) -> bool:
    """Say whether a letter that stands alone is an option's label: not an article, a pronoun, an initial."""
    letter, start, end = match.group(), match.start(), match.end()
    if options.texts and letter.upper() not in options.texts:
        return not text[:start].strip(" (") and re.match(r"[.):]\s", text[end : end + 2]) is not None
    before, after = text[max(0, start - 2) : start], text[end : end + 3]
    if re.match(r"'\w|\.[A-Za-z](?:$|\W)|-[A-Za-z]{2}", after) or re.search(r"\w'$|[A-Za-z]\.$|[A-Za-z]-$", before):
        return bool(re.match(r"\.[A-Za-z]\s", after)) and False
    if letter.islower():
        enclosed = before[-1:] in tuple("([") and after[:1] in tuple(")]")
        named = re.search(
            r"\b(?:option|answer|choice|letter|answer is|选项?)\s?:?\s?$", text[max(0, start - 12) : start], re.I
        )
        at_start = not before.strip() or before.endswith("\n")
        return bool(enclosed or (named and not re.match(r"\s\w", after)) or (at_start and after[:1] in tuple(".):,;/")))
    if before[-1:] in tuple("([<") and after[:1] in tuple(")]>"):
        return True
    if letter in "AI":
        if letter == "I" and re.match(r"\s+(?:is|am|as|and|or)\b", text[end : end + 5]) is None and after[:1] == " ":
            return False
        return _FOLLOWS_ARTICLE.match(text, end) is not None or _labels_its_text(text, end, letter, options)
    return _FOLLOWS_LETTER.match(text, end) is not None or _labels_its_text(text, end, letter, options)


def _labels_its_text(text: str, end: int, letter: str, options: _Options) -> bool:
    """Say whether the option's own words follow its letter: "A milk"; or another label: "A B C"."""
    own = options.texts.get(letter, "")
    rest = text[end : end + len(own) + 1]
    if own and rest.strip().casefold().startswith(own.casefold()[: max(1, len(own) - 1)]):
        return True
    return re.match(r"\s+\(?[A-Z]\)?(?:\s|$|[,.;:)])", text[end : end + 6]) is not None


def _ruled_in(text: str, mentions: Sequence[_Mention]) -> list[_Mention]:
    """Drop the mentions that the text rules out: "not A", "neither A nor B", "A and C are wrong"."""
    out: set[int] = set()
    for index, mention in enumerate(mentions):
        gap = text[mentions[index - 1].end : mention.start] if index else ""
        before = text[max(0, mention.start - 40) : mention.start]
        listed = (
            index and index - 1 in out and re.fullmatch(r"[\s,)(.:]*(?:or|nor|and|/|、|或|和)[\s(]*(?:option )?", gap)
        )
        if (
            listed
            and not _RULED_OUT_AFTER.match(text, mentions[index - 1].end, mention.start)
            or _RULED_OUT_BEFORE.search(before)
        ):
            out.add(index)
        limit = mentions[index + 1].start if index + 1 < len(mentions) else len(text)
        predicate = _RULED_OUT_AFTER.match(text, mention.end, min(limit, mention.end + 60))
        if predicate and not re.match(
            r"[)\].,:\s(]*(?:not|no|rather)\s*(?:\W|$|the\b|option)", text[mention.end : limit]
        ):
            out.add(index)
            back = index
            while back and _joins(text[mentions[back - 1].end : mentions[back].start]):
                if not _PLURAL.search(predicate.group()) and "," in text[mentions[back - 1].end : mentions[back].start]:
                    break
                back -= 1
                out.add(back)
        if index in out and listed is None and index >= 2 and re.search(r"\b(?:or|nor)\b", gap):
            out.update(_comma_list_before(text, mentions, index, out))
    return [mention for index, mention in enumerate(mentions) if index not in out]


def _comma_list_before(text: str, mentions: Sequence[_Mention], index: int, out: set[int]) -> set[int]:
    """Give the indices of "not A, B or C" that stand between the one ruled out and this one."""
    found: set[int] = set()
    back = index - 1
    while back >= 0 and back not in out and "," in text[mentions[back].end : mentions[back + 1].start]:
        found.add(back)
        back -= 1
    return found if back in out else set()


def _joins(gap: str) -> bool:
    """Say whether two options with this text between them are listed side by side."""
    return len(gap) <= 60 and all(word.casefold() in _JOIN_WORDS for word in _WORD.findall(gap))


def _leads(prefix: str, ruled_out: Sequence[_Mention]) -> bool:
    """Say whether a text before an option only leads up to it: "I think it is", "A is wrong, so"."""
    if ruled_out:
        prefix = prefix[ruled_out[-1].end :]
        clause = re.split(r"[,.;:!?\n。]|\b(?:so|but|therefore|thus|hence)\b|所以|因此|故|而是", prefix)
        return all(word.casefold() in _LEAD_WORDS for word in _WORD.findall(clause[-1])) and len(clause[-1]) <= 80
    if len(prefix) > 120:
        return False
    return all(word.casefold() in _LEAD_WORDS for word in _WORD.findall(prefix)) and not re.search(r"[0-9]", prefix)


def _begins_item(text: str, mention: _Mention) -> bool:
    """Say whether a mention begins a line or an item of a list, and so is named beside the one before."""
    before = text[max(0, mention.start - 12) : mention.start]
    if re.search(r"(?:^|\n)[\s(\[\d.)]*$", before) and "\n" in before:
        rest = text[mention.end : mention.end + 40]
        return mention.is_label or not rest.split("\n")[0].strip(" .,;)")
    return bool(
        mention.is_label and re.search(r"[,;.]\s*\(?$", before) and re.match(r"[.):]\s", text[mention.end :][:2])
    )
