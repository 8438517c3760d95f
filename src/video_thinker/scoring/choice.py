"""Multiple choice: which one option does a text name?

A text names an option by its letter in the form of a label ("B", "(b)", "B.", "option B"), by its text ("oil"), or by
both ("B. oil"). Naming two different options is no choice, in whatever form. Options that are ruled out ("not A",
"A is wrong") are not named, and neither is one that only occurs in an explanation ("B, because A is wrong").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from video_thinker.schema import Score, VideoSample
from video_thinker.scoring.clean import boxed_parts, plain_lines
from video_thinker.scoring.grades import UNANSWERED, UNSCORABLE, graded
from video_thinker.scoring.mentions import (
    CORRECTED,
    MAX_MENTIONS,
    RULED_OUT_BEFORE,
    Mention,
    begins_item,
    is_called_right,
    joins,
    leads,
    mentions_in,
    only_one_left,
    ruled_in,
)
from video_thinker.scoring.numbers import is_same_quantity, read_quantity
from video_thinker.scoring.options import (
    MAX_OPTION_CHARS,
    Options,
    letters_of_text,
    option_letters,
    prepare_options,
    whole_option,
)
from video_thinker.scoring.sentences import contained_option
from video_thinker.times import parse_time

_NOUN = r"(?:answers?|option|choice|selection|ans|result|conclusion|verdict)"

_ADVERB = (
    r"(?:(?:clearly|therefore|thus|probably|most likely|likely|definitely|indeed|simply|just|obviously)[ ,]{1,2})?"
)

# Words after which the text states its answer.
_STATED = re.compile(
    rf"\b{_NOUN}[\"'*_ )]{{0,4}}(?:(?:to|for) (?:the|this) (?:question|problem)[ ,]{{0,2}})?"
    r"(?:(?:is|are|was|be|would be|should be|must be|will be|has to be|seems to be|appears to be|=|:|->|\u2192)"
    r"(?!\w)[\"'*_\s]{0,4}){1,2}" + _ADVERB + r"(?:option |choice |letter )?"
    r"|\b(?:choose|pick|select|go with|going with|go for|going for|opt for|vote for|settle on|settle for|choosing"
    r"|picking"
    r"|selecting|chose|picked|selected|say|guess|choice of) (?:option |choice |letter |answer )?:? ?"
    r"|\b(?:corresponds? to|correspond with|match|matches|aligns? with|consistent with|points? to|supports?"
    r"|indicates?|suggests?"
    r"|fits) (?:the )?(?:option|choice|answer) "
    r"|\b(?:suggests?|indicates?|supports?|favou?rs?|points? to|corresponds? to) (?=\(?[A-Z]\)?[.!]?\s*\Z)"
    r"|\bonly (?=(?:option )?\(?[A-Z]\)? (?:fits|matches|works|remains|is (?:correct|right|possible|plausible)))"
    r"|\b(?:respuesta|réponse|antwort|lösung|resposta|risposta|ответ|odpowiedź|cevap|jawaban|antwoord)\b"
    r"[^.\n:0-9]{0,30}?(?::|=|\b(?:es|est|ist|é|è|это|jest|adalah)\b)\s*"
    r"(?:(?:la|die|el) )?(?:(?:option|opción|opção|opzione) )?"
    r"|(?:答え|解答|回答|正解|정답|답)(?:は|은|는|:)[ :]{0,2}"
    r"|(?<![A-Za-z])(?:答案|选项|正解|選項)(?:应该|应当|应|應該)?(?:是|为|為|选|:)[ :是为]{0,3}"
    r"|(?<![不没勿可A-Za-z])(?:应|故|就|我|该)?(?:选择?|選擇?)(?:项|的是|了)?[ :是为]{0,3}",
    re.IGNORECASE,
)

# "So B": states the answer where nothing follows. "It's B" only does if the text names no other option.
_CONCLUDED = re.compile(
    r"(?:\b(?:so|thus|hence|therefore|consequently|but|leaving|(?:which|this) leaves)\b|所以|因此|故|因而)[ ,:]{0,3}",
    re.IGNORECASE,
)

_SAID = re.compile(
    r"(?:\b(?:it's|it is|it must be|that's|that is|must be|should be|remains)\b|就是|应该是)[ ,:]{0,3}", re.IGNORECASE
)

# A heading after which a text only explains.
_EXPLANATION = re.compile(
    r"(?:\n|(?<=[.;!]) )[ ]?(?:explanation|reason(?:ing)?|rationale|analysis|justification|why|解析|理由|分析"
    r"|原因|解释)[ ]?(?::|\n|\uff1a)",
    re.IGNORECASE,
)

_RETRACTED = re.compile(
    r"\b(?:no,? wait|wait|actually|i mean|i meant|correction|sorry|oops|scratch that)\b"
    r"|[?.!,;\u2026-] ?no(?:[,.!] ?| \(?\Z)|不对",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"\s*(?:[,;/|&+\n>]|->|\b(?:(?:and|or)(?: maybe| perhaps| also)?|vs|also)\b|[和或与])\s*", re.IGNORECASE
)
_EXCEPT = re.compile(r"\b(?:anything|everything|all|any|nothing|every option)\s*$", re.IGNORECASE)

# "I cannot tell whether it is oil" says nothing about oil.
_LEFT_OPEN = re.compile(
    r"\b(?:whether|if|unsure|unclear|not sure|not certain|don't know|do not know|cannot|can't|can not|couldn't"
    r"|unable)\b"
    r"[^.;:,\n]{0,60}\Z",
    re.IGNORECASE,
)
# Words that name one more option beside another: before it ("but also A") and after it ("A is possible too").
_ALSO_BEFORE = re.compile(
    r"\b(?:but also|otherwise|or else|if not|alternatively|not excluded|unless|(?:possibly|maybe|perhaps) also"
    r"|(?:could|may|might|can) (?:also|equally|as well|just as well) be)\b",
    re.IGNORECASE,
)
_ALSO_AFTER = re.compile(
    r"[)\].,]{0,2} ?(?:is|are|could|can|may|might|would|seems)\b(?! (?:not|never|no longer)\b)[\w ]{0,20}?"
    r"\b(?:also|too|as well|possible|plausible|equally)\b",
    re.IGNORECASE,
)

_ARROW = re.compile(r"[-=]>|[\u2192\u21d2]")

_MAX_CLAIM_CHARS = 400

_MAX_CLAIMS = 20

_MAX_TIME_CHARS = 40

_NEAR_CHARS = 12


class _Nothing(Enum):
    """What a text names if it is not one option."""

    NONE = 0
    SEVERAL = 1


_Reading = str | _Nothing


def extract_choice(answer: str, options: Sequence[str]) -> str | None:
    """Find the one option letter (upper case) that an answer names, or `None`.

    Read as B, where option B is oil: "B", "b", "(B)", "B. any text", "The answer is B", "B because A is wrong", "not A,
    B", "oil", "the oil."; in a longer text a boxed B, "… so the answer is B …" (the last one counts), and a last line
    that is only "B". A letter inside a word is none, nor is an article ("A man walks"). Several options are none, in
    whatever form: "A, B", "A or B", "ABCD", all options copied, a letter with the text of another option. The letter
    need not be one of the options: then the answer is wrong, not missing.
    """
    reading = _read(plain_lines(answer), prepare_options(tuple(options)))
    return reading if isinstance(reading, str) else None


def score_choice(answer: str, sample: VideoSample) -> Score:
    """1 for the gold option, 0 for another one; unscorable if the gold names no option, or several."""
    gold = extract_choice(sample.answer, sample.options)
    if gold is None or (sample.options and gold not in option_letters(sample.options)):
        return UNSCORABLE
    choice = extract_choice(answer, sample.options)
    return UNANSWERED if choice is None else graded(float(choice == gold))


def _read(text: str, options: Options) -> _Reading:
    """Look at the places where a text may name its choice, the most telling first."""
    if not text or _contradicts_itself(text, options):
        return _Nothing.NONE
    if letter := whole_option(text, options):
        return letter
    if (reading := _boxed(text, options)) is not _Nothing.NONE:
        return reading
    stated = _stated(text, options)
    if isinstance(stated, str):
        return stated
    if letter := _after_copied_options(text, options):
        return letter
    if (reading := _concluded(text, options, _CONCLUDED)) is not _Nothing.NONE:
        return reading
    if stated is _Nothing.SEVERAL:
        return stated
    if (reading := _claim(text, options)) is not _Nothing.NONE:
        return reading
    if (reading := _concluded(text, options, _SAID)) is not _Nothing.NONE:
        return reading
    found = (
        _last_line(text, options)
        or _end_of_chain(text, options)
        or contained_option(text, options)
        or _number_of_options(text, options)
        or _time_of_options(text, options)
    )
    return found or _Nothing.NONE


def _boxed(text: str, options: Options) -> _Reading:
    boxes = boxed_parts(text)
    if not boxes:
        return _Nothing.NONE
    first = len(boxes) - 1
    while first > 0 and joins(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    contents = [content for _, _, content in boxes[first:]]
    return _read_claim_text(" , ".join(contents), options)


def _stated(text: str, options: Options) -> _Reading:
    """Read what follows words that state the answer; the last statement counts.

    Statements that differ are several options, unless words of correction or conclusion stand between them.
    """
    matches = list(_STATED.finditer(text))[-_MAX_CLAIMS:]
    chosen: _Reading = _Nothing.NONE
    start = len(text)
    for match in reversed(matches):
        before = text[max(0, match.start() - 80) : match.start()]
        if RULED_OUT_BEFORE.search(before[-20:]) or _LEFT_OPEN.search(before):
            continue
        reading = _read_claim_text(_rest_of_claim(text, match.end()), options)
        if reading is _Nothing.NONE:
            continue
        if chosen is _Nothing.NONE:
            chosen, start = reading, match.start()
        elif reading != chosen and not CORRECTED.search(text[match.end() : start + 12]):
            return _Nothing.SEVERAL
        else:
            break
    return chosen


def _rest_of_claim(text: str, start: int) -> str:
    """Cut out what follows a statement: the rest of its line and of the lines after, within bounds."""
    return text[start : start + _MAX_CLAIM_CHARS].lstrip(" \n")


def _read_claim_text(text: str, options: Options) -> _Reading:
    """Read what a statement states: its first line if that is one option, else as a claim."""
    if letter := whole_option(text, options):
        return letter
    line = text.partition("\n")[0]
    if letter := whole_option(line, options):
        others = any(_starts_with_label(other, options, letter) for other in text[len(line) :].splitlines())
        return _Nothing.SEVERAL if others and _claim(text, options) is _Nothing.SEVERAL else letter
    claim = _claim(text, options)
    if claim is _Nothing.NONE:
        sentence = re.split(r"(?<=[^A-Z\W])[.;!?。](?:\s|$)", line, maxsplit=1)[0]
        return whole_option(sentence, options) or claim
    return claim


def _starts_with_label(line: str, options: Options, letter: str) -> bool:
    first = next(mentions_in(line, options), None)
    return first is not None and first.start <= 2 and letter not in first.letters


def _concluded(text: str, options: Options, words: re.Pattern[str]) -> _Reading:
    """Read a conclusion at the very end: "…, so B.", "A or B, but I think B"; several if conclusions differ."""
    tail_at = max(0, len(text) - _MAX_CLAIM_CHARS)
    end = len(text)
    concluded: _Reading = _Nothing.NONE
    for match in reversed(list(words.finditer(text, tail_at))[-8:]):
        rest, before = text[match.end() : end], text[max(0, match.start() - 16) : match.start()]
        if _EXCEPT.search(before) or RULED_OUT_BEFORE.search(rest + " ") or "\n" in rest.strip():
            break
        if _LEFT_OPEN.search(text[max(0, match.start() - 80) : match.start()]):
            continue
        letter = whole_option(rest, options) or _claim(rest, options)
        if isinstance(letter, str) and _is_named_too(rest, options):
            return _claim(text, options) if concluded is _Nothing.NONE else _Nothing.SEVERAL
        if letter is _Nothing.NONE and concluded is _Nothing.NONE:
            continue
        if not isinstance(letter, str):
            break
        if concluded not in (_Nothing.NONE, letter):
            return _Nothing.SEVERAL
        concluded, end = letter, match.start()
    return concluded


def _is_named_too(rest: str, options: Options) -> bool:
    """Say whether a clause names its first option only beside another one: "(B,) but A is possible too"."""
    first = next(mentions_in(rest, options), None)
    return first is not None and _ALSO_AFTER.match(rest, first.end) is not None


def _after_copied_options(text: str, options: Options) -> str | None:
    """Read a letter on a line of its own after a copy of all options, each on its line."""
    lines = [line for line in text.splitlines() if line]
    if len(options.texts) < 2 or len(lines) <= len(options.texts):
        return None
    listed = [whole_option(line, options) if len(line) > 3 else None for line in lines[:-1]]
    bare = lines[-1].strip("().[] ")
    if listed[-len(options.texts) :] == list(options.texts) and len(bare) == 1 and bare.upper() in options.texts:
        return bare.upper()
    return None


def _last_line(text: str, options: Options) -> str | None:
    """Read a last line, or a last sentence, that is an option and nothing else, if no other line is one."""
    lines = [line for line in text.splitlines() if line]
    last = lines[-1]
    if len(lines) > 1 and (letter := whole_option(last, options)):
        return None if any(_starts_with_label(line, options, letter) for line in lines[:-1]) else letter
    match = re.search(r"[.!?。]\s*\(?([A-Z])\)?\.?$", last)
    if match and match.group(1) in options.texts:
        mentioned = {letter for mention in mentions_in(text, options) for letter in mention.letters}
        return match.group(1) if mentioned == {match.group(1)} else None
    return None


def _end_of_chain(text: str, options: Options) -> str | None:
    """Read "clear liquid -> water -> C", if the chain names no other option."""
    letter = whole_option(_ARROW.split(text)[-1], options) if _ARROW.search(text) else None
    mentioned = {other for mention in mentions_in(text, options) for other in mention.letters}
    return letter if mentioned <= {letter} else None


def _contradicts_itself(text: str, options: Options) -> bool:
    """Say whether a text is a letter and another option's text: "A oil" where B is oil; "A dog" may be a dog."""
    match = re.match(r"\(?([A-Z])\)?[.:)]? +(?=\w)", text)
    if match is None or match.group(1) not in options.texts:
        return False
    rest = text[match.end() :]
    if match.group() == "A " and not re.match(r"[aeiou]", rest, re.IGNORECASE):
        return False
    letters = letters_of_text(rest, options)
    return bool(letters) and match.group(1) not in letters


