"""Where a text mentions options, and which of these mentions it rules out or lists side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from video_thinker.scoring.clean import EAST_ASIAN
from video_thinker.scoring.options import Options, letters_of_text


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that may stand before the option that a text names, and those between two options it lists.
_LEAD_WORDS = _words(
    """
    no nope actually initially just option options answer answers choice letter it it's its is are was so
    thus therefore hence then probably maybe perhaps possibly likely most either both neither not but
    rather the correct right best final wrong incorrect false eliminated out and or must be would
    should i i'd i'll i'm we my think believe say guess choose pick select go with going clearly
    definitely obviously surely certainly ok okay sure well yes hmm that that's this here ans selected
    chosen will leaning towards toward for only named called a an 答案 选 选择 选项 是 为 应该 应 我
    认为 觉得 想 那么 则 所以 因此 故 正确 正确的 正确答案 正确答案是 答案是 应选 故选 我选 应该选
    因此选 所以选 的 最终答案 最终答案是 本题选 本题 应该是 就是 错误 不对 错 不正确 排除 而是 是选项
    """
)

_JOIN_WORDS = _words(
    """
    and or both either also plus maybe perhaps possibly option options answer answers choice choices
    then as well to through vs versus else even with nor alternatively probably the is it it's could be
    might may 和 或 或者 与 及 以及 还是 跟 并 且 同 至 到 选项 也 都 又
    """
)

_WORD = re.compile(rf"[^\W\d_{EAST_ASIAN}]+(?:'[a-z]+)?|[{EAST_ASIAN}]+")

RULED_OUT_BEFORE = re.compile(
    r"(?:\b(?:not|(?:anything|everything|all|any) but|neither|nor|never|except|excluding|excludes?d?"
    r"|eliminat\w{1,5}|rul\w{1,4} out|rejects?|rejected|unlike"
    r"|without|than|instead of|over|discards?|discarded|against|no)|n't|不是|不选|不可能是|不|非|排除|除了|而非"
    r"|并非|不能选)"
    r"(?: ?(?:the|be|options?|answers?|letter|choice|either|both|of|choose|pick|select|say|out|选项"
    r"|选))*[ :(\"']{0,3}\Z",
    re.IGNORECASE,
)

_RULED_OUT_AFTER = re.compile(
    r"[)\].:,\"']{0,2}(?:[ ]?[^\w\s][ ]?|[ ])?(?:(?:is|are|was|were|does|do|did|can|could|would|seems?|looks?|has"
    r"|have|must be|"
    r"both|all|clearly|also|definitely|obviously|simply|just|option|options|选项|是|都|均|明显|显然|也)[ ,]?){0,4}"
    r"(?:n't|not\b|never\b|cannot\b|can't|isn't|aren't|doesn't|don't|didn't|wasn't|won't|no\b|wrong|incorrect"
    r"|false\b|ruled|"
    r"eliminated|excluded|out\b|unlikely|impossible|irrelevant|\?[ ]?no\b|不(?!选|是[A-Za-z(]|可能是|能选)|错"
    r"|排除|没有|未)"
    r"|[ ]?\?[ ]?no\b|[ ]?[\u2717\u2718\u274c\u00d7]",
    re.IGNORECASE,
)

# "All but B are wrong" names B, and so does "nothing but B"; "anything but B" does not.
_ALL_BUT = re.compile(
    r"\b(?:all|every\w{0,5}|any\w{0,5}|each|the others?|the rest)\b[\w ]{0,24}?\b(?:but|except(?: for)?|other than"
    r"|apart from|besides|excluding) (?:for )?(?:the |option )?[(\"']?\Z|除(?:了|去)?(?:选项)?[(]?\Z",
    re.IGNORECASE,
)
_NONE_BUT = re.compile(
    r"\b(?:none|nothing|no \w{1,9}|no one)\b[\w ]{0,24}?\b(?:but|except(?: for)?|other than|apart from|besides) "
    r"(?:the |option )?[(\"']?\Z",
    re.IGNORECASE,
)
_ALL_WRONG = re.compile(
    r"[)\].,\"' ]{0,3}(?:[\w ]{0,16}?\b(?:wrong|incorrect|false|ruled out|eliminated|excluded|impossible|not|can be)\b"
    r"|aren't|isn't|之外|以外|外|[选项其他余,]{0,6}(?:都|均|全)?是?(?:不|错))",
    re.IGNORECASE,
)
_FOLLOWED_BY_NO = re.compile(  # "B, not A" rules out what comes next
    r"[)\].,:\s(]*(?:and |but |so |definitely |certainly |clearly )*(?:not|no|rather)\s*(?:\W|$|the\b|option)"
)
_CORRECTING_NO = re.compile(r"[,.;!?\u2026-] ?no,? (?:it's |it is |i mean )?\(?\Z", re.IGNORECASE)

_PLURAL = re.compile(r"\b(?:are|were|do|have|both|all)\b|aren't|don't|weren't|都|均")

_CALLED_RIGHT = re.compile(
    r"[)\].:]{0,2} ?(?:(?:is|was|are|seems|could be|may be|might be|can be|would be)(?: also| the| a)* )?"
    r"(?:correct|right|true|possible|plausible|the answer|answer|fine)\b|也?(?:是)?(?:对的|正确|对)|[)\].:]{0,2} too\b",
    re.IGNORECASE,
)

# What may follow a letter without punctuation: "B because …", "B is correct", "B 是…".
_FOLLOWS_LETTER = re.compile(
    rf"\s*(?:$|\n|[^\w\s]|[{EAST_ASIAN}]|(?:because|since|as|i think|i believe|i guess|option|obviously|definitely"
    r"|for sure|please|shows|for|that|which|matches|fits|describes|depicts|seems|rather|instead|over|and|or|but"
    r"|not|to|through|vs|"
    r"(?:is|would be|must be|should be|seems) (?:the |a )?(?:most |only |definitely |clearly )?"
    r"(?:correct|right|best|answer|true|accurate|likely|one|option|choice|not|wrong|incorrect|false|proper"
    r"|appropriate|it|my))\b"
    r"|(?:it is|it's|is|isn't|are|was|were|also|can|can't|cannot|both|together"
    r"|alone|only|best|most|appears?|accurately|correctly|could|may|might|would|does|doesn't)\b)",
    re.IGNORECASE,
)

_FOLLOWS_ARTICLE = re.compile(
    rf"\s*(?:$|\n|[^\w\s]|[{EAST_ASIAN}]|(?:because|since|as|is|are|for|and|or|but|not|rather|instead|isn't|cannot|can't|vs|to"
    r"|through|it is|also|could|can|may|might|would)\b)"
)

_FOLLOWS_TEXT = re.compile(
    rf"\s*(?:$|\n|[^\w\s]|(?:because|since|as|and|or|vs|versus|also|plus|then|nor|i think|i believe|i guess|rather"
    rf"|instead|is|are|was|isn't|not|but)\b|[{EAST_ASIAN}]|\(?[A-Z][.):][ {EAST_ASIAN}])",
    re.IGNORECASE,
)

# Between two options of one list: "A, C and D".
_LISTED = re.compile(
    r"[ )(.:\]\[]*(?:,|/|&|\band\b|\bor\b|\bnor\b|[和或与]|以及)[ (]*(?:(?:and|or) )?(?:option |the )?[(\[]?"
)
MAX_MENTIONS = 100  # more of them are a loop, not an answer
_FOLLOWS_BEGINNING = re.compile(r" (?:because|since|is (?:the )?(?:correct|right|best|answer))\b")
_LETTER = re.compile(rf"(?<![^\W{EAST_ASIAN}])[A-Za-z](?![^\W{EAST_ASIAN}])")

CORRECTED = re.compile(
    r"\b(?:wait|no|but|however|actually|so|thus|therefore|hence|final|finally|corrected|correction|instead|rather"
    r"|reconsider\w*|conclusion|oops|sorry)\b|不对|但|所以|因此|最终|最后|更正|其实|而是",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Mention:
    """One place in a text that names an option; `letters` are several where options have the same text."""

    letters: frozenset[str]
    start: int
    end: int
    is_label: bool = True


def mentions_in(text: str, options: Options) -> Iterator[Mention]:
    """Find the options that a text mentions, in order. A label and the option's own text right after it are one."""
    found = [*_text_mentions(text, options)]
    covered = [(mention.start, mention.end) for mention in found]
    position = 0
    for match in _LETTER.finditer(text):
        while position < len(covered) and covered[position][1] <= match.start():
            position += 1
        inside = position < len(covered) and covered[position][0] <= match.start()
        if not inside and _is_label(text, match, options):
            found.append(Mention(frozenset({match.group().upper()}), match.start(), match.end()))
            if len(found) > MAX_MENTIONS:
                break
    found.sort(key=lambda mention: mention.start)
    index = 0
    while index < len(found):
        mention = found[index]
        following = found[index + 1] if index + 1 < len(found) else None
        if following and mention.is_label != following.is_label and mention.letters & following.letters:
            gap = text[mention.end : following.start]
            if len(gap) <= 5 and not _WORD.search(gap):
                yield Mention(mention.letters & following.letters, mention.start, following.end, is_label=True)
                index += 2
                continue
        yield mention
        index += 1


