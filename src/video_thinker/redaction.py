"""Keys and passwords are never shown: the one room that knows them and takes them out of texts.

A text is safe after `redact`. It takes out three kinds of secrets:

- those this process was told (`register`), also as base64, percent-encoded or hex, and each part from 8 characters on;
- values in a place where a key belongs: `api_key: …`, `Authorization: Bearer …`, `http://user:password@host`, `?key=…`;
- texts in a form that providers give to keys: `sk-…`, `hf_…`, `AIza…` and the like.

`redacted_output` sends all that a command prints through it.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import parse_qsl, quote, urlsplit

MARK = "[key]"
STDOUT, STDERR = "standard output", "standard error"
MIN_LENGTH = 8
"""Shorter "keys" are placeholders ("EMPTY", "1") that any text may hold; a part of a key counts from this length on."""

PLACEHOLDERS = frozenset({"placeholder", "not-needed", "not_needed", "no-key-required", "none-required"})
"""Written where a server wants no key."""

_SECRET_NAME = re.compile(
    r"(?:api|access|secret|private|auth|subscription)[_-]?key|secret|passw(?:or)?d|passphrase|authorization|credential"
    r"|bearer|(?:^|[_-])(?:auth|key|apikey|pwd|token)$|^x-.*-key$",
    re.IGNORECASE,
)
_VOCABULARY = re.compile(
    r"(?:eos|bos|pad|unk|sep|cls|mask|stop|end|start|image|video|vision|special)_?token$", re.IGNORECASE
)
"""Tokens of a tokenizer, whose names end like those of keys."""
_KEY_FORM = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|pk|rk|gsk|xai|pplx|fw|r8|tgp|nvapi|csk)[-_](?=[\w-]*\d)[\w-]{12,}"
    r"|hf_(?=[A-Za-z]*\d)[A-Za-z0-9]{12,}|gh[pousr]_\w{12,}|github_pat_\w{12,}|glpat-[\w-]{12,}|xox[abprs]-[\w-]{8,}"
    r"|AIza[\w-]{6,}|ya29\.[\w-]{12,}|AKIA[A-Z0-9]{12,}|eyJ[\w-]{8,}\.[\w-]{8,}\.?[\w-]*"
    r")"
)
_NAMED_VALUE = re.compile(
    r"""(?P<name>["']?[\w-]*(?:api[_-]?key|secret|passw(?:or)?d|passphrase|authorization|credential|access[_-]?token"""
    r"""|auth[_-]?token|secret[_-]?key|bearer[_-]?token)[\w-]*["']?)(?P<between>\s*[=:]\s*|\s+(?=["']))"""
    r"""(?P<value>(?:(?:Bearer|Basic)\s+)?(?:"[^"\n]*"|'[^'\n]*'|[^\s,;}\])"']+))""",
    re.IGNORECASE,
)
_SCHEME_VALUE = re.compile(r"\b(?P<scheme>Bearer|Basic)\s+(?P<value>[\w.~+/=-]{8,})", re.IGNORECASE)
_USER_INFO = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<user>[^\s/@\"'<>]+)@", re.IGNORECASE)
_QUERY_VALUE = re.compile(
    r"(?P<name>[?&][\w-]*(?:key|token|secret|password|passwd|pwd|auth|sig|signature|credential)[\w-]*=)[^\s&#\"'<>]+",
    re.IGNORECASE,
)
_NAMES_A_VARIABLE = re.compile(r"api_?key_env", re.IGNORECASE)
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

_WORD = re.compile(r"[A-Za-z0-9]{10,}")
RANDOM_CHANGES = 0.4
"""In a random word, at least this share of neighbours are of different kinds (small letter, capital, digit)."""

_known: set[str] = set()
_windows: set[str] = set()


def register(*secrets: str | None) -> None:
    """Remember keys and passwords, so that `redact` takes them out in every form."""
    for secret in secrets:
        text = (secret or "").strip()
        if len(text) < MIN_LENGTH or text in _known or text.lower() in PLACEHOLDERS:
            continue
        _known.add(text)
        for form in _forms(text):
            packed, _ = _letters_and_digits(form)
            if len(packed) < MIN_LENGTH:
                packed = form.translate(_ASCII_LOWER)
            _windows.update(packed[i : i + MIN_LENGTH] for i in range(len(packed) - MIN_LENGTH + 1))


def _forms(secret: str) -> Iterator[str]:
    """Write a secret as servers and libraries may: as it is, backwards, escaped, as hex, base32 and base64."""
    raw, wide = secret.encode(), secret.encode("utf-16-le")
    yield secret
    yield secret[::-1]
    yield quote(secret, safe="")
    yield quote(quote(secret, safe=""), safe="")
    yield raw.hex()
    yield wide.hex()
    yield secret.encode("unicode_escape").decode()
    for form in ("&#{};", "&#x{:x};", "\\u{:04x}", "\\x{:02x}"):  # HTML, JSON, Python
        yield "".join(form.format(ord(character)) for character in secret)
    yield base64.b32encode(raw).decode().rstrip("=")
    for data in (raw, wide):
        for shift in range(3):  # base64 depends on where in a longer text the secret begins
            coded = base64.b64encode(bytes(shift) + data).decode()
            inner = coded[(0, 2, 3)[shift] : len(coded) - (0 if (shift + len(data)) % 3 == 0 else 4)]
            if len(inner) >= MIN_LENGTH:
                yield inner
                yield inner.replace("+", "-").replace("/", "_")


def _letters_and_digits(text: str) -> tuple[str, list[int]]:
    """Give letters and digits of a text, in lower case, and their places: an echo may have other signs between them."""
    lower = text.translate(_ASCII_LOWER)
    places = [place for place, character in enumerate(lower) if character.isalnum()]
    return "".join(lower[place] for place in places), places


def register_environment(environment: Mapping[str, str] | None = None) -> None:
    """Remember what stands in environment variables whose names say that they hold a key."""
    for name, value in (os.environ if environment is None else environment).items():
        if is_secret_name(name) and value[:1] != os.path.sep:  # a path names a file, as SSH_AUTH_SOCK does
            register(value)


def register_text(text: str) -> None:
    """Remember the keys that stand in a config file or on a command line in a place where a key would."""
    for match in _NAMED_VALUE.finditer(text):
        if not _NAMES_A_VARIABLE.search(match["name"]):
            value = re.sub(r"^(?:Bearer|Basic)\s+", "", match["value"], flags=re.IGNORECASE)
            register(value.strip("\"'"))
    for match in _SCHEME_VALUE.finditer(text):
        register(match["value"])
    for match in _KEY_FORM.finditer(text):
        register(match.group())
    for match in re.finditer(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>,;{}\[\]]+", text, re.IGNORECASE):
        register_url(match.group())


def register_arguments(argv: Sequence[str]) -> None:
    """Remember the keys on a command line: `key=value`, `--flag value`, YAML in a value."""
    for number, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if not equals and argument.startswith("-") and number + 1 < len(argv):
            value = argv[number + 1]
        if is_secret_name(name):
            register(value.strip("\"'"))
        register_text(argument)


def register_url(url: str) -> None:
    """Remember the password, and the values of the query, of an address."""
    if login := re.match(r"[a-z][a-z0-9+.-]*://([^@\s]*)@", url, re.IGNORECASE):  # also one with a "/" in it
        register(login[1], *login[1].split(":", 1))
    try:
        parts = urlsplit(url)
        values = [parts.username, parts.password, *(value for _, value in parse_qsl(parts.query))]
    except ValueError:
        return
    register(*values)


def register_nested(value: object) -> None:
    """Remember every text in a nested value."""
    if isinstance(value, Mapping):
        for one in value.values():
            register_nested(one)
    elif isinstance(value, list | tuple):
        for one in value:
            register_nested(one)
    elif value is not None:
        register(str(value))


def is_secret_name(name: str) -> bool:
    """Say whether a field or variable of this name holds a key: `api_key`, `HF_TOKEN`, `Authorization`."""
    return bool(_SECRET_NAME.search(name)) and not (_NAMES_A_VARIABLE.search(name) or _VOCABULARY.search(name))


def has_key(text: str) -> bool:
    """Say whether a text holds a key: one that is known, or one in a form that providers give to keys."""
    return bool(_KEY_FORM.search(text)) or any(secret in text for secret in _known)


def redact_known(text: str) -> str:
    """Take only the keys out that this process was told: for what a model wrote, in which nothing else may change."""
    if not _windows or len(text) < MIN_LENGTH:
        return text
    packed, places = _letters_and_digits(text)
    kept: list[str] = []
    end = 0  # of the last key
    for start in range(len(packed) - MIN_LENGTH + 1):
        if packed[start : start + MIN_LENGTH] in _windows:
            if places[start] > end or not kept:
                kept += [text[end : places[start]], MARK]
            end = places[start + MIN_LENGTH - 1] + 1
    return "".join([*kept, text[end:]])


def redact(text: str) -> str:
    """Take keys and passwords out of a text that is to be shown or stored."""
    text = _USER_INFO.sub(rf"\g<scheme>{MARK}@", redact_known(text))
    text = _QUERY_VALUE.sub(rf"\g<name>{MARK}", text)
    text = _NAMED_VALUE.sub(_redact_value, text)
    text = _SCHEME_VALUE.sub(rf"\g<scheme> {MARK}", text)
    return _KEY_FORM.sub(MARK, text)


def _redact_value(match: re.Match[str]) -> str:
    if _NAMES_A_VARIABLE.search(match["name"]) or not _looks_secret(match["value"]):
        return match.group()
    return f"{match['name']}{match['between']}{MARK}"


def _looks_secret(value: str) -> bool:
    """Say whether what follows `api_key:` can be a key; a sentence such as "password: must be set" goes on in words."""
    bare = re.sub(r"^(?:Bearer|Basic)\s+", "", value.strip("\"'"), flags=re.IGNORECASE)
    return len(bare) >= MIN_LENGTH and not bare.startswith(MARK)


def redact_random(text: str) -> str:
    """Take out what may be a key as well: words that look random, for messages about what stands in a wrong place."""
    return _WORD.sub(lambda match: MARK if _looks_random(match.group()) else match.group(), redact(text))


def _looks_random(word: str) -> bool:
    kinds = ["digit" if one.isdigit() else "lower" if one.islower() else "upper" for one in word]
    changes = sum(one != other for one, other in pairwise(kinds))
    return "digit" in kinds and changes >= RANDOM_CHANGES * (len(word) - 1)


def redact_values(value: Any) -> Any:
    """Take keys out of all texts in a nested value that is to be stored."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: redact_values(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(one) for one in value]
    return value


class RedactingFormatter(logging.Formatter):
    """A formatter of log lines, tracebacks included, without keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a line."""
        return redact(super().format(record))


class _Redacted:
    """A text stream whose texts are redacted; everything else is the stream's own.

    What it shows may be lost if `may_be_lost`: a full disk, a closed pipe or a terminal that is gone must not end a
    command that keeps its work in files.
    """

    def __init__(self, stream: TextIO, name: str, *, may_be_lost: bool) -> None:
        self._stream, self._name, self._may_be_lost = stream, name, may_be_lost
        self.is_broken = False

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(redact(text)))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        if self.is_broken and self._may_be_lost:
            return
        try:
            action()
        except OSError as error:
            first, self.is_broken = not self.is_broken, True
            if not self._may_be_lost:
                raise OSError(error.errno, error.strerror, self._name) from error
            if first and self._name != STDERR:
                sys.stderr.write(f"{self._name} cannot be written any more ({error.strerror}); the run goes on\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _show_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


@contextlib.contextmanager
def redacted_output(argv: Sequence[str], *, keeps_files: bool = False) -> Iterator[None]:
    """Show no key on standard output and standard error: not those of the environment, nor those in `argv`.

    Args:
        argv: The command line.
        keeps_files: The command writes its results to files: standard output is for watching, and may be lost.
    """
    register_environment()
    register_arguments(argv)
    sys.excepthook = _show_exception
    out, err = sys.stdout, sys.stderr
    shown, said = _Redacted(out, STDOUT, may_be_lost=keeps_files), _Redacted(err, STDERR, may_be_lost=True)
    sys.stdout, sys.stderr = shown, said
    try:
        yield
    finally:
        for stream in (shown, said):
            with contextlib.suppress(OSError, ValueError):  # said before; ValueError: closed
                stream.flush()
        sys.stdout, sys.stderr = out, err
        for stream, real in ((shown, out), (said, err)):
            if stream.is_broken:
                _drop(real)


def _drop(stream: TextIO) -> None:
    """Let what a broken stream still holds go nowhere, or Python would complain of it as it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
