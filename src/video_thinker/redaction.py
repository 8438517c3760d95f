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
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import parse_qsl, quote, urlsplit

MARK = "[key]"
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
            lower = form.translate(_ASCII_LOWER)
            _windows.update(lower[i : i + MIN_LENGTH] for i in range(len(lower) - MIN_LENGTH + 1))


def _forms(secret: str) -> Iterator[str]:
    """Write a secret as servers and libraries may: as it is, percent-encoded, as hex, as base64 at each offset."""
    raw = secret.encode()
    yield secret
    yield quote(secret, safe="")
    yield raw.hex()
    yield secret.encode("unicode_escape").decode()
    for shift in range(3):  # base64 depends on where in a longer text the secret begins
        coded = base64.b64encode(bytes(shift) + raw).decode()
        inner = coded[(0, 2, 3)[shift] : len(coded) - (0 if (shift + len(raw)) % 3 == 0 else 4)]
        if len(inner) >= MIN_LENGTH:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


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
    lower = text.translate(_ASCII_LOWER)
    kept: list[str] = []
    end = 0  # of the last key
    for start in range(len(lower) - MIN_LENGTH + 1):
        if lower[start : start + MIN_LENGTH] in _windows:
            if start > end or not kept:
                kept += [text[end:start], MARK]
            end = start + MIN_LENGTH
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
    """A text stream whose texts are redacted; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _show_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


@contextlib.contextmanager
def redacted_output(argv: Sequence[str]) -> Iterator[None]:
    """Show no key on standard output and standard error: not those of the environment, nor those in `argv`."""
    register_environment()
    register_arguments(argv)
    sys.excepthook = _show_exception
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Redacted(out), _Redacted(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
