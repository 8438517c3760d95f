"""Text as models write it -> plain text: white space, full-width forms, markdown, LaTeX and tags around an answer.

Every function here takes time linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import re
import unicodedata

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
EAST_ASIAN = CJK + "\uac00-\ud7a3"  # scripts whose words may touch a Latin letter: "B입니다"

_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufe0e\ufe0f]")
_CHAT_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</s>\s*\Z")  # "<|begin_of_box|>", "<|im_end|>", an end of text
_MARKUP_TAG = re.compile(r"</?(?:[bipuq]|[A-Za-z][A-Za-z_]{1,15}) ?/?>")  # "<b>", "<br/>", "<option>"
_STRUCK_OUT = re.compile(r"~~[^~\n]{1,200}~~")
_LATEX_WRAPPER = re.compile(
    r"\\(?:text|mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|textsf|texttt|boldsymbol|bf|rm|bm|mbox|fbox|underline|emph)"
    r" {0,3}\{([^{}]{0,300})\}"
)
_BRACE = re.compile(r"\\boxed {0,3}\{|\\f?box {0,3}\{|[{}]")
_BARE_BOX = re.compile(r"\\boxed {1,3}([A-Za-z0-9]{1,9})")
_MAX_CUT_BOX_CHARS = 40
_WRITTEN_LINE_BREAK = re.compile(r"\\n(?![a-z])")
_LATEX_MATH = re.compile(r"\\[()\[\]]|\$\$?")
_LATEX_SPACE = re.compile(r"\\[,;:! ]|\\q?quad\b|~(?=\\)")
_LINE_MARK = re.compile(
    r"^[ \t]{0,8}(?:#{1,6}[ \t]|>[ \t]?|[-*+\u2022\u00b7][ \t](?:\[[ xX\u2713]\][ \t])?|\[[xX\u2713]\][ \t])",
    re.MULTILINE,
)
_CHECKED = re.compile(r"^[ \t]{0,8}(?:[-*+] )?(?:\[[xX\u2713]\]|[\u2611\u2705])", re.MULTILINE)
_UNCHECKED = re.compile(r"^[ \t]{0,8}(?:[-*+] )?(?:\[ ?\]|[\u2610\u25a1])[^\n]*$", re.MULTILINE)
_CJK_SPACE = re.compile(rf"(?<=[{CJK}]) (?=[{CJK}])")
_PUNCTUATION = str.maketrans(
    {
        "\u3010": "(",  # 【
        "\u3011": ")",
        "\u300c": '"',
        "\u300d": '"',
        "\u300e": '"',
        "\u300f": '"',
        "\u300a": '"',
        "\u300b": '"',
        "\u3014": "(",
        "\u3015": ")",
        "\u3016": "(",
        "\u3017": ")",
        "\u201c": '"',
        "\u201d": '"',
        "\u2018": "'",
        "\u2019": "'",
        "\u02bc": "'",
        "\uff40": "'",
        "\u2212": "-",  # the typographic minus
        "\u2010": "-",
        "\u2011": "-",
        "\u3001": ",",  # 、
        "\u2044": "/",
        "\u2215": "/",
        "\U0001f170": "A",
        "\U0001f171": "B",
    }
)


def normalize_space(text: str) -> str:
    """NFC, no invisible characters, each run of white space one space, none between CJK characters."""
    visible = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    return _CJK_SPACE.sub("", " ".join(visible.split()))


def plain_lines(text: str) -> str:
    r"""Write a text in plain characters, without markdown, tags and LaTeX's wrappers; its lines are kept.

    Full-width forms become ASCII, "【B】" becomes "(B)", "**B**" becomes "B", "$\text{B}$" becomes "B". What is
    struck out ("~~A~~ B") is gone. `\boxed{…}` is kept: see `boxed_parts`.
    """
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_PUNCTUATION)
    if _CHECKED.search(text):
        text = _UNCHECKED.sub("", text)
    text = _BARE_BOX.sub(r"\\boxed{\1}", _WRITTEN_LINE_BREAK.sub("\n", text))
    text = _STRUCK_OUT.sub(" ", _CHAT_TOKEN.sub(" ", text))
    text = _LINE_MARK.sub("", _MARKUP_TAG.sub(" ", text))
    text = _LATEX_SPACE.sub(" ", text)
    for _ in range(3):  # \textbf{\text{B}}
        text = _LATEX_WRAPPER.sub(r"\1", text)
    text = _LATEX_MATH.sub(" ", text).replace("**", "").replace("__", "").replace("`", "")
    return "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()


def boxed_parts(text: str) -> list[tuple[int, int, str]]:
    r"""Find each outermost `\boxed{…}`: where it starts and ends, and what is in it.

    One left open counts if little follows.
    """
    parts = []
    depth, opened = 0, None  # of the braces inside of a box
    for match in _BRACE.finditer(text):
        brace = match.group()
        if opened is None:
            if brace.startswith("\\"):
                opened, depth = match, 1
        elif brace == "}":
            depth -= 1
            if depth == 0:
                parts.append((opened.start(), match.end(), text[opened.end() : match.start()]))
                opened = None
        else:
            depth += 1
    if opened is not None and len(text) - opened.end() <= _MAX_CUT_BOX_CHARS:  # cut off at the token limit
        parts.append((opened.start(), len(text), text[opened.end() :]))
    return parts