def _is_list_of_options(text: str, options: Options) -> bool:
    """Say whether a text is several options, with separators between them and nothing else."""
    if len(text) > MAX_OPTION_CHARS:
        return False
    if options.pattern is not None and not re.search(
        r"\w", options.pattern.sub(" ", text)
    ):  # "I milk", also if A is "I"
        texts = [letters_of_text(match.group(), options) for match in options.pattern.finditer(text)]
        if len(texts) > 1 and all(texts) and not frozenset.intersection(*texts):
            return True
    parts = [part.strip(" .()[]-") for part in _BETWEEN.split(text)]
    named = [{whole_option(part, options) or ""} | letters_of_text(part, options) for part in parts if part]
    return all(named) and len(set().union(*named)) > 1 and not any("" in letters for letters in named)


def _number_of_options(text: str, options: Options) -> str | None:
    """Read "two", "2 people" or "There are 2." where every option is a number."""
    quantities = {letter: read_quantity(option) for letter, option in options.texts.items()}
    named = read_quantity(text) if quantities and all(quantities.values()) else None
    if named is None:
        return None
    same = [letter for letter, quantity in quantities.items() if quantity and is_same_quantity(named, quantity)]
    return same[0] if len(same) == 1 else None


def _time_of_options(text: str, options: Options) -> str | None:
    """Read "At 0:12", "00:12" or "12 seconds" where every option is a point in time."""
    times = {letter: parse_time(option) for letter, option in options.texts.items()}
    named = parse_time(re.sub(r"^(?:at|around|about) ", "", text[:40].strip(" ."), flags=re.IGNORECASE))
    if named is None or None in times.values() or len(text) > _MAX_TIME_CHARS:
        return None
    same = [letter for letter, time in times.items() if time == named]
    return same[0] if len(same) == 1 else None


