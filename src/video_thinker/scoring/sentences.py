"""Options whose words stand within a short text: "The person pours oil into the pan"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from video_thinker.scoring.mentions import Mention, mentions_in, ruled_in
from video_thinker.scoring.options import MAX_OPTION_CHARS, Options, letters_of_text

_FEW_WORDS = 40  # of a text in which a long option's words may stand anywhere

_LONG_OPTION_WORDS = 3

_FEW_STATEMENT_WORDS = 8  # of a sentence that ends with a short option's text

_NOT_PLAIN = re.compile(
    r"[^\w\s'(-]|\d|\b(?:or|and|if|not|no|nor|never|without|maybe|may|might|could|whether|which|what|but|than|like|either"
    r"|neither|both|all|any|none|only|sure|know|tell|vitamin|[a-z]+n't|don't|can't|cannot|i|you)\b|[不没无非或和吗]",
    re.IGNORECASE,
)

_PREPOSITION = (
    "into|onto|in|on|from|over|at|during|inside|near|before|after|while|with|by|through|across|under|behind|towards?"
)

_DETERMINER = "the|his|her|their|its|a|an"


def contained_option(text: str, options: Options) -> str | None:
    """Read the one option that a short text speaks of: of at least three words, or in a plain sentence."""
    if len(text) > MAX_OPTION_CHARS or len(text.split()) > _FEW_WORDS:
        return None
    all_mentions = list(mentions_in(text, options))
    mentions = ruled_in(text, all_mentions)
    letters = {letter for mention in mentions for letter in mention.letters}
    if _words_of_others(text, all_mentions, letters, options):
        return None
    if not letters:
        return _in_a_sentence(text, options)
    if len(letters) != 1:
        return None
    num_words = len(options.texts[next(iter(letters))].split()) if letters <= options.texts.keys() else 0
    has_text = any(not mention.is_label or mention.end - mention.start > 1 for mention in mentions)
    ends = has_text and len(mentions) == 1 and not text[mentions[0].end :].strip(" .!。)\"'")
    if num_words < _LONG_OPTION_WORDS and not (ends and _is_plain_statement(text[: mentions[0].start])):
        return None
    return next(iter(letters))


def _words_of_others(text: str, mentions: Sequence[Mention], letters: set[str], options: Options) -> bool:
    """Say whether other options' words stand in a text, even in the middle of a sentence: "the red one turns blue"."""
    if options.pattern is None or not letters:
        return False
    starts = [(mention.start, mention.end) for mention in mentions]
    for match in options.pattern.finditer(text):
        if not any(start <= match.start() < end for start, end in starts):
            found = letters_of_text(match.group(), options)
            if found and not found & letters and len(match.group()) > 1:
                return True
    return False


def _in_a_sentence(text: str, options: Options) -> str | None:
    """Read the one option whose words stand within a plain sentence: "The person pours (oil) into the pan"."""
    if options.pattern is None:
        return None
    matches = list(options.pattern.finditer(text))
    letters = {letter for match in matches for letter in letters_of_text(match.group(), options)}
    if len(matches) != 1 or len(letters) != 1 or len(matches[0].group()) < 2:
        return None
    before, after = text[: matches[0].start()], text[matches[0].end() :].strip(" .!。)\"'")
    is_long = len(matches[0].group().split()) >= _LONG_OPTION_WORDS
    follows = rf"(?:{_PREPOSITION}{'|' + _DETERMINER if is_long else ''})\b"
    if not re.match(follows, after) or not _is_plain_statement(before) or not _is_plain_statement(after):
        return None
    return next(iter(letters))


def _is_plain_statement(text: str) -> bool:
    """Say whether words before an option only say what is seen: "The person pours (oil)", "dark (blue)"."""
    return len(text.split()) <= _FEW_STATEMENT_WORDS and _NOT_PLAIN.search(text.replace(",", " ")) is None
