"""What can go wrong with a server, in our words. Runs without torch.

Libraries say "Connection error." and keep the cause in `__cause__`. `describe_failure` looks there and says what a
person can act on: connection refused, an unknown host, a certificate, a timeout, too many open files, a web page in
place of JSON.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
from collections.abc import Iterator

import openai

from video_thinker.redaction import MARK, redact

MAX_WORDS = 300
"""Characters of a server's own words that a message repeats."""

MIN_SHOWN_KEY = 3
"""A "key" that is shorter would blank letters of every message."""


class BrokenReplyError(Exception):
    """The body of a response was no chat completion."""


class NoJsonError(BrokenReplyError):
    """The body was nothing that a chat server sends: a web page, or nothing at all."""


class BlockedResponseError(openai.OpenAIError):
    """A response that is not read: too long, packed, or a redirect to another host."""


PEER = {
    "without sending complete": "the body was cut: the server closed the connection in the middle of it",
    "without sending a response": "the server closed the connection without a response",
    "incomplete chunked": "the body was cut: the server closed the connection in the middle of it",
    "illegal": "the server speaks no HTTP (is it https:// in place of http://?)",
}
"""What `RemoteProtocolError` says -> what it means."""

ERRNO = {
    errno.EMFILE: "too many open files: raise the limit (ulimit -n), or lower concurrency",
    errno.ENFILE: "too many open files on this machine: lower concurrency",
    errno.ECONNREFUSED: "connection refused: nothing listens at this address",
    errno.ENETUNREACH: "the network cannot be reached",
    errno.EHOSTUNREACH: "the host cannot be reached",
    errno.ECONNRESET: "the server reset the connection",
    errno.EPIPE: "the server closed the connection",
    errno.ENOBUFS: "this machine is out of network buffers: lower concurrency",
    errno.EADDRNOTAVAIL: "this machine has no free port left: lower concurrency",
}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and all that led to it, members of exception groups too."""
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions


def name_cause(error: BaseException, timeout_s: float | None = None) -> str | None:
    """Say in our words why a request failed on the way; `None` if there are none for it."""
    chain = list(causes(error))
    named = (_name_connection(one) for one in chain)
    spoken = (_name_talk(one, timeout_s) for one in chain)
    return next(filter(None, named), None) or next(filter(None, spoken), None)


def _name_connection(one: BaseException) -> str | None:
    """Name what keeps a connection from coming about."""
    if isinstance(one, BlockedResponseError | NoJsonError):
        return str(one)
    if isinstance(one, ssl.SSLCertVerificationError):
        return f"the server's TLS certificate is not accepted ({one.verify_message})"
    if isinstance(one, ssl.SSLError):
        return f"no TLS connection ({one.reason or one}; is it http:// in place of https://?)"
    if isinstance(one, socket.gaierror):
        return f"the host name is not known (DNS: {one.strerror})"
    return ERRNO.get(one.errno or 0) if isinstance(one, OSError) else None


def _name_talk(one: BaseException, timeout_s: float | None) -> str | None:
    """Name what ends a request after its connection has come about."""
    kind, said = type(one).__name__, str(one)
    if kind == "ConnectTimeout":
        return "timeout: the host does not take a connection"
    if isinstance(one, TimeoutError | openai.APITimeoutError) or kind.endswith("Timeout"):
        return "timeout: no answer" + ("" if timeout_s is None else f" within {timeout_s:g} s")
    if kind == "RemoteProtocolError":
        return next((words for sign, words in PEER.items() if sign in said.lower()), f"no HTTP: {said}")
    if kind in ("ReadError", "WriteError", "CloseError"):
        return ERRNO[errno.ECONNRESET]
    if isinstance(one, json.JSONDecodeError):
        return name_body(one.doc) or "the body is no JSON, or was cut"
    return None


def name_body(text: str) -> str | None:
    """Say what a body is that is no JSON: empty, or a web page; `None` if it may be JSON."""
    start = text.lstrip("\ufeff \r\n\t")[:200].lower()
    if not start:
        return "the body is empty"
    if start.startswith(("<!doctype", "<html", "<head", "<?xml", "<body", "<title")):
        return "a web page (HTML) in place of JSON: is the path of base_url right? It mostly ends in /v1"
    return None


def describe_failure(error: BaseException, key: str | None = None, *, timeout_s: float | None = None) -> str:
    """Say in one line why a request failed: the cause in our words, what the server said, and no key."""
    if isinstance(error, openai.APIStatusError):
        words = f"HTTP {error.status_code}: {_said(error)}"
        if error.status_code == 404:  # noqa: PLR2004
            words = f"HTTP 404, no such path or model: {_said(error)}"
    else:
        words = name_cause(error, timeout_s) or f"{type(error).__name__}: {error}"
    shown = " ".join(redact(words).split())
    if key and len(key) > MIN_SHOWN_KEY:
        shown = shown.replace(key, MARK)
    return shown[:MAX_WORDS] or type(error).__name__


def _said(error: openai.APIStatusError) -> str:
    """Give the server's own words: the message in the body, if it is in OpenAI's form, else the body."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    if isinstance(message, str) and message:
        return message
    text = error.response.text if body is None else str(body)
    return name_body(text) or text


def is_unreachable(error: BaseException) -> bool:
    """Say whether no connection came about: then other requests fare no better."""
    if not isinstance(error, openai.APIConnectionError):
        return False
    chain = list(causes(error))
    return any(type(one).__name__ in ("ConnectError", "ConnectTimeout") for one in chain) or any(
        isinstance(one, ssl.SSLError | socket.gaierror | ConnectionRefusedError) for one in chain
    )