def _denies(named: Mention, ruled_out: Mention) -> bool:
    """Say whether an option is named by its text and ruled out by its letter at once: "No, not B" where B is no."""
    is_near = 0 <= ruled_out.start - named.end <= _NEAR_CHARS
    return ruled_out.is_label and ruled_out.letters == named.letters and is_near


def _claim(text: str, options: Options) -> _Reading:
    """Read a text that begins with the option it names: "B. oil", "B because A is wrong", "not A, B", "A or B"."""
    if heading := _EXPLANATION.search(text):
        text = text[: heading.start()]
    if _is_list_of_options(text, options):
        return _Nothing.SEVERAL
    all_mentions = list(mentions_in(text, options))
    mentions = ruled_in(text, all_mentions)
    if not mentions:
        return only_one_left(all_mentions, options) or _Nothing.NONE
    if len(mentions) > MAX_MENTIONS:
        return _Nothing.SEVERAL
    first = mentions[0]
    if not leads(text[: first.start], [m for m in all_mentions if m.start < first.start]):
        return _Nothing.NONE
    named = first.letters
    joined = True
    for previous, mention in zip(mentions, mentions[1:], strict=False):
        if _RETRACTED.search(text[previous.end : mention.start]):
            named, joined = mention.letters, True
            continue
        gap = text[previous.end : mention.start]
        joined = joined and joins(gap)
        if (
            joined
            or _ALSO_BEFORE.search(gap)
            or _ALSO_AFTER.match(text, mention.end)
            or begins_item(text, mention)
            or is_called_right(text, previous, mention)
        ):
            if not named & mention.letters:
                return _Nothing.SEVERAL
            named &= mention.letters
    denied = not first.is_label and any(_denies(first, mention) for mention in all_mentions if mention not in mentions)
    return next(iter(named)) if len(named) == 1 and not denied else _Nothing.NONE