def _text_mentions(text: str, options: Options) -> Iterator[Mention]:
    if options.pattern is None:
        return
    for match in options.pattern.finditer(text):
        stands_alone = _FOLLOWS_TEXT.match(text, match.end()) or options.pattern.match(text, match.end() + 1)
        if not stands_alone or _inside_number(text, match):
            continue
        letters = letters_of_text(match.group(), options)
        if len(match.group()) == 1 and match.group().isascii() and match.group().isalpha():
            # An option whose text is a letter: where options have letters of their own, it is named after its label.
            before = re.search(r"(?:^|\W)([A-Za-z])[.):] ?\(?$", text[max(0, match.start() - 5) : match.start()])
            labelled = before is not None and before.group(1).upper() in letters
            if not labelled and (options.lettered or match.group() not in options.texts.values()):
                continue
        if letters:
            yield Mention(letters, match.start(), match.end(), is_label=False)


def _inside_number(text: str, match: re.Match[str]) -> bool:
    """Say whether a figure is only a part of what is written: the 3 of "3.5" or of "1:30"."""
    after = re.match(r"[.,:/][0-9]", text[match.end() : match.end() + 2])
    before = re.search(r"[0-9][.,:/]$", text[max(0, match.start() - 2) : match.start()])
    return match.group()[-1:].isdigit() and after is not None or match.group()[:1].isdigit() and before is not None


def _is_label(text: str, match: re.Match[str], options: Options) -> bool:
    """Say whether a letter that stands alone is an option's label: not an article, a pronoun, an initial."""
    letter, start, end = match.group(), match.start(), match.end()
    if options.texts and letter.upper() not in options.texts:
        return not text[:start].strip(" (") and re.match(r"[.):]\s", text[end : end + 2]) is not None
    before, after = text[max(0, start - 2) : start], text[end : end + 3]
    if re.match(r"'\w|\.[A-Za-z](?:$|\W)|-[A-Za-z]{2}", after) or re.search(
        r"(?:\w'|[A-Za-z]\.|[A-Za-z]{2}-)\Z", text[max(0, start - 3) : start]
    ):
        return bool(re.match(r"\.[A-Za-z]\s", after)) and False
    if letter.islower():
        enclosed = before[-1:] in tuple("([") and after[:1] in tuple(")]")
        named = re.search(
            r"\b(?:option|answer|choice|letter|answer is|选项?)\s?:?\s?$", text[max(0, start - 12) : start], re.I
        )
        ends = (
            not after.strip()
            or after[:1] in tuple(".):,;/")
            or re.match(r" (?:or|and) \(?[a-z]\b", text[end : end + 8])
        )
        listed = not text[:start].strip() or re.search(
            r"[,;/(\n]\s*$|\b(?:or|and)\s\(?$", text[max(0, start - 6) : start]
        )
        if letter in "ai":
            ends = ends and listed
        begins = not text[:start].strip() and letter != "i" and _FOLLOWS_BEGINNING.match(text, end)
        return bool(enclosed or (named and not re.match(r"\s\w", after)) or ends or begins)
    if before[-1:] in tuple("([<") and after[:1] in tuple(")]>"):
        return True
    if letter in "AI":
        if letter == "I" and re.match(r"\s+(?:is|am|as|and|or)\b", text[end : end + 5]) is None and after[:1] == " ":
            return False
        return _FOLLOWS_ARTICLE.match(text, end) is not None or _labels_its_text(text, end, letter, options)
    return _FOLLOWS_LETTER.match(text, end) is not None or _labels_its_text(text, end, letter, options)


def _labels_its_text(text: str, end: int, letter: str, options: Options) -> bool:
    """Say whether the option's own words follow its letter: "A milk"; or another label: "A B C"."""
    own = options.texts.get(letter, "")
    rest = text[end : end + len(own) + 1]
    if own and rest.strip().casefold().startswith(own.casefold()[: max(1, len(own) - 1)]):
        return True
    return re.match(r"\s+\(?[A-Z]\)?(?:\s|$|[,.;:)\]}>])", text[end : end + 6]) is not None


def ruled_in(text: str, mentions: Sequence[Mention]) -> list[Mention]:
    """Drop the mentions that the text rules out: "not A", "neither A nor B", "A and C are wrong"."""
    out: set[int] = set()
    for index, mention in enumerate(mentions):
        gap = text[mentions[index - 1].end : mention.start] if index else ""
        # An option's own text rules nothing out: "no" may be an option.
        before = text[max(0, mention.start - 40, mentions[index - 1].end if index else 0) : mention.start]
        listed = (
            index and index - 1 in out and re.fullmatch(r"[\s,)(.:]*(?:or|nor|and|/|、|或|和)[\s(]*(?:option )?", gap)
        )
        limit = mentions[index + 1].start if index + 1 < len(mentions) else len(text)
        if _NONE_BUT.search(before) or (_ALL_BUT.search(before) and _ALL_WRONG.match(text, mention.end, limit)):
            continue
        corrects = index > 0 and mention.is_label and _CORRECTING_NO.search(before)
        if (
            listed
            and not _RULED_OUT_AFTER.match(text, mentions[index - 1].end, mention.start)
            or (RULED_OUT_BEFORE.search(before) and not corrects)
        ):
            out.add(index)
        predicate = _RULED_OUT_AFTER.match(text, mention.end, min(limit, mention.end + 60))
        is_verdict = re.match(r" ?[:=?] ?no(?:$|[\n,;.])", text[mention.end : mention.end + 8], re.IGNORECASE)
        if predicate and (is_verdict or not _FOLLOWED_BY_NO.match(text, mention.end, limit)):
            out.add(index)
            back = index
            while back and _LISTED.fullmatch(text, mentions[back - 1].end, mentions[back].start):
                if not _PLURAL.search(predicate.group()) and "," in text[mentions[back - 1].end : mentions[back].start]:
                    break
                back -= 1
                out.add(back)
        if index in out and listed is None and index >= 2 and re.search(r"\b(?:or|nor)\b", gap):
            out.update(_comma_list_before(text, mentions, index, out))
    return [mention for index, mention in enumerate(mentions) if index not in out]


def _comma_list_before(text: str, mentions: Sequence[Mention], index: int, out: set[int]) -> set[int]:
    """Give the indices of "not A, B or C" that stand between the one ruled out and this one."""
    found: set[int] = set()
    back = index - 1
    while back >= 0 and back not in out and "," in text[mentions[back].end : mentions[back + 1].start]:
        found.add(back)
        back -= 1
    return found if back in out else set()


def only_one_left(mentions: Sequence[Mention], options: Options) -> str | None:
    """Give the option that is left where a text rules out all others of three or more: "A, C and D are wrong"."""
    out = {letter for mention in mentions for letter in mention.letters}
    left = options.texts.keys() - out
    return next(iter(left)) if len(options.texts) >= 3 and len(left) == 1 else None


def joins(gap: str) -> bool:
    """Say whether two options with this text between them are listed side by side."""
    return len(gap) <= 60 and _all_in(_JOIN_WORDS, gap)


def _all_in(words: frozenset[str], text: str) -> bool:
    """Say whether a text has no other words than these; a run of EAST_ASIAN characters may be several of them."""
    found = [word.casefold() for word in _WORD.findall(text) if word.casefold() not in words]
    return all(_is_made_of(words, word) for word in found)


def _is_made_of(words: frozenset[str], run: str) -> bool:
    if not "\u3040" <= run[0] <= "\u9fff" or len(run) > 16:
        return False
    reached = {0}
    for end in range(1, len(run) + 1):
        if any(run[start:end] in words for start in range(max(0, end - 6), end) if start in reached):
            reached.add(end)
    return len(run) in reached


def leads(prefix: str, ruled_out: Sequence[Mention]) -> bool:
    """Say whether a text before an option only leads up to it: "I think it is", "A is wrong, so"."""
    if ruled_out:
        prefix = prefix[ruled_out[-1].end :]
        clause = re.split(r"[,.;:!?\n。]|\b(?:so|but|therefore|thus|hence)\b|所以|因此|故|而是", prefix)
        return _all_in(_LEAD_WORDS, clause[-1]) and len(clause[-1]) <= 80
    if len(prefix) > 120:
        return False
    if _ALL_BUT.search(prefix) or _NONE_BUT.search(prefix):  # `ruled_in` has seen that it is not "anything but"
        return True
    return _all_in(_LEAD_WORDS, prefix) and not re.search(r"[0-9]", prefix)


def is_called_right(text: str, previous: Mention, mention: Mention) -> bool:
    """Say whether a text calls one more option right: the B of "A is correct. B is correct."."""
    if CORRECTED.search(text[previous.end : mention.start]):
        return False
    return _CALLED_RIGHT.match(text, mention.end) is not None


def begins_item(text: str, mention: Mention) -> bool:
    """Say whether a mention begins a line or an item of a list, and so is named beside the one before."""
    before = text[max(0, mention.start - 12) : mention.start]
    if re.search(r"(?:^|\n)[\s(\[\d.)]*$", before) and "\n" in before:
        rest = text[mention.end : mention.end + 40]
        return mention.is_label or not rest.split("\n")[0].strip(" .,;)")
    after = text[mention.end : mention.end + 10]
    is_long = mention.end - mention.start > 1 or re.match(r"[.):]\s| (?:because|since|for)\b", after)
    return bool(mention.is_label and is_long and re.search(r"[,;.]\s*\(?$", before))
