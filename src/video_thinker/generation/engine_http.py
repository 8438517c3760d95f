"""Asks an engine's server over HTTP: one request, or the same request until a server that was away has answered it.

A server is *lost* when no connection comes about, when its answer is cut, or when it is silent: while it works it beats
every second. A lost server is waited for. What it answers is checked; an answer that cannot be true is asked for again
a few times. Nothing that was lost has been used, so nothing counts twice.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from video_thinker.errors import ConfigError, EngineError, NonFiniteError, NotEnoughMemoryError
from video_thinker.generation.faults import ERRNO, name_body, name_cause
from video_thinker.generation.served import StaleWeightsError, difference
from video_thinker.generation.wire import BEAT, BEGIN, CONTENT_TYPE, BrokenMessageError, Message, unpack
from video_thinker.redaction import redact, register

logger = logging.getLogger(__name__)
T = TypeVar("T")

SILENCE_S = 15.0
"""So long without a beat, and a server is lost."""
MAX_ANSWER_BYTES = 256 * 2**20
"""The longest answer that is read: a million tokens with their log-probabilities have 16 MiB."""
MAX_BROKEN = 3
"""So many answers in a row that cannot be true, and the run stops."""
MAX_LOST = 10
"""So often may a server be lost with the same request: after that the request is what kills it."""
POLL_S = 0.5
AWAY_STATUS = (502, 503, 504)
"""What a proxy says whose server is away."""


class LostServerError(Exception):
    """A server is away, silent, or has cut its answer; the text says which."""


@dataclass(frozen=True)
class Status:
    """What a server says of itself."""

    boot: str
    engine: str
    model: dict[str, Any]
    dtype: str
    weights: str | None
    max_body_bytes: int


class EngineClient:
    """One server.

    Args:
        url: Its address, `http://127.0.0.1:8500`.
        token_env: Environment variable with the token, which may be unset.
        wait_s: How long a server that is lost is waited for.
        timeout_s: Longest time for one request.
        model: What the model is (`describe_model`), and its type: the server must have the same.
        dtype: Its type, "float32".

    Raises:
        ConfigError: the address or the token is none.
    """

    def __init__(
        self, url: str, token_env: str, *, wait_s: float, timeout_s: float, model: dict[str, Any], dtype: str
    ) -> None:
        """See the class; nothing is sent yet."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigError(f"engine_url={redact(url)!r}: write an address such as http://127.0.0.1:8500.")
        self.url, self._parts = url.rstrip("/"), parts
        self.wait_s, self.timeout_s = wait_s, timeout_s
        self.model, self.dtype = model, dtype
        self._token = read_token(token_env)
        self._token_env = token_env
        self._boot: str | None = None
        self.max_body_bytes = 0

    # --- one request --------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Ask what is served, once.

        Raises:
            LostServerError: it is away.
            ConfigError: it does not let us in, or serves another model.
            BrokenMessageError: it is no engine's server.
        """
        return self._read_status(self._exchange("GET", "/v1/status", b""))

    def post(self, path: str, body: bytes) -> Message:
        """Send a message once.

        Raises:
            LostServerError: the server is away, or was lost before it had answered.
            StaleWeightsError: it has other weights than the message names.
            BrokenMessageError: its answer is none.
            ConfigError: it refuses; also `NonFiniteError`, `NotEnoughMemoryError`, `EngineError`: its engine failed.
        """
        if self.max_body_bytes and len(body) > self.max_body_bytes:
            raise ConfigError(
                f"a rollout of {len(body) / 2**20:.0f} MiB is more than the {self.max_body_bytes / 2**20:.0f} MiB that "
                f"{self.url} takes: raise max_body_mib of serve-engine, or take fewer or smaller frames."
            )
        message = self._exchange("POST", path, body)
        kind = message.words.get("error")
        if kind is None:
            return message
        words = redact(str(message.words.get("said")))[:1000]
        if kind == "stale":
            raise StaleWeightsError(words)
        if kind == "broken":
            raise BrokenMessageError(f"it says that our message is none ({words})")
        known = {"config": ConfigError, "nonfinite": NonFiniteError, "memory": NotEnoughMemoryError}
        raise known.get(str(kind), EngineError)(f"the engine at {self.url}: {words}")

    def _read_status(self, message: Message) -> Status:
        words = {name: message.word(name, str) for name in ("boot", "engine", "dtype")}
        weights, limit = message.word("weights", str, type(None)), message.word("max_body_bytes", int)
        found = Status(**words, model=message.word("model", dict), weights=weights, max_body_bytes=limit)
        if differs := difference(self.model, found.model):
            raise ConfigError(f"{self.url} serves another model: {differs}. Serve the checkpoint that is used here.")
        if found.dtype != self.dtype:
            raise ConfigError(f"{self.url} has weights in {found.dtype}, here they are {self.dtype}: set dtype alike.")
        if self._boot not in (None, found.boot):
            logger.warning("%s was started anew", self.url)
        self._boot, self.max_body_bytes = found.boot, found.max_body_bytes
        return found

    def _exchange(self, method: str, path: str, body: bytes) -> Message:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=SILENCE_S)
        headers = {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have said why
                connection.request(method, self._parts.path.rstrip("/") + path, body or None, headers)
            response = connection.getresponse()
            answer = self._read(response)
        except (OSError, http.client.HTTPException) as error:
            raise LostServerError(name_loss(error)) from None
        finally:
            connection.close()
        return unpack(answer)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """Read an answer, past its beats."""
        if response.status != http.HTTPStatus.OK or response.headers.get("Content-Type") != CONTENT_TYPE:
            self._refused(response)
        deadline = time.monotonic() + self.timeout_s
        if response.chunked:
            while (sign := response.read(1)) == BEAT:
                if time.monotonic() > deadline:
                    raise EngineError(
                        f"{self.url} is there, but gave no answer within engine_timeout_s={self.timeout_s:g}: its "
                        "engine hangs, or has more to do than fits that time. Start it again, or raise the key."
                    )
            if not sign:
                raise http.client.IncompleteRead(b"")
            if sign != BEGIN:
                raise BrokenMessageError(f"the answer begins with {sign!r}")
        answer = response.read(MAX_ANSWER_BYTES + 1)
        if len(answer) > MAX_ANSWER_BYTES:
            raise BrokenMessageError(f"the answer is longer than {MAX_ANSWER_BYTES // 2**20} MiB")
        if response.length:  # bytes that were announced
            raise http.client.IncompleteRead(answer)
        return answer

    def _refused(self, response: http.client.HTTPResponse) -> NoReturn:
        """Say what an answer is that is no message."""
        text = response.read(4096).decode("utf-8", "replace")
        page = "a web page (HTML) in place of a message" if name_body(text) else redact(text)[:200]
        if response.status in AWAY_STATUS:
            raise LostServerError(f"HTTP {response.status}: {page}")
        if response.status == http.HTTPStatus.OK:
            raise BrokenMessageError(f"no engine's server answers there, but something else: {page}")
        hint = f" (the token comes from {self._token_env})" if response.status in (401, 403) else ""
        raise ConfigError(f"{self.url} refuses: HTTP {response.status}: {page}{hint}")

    # --- until it is answered -----------------------------------------------------------------------------------------

    def persist(self, ask: Callable[[], T]) -> T:
        """Ask until it is answered: a lost server is waited for.

        Args:
            ask: One request, checked.

        Raises:
            EngineError: the server stays away for `wait_s`, is lost again and again, or answers nonsense.
        """
        num_lost = num_broken = 0
        while True:
            try:
                return ask()
            except LostServerError as lost:
                num_lost += 1
                if num_lost > MAX_LOST:
                    raise EngineError(
                        f"{self.url} was lost {num_lost} times with the same request ({lost}); the request may be what "
                        "ends it: look at its log. The run goes on from its last checkpoint."
                    ) from None
                self._wait(str(lost))
            except BrokenMessageError as broken:
                num_broken += 1
                logger.warning("%s gave an answer that cannot be true: %s", self.url, broken)
                if num_broken >= MAX_BROKEN:
                    raise EngineError(
                        f"{self.url} gave {num_broken} answers that cannot be true, the last one: {broken}. None of "
                        "them was used. Start the server again; the run goes on from its last checkpoint."
                    ) from None
                time.sleep(POLL_S)

    def _wait(self, cause: str) -> None:
        """Wait for a lost server.

        Raises:
            EngineError: it stays away.
        """
        began = time.monotonic()
        logger.warning("%s is lost: %s; waiting up to %g s (engine_wait_s)", self.url, cause, self.wait_s)
        while True:
            if time.monotonic() - began >= self.wait_s:
                raise EngineError(
                    f"{self.url} is lost: {cause}; it did not come back within engine_wait_s={self.wait_s:g}. Start it "
                    "(video-thinker serve-engine), and the same command goes on from the last checkpoint."
                )
            time.sleep(POLL_S)
            try:
                self.status()
            except LostServerError as lost:
                cause = str(lost)
            except BrokenMessageError as broken:
                cause = f"{broken}"
            else:
                logger.warning("%s is back after %.0f s", self.url, time.monotonic() - began)
                return


def read_token(token_env: str) -> str | None:
    """Read a token from its environment variable, `None` without one, and see to it that it is never shown.

    Raises:
        ConfigError: it has characters that no HTTP header may hold.
    """
    token = os.environ.get(token_env, "").strip()
    register(token)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{token_env}: the token in this environment variable has characters that no token has.")
    return token or None


def name_loss(error: BaseException) -> str:
    """Say in our words how a server was lost."""
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer was cut"
    if isinstance(error, ssl.SSLError):
        return name_cause(error) or str(error)
    if isinstance(error, TimeoutError):
        return f"it has been silent for {SILENCE_S:g} s"
    if isinstance(error, OSError) and error.errno in ERRNO:
        return ERRNO[error.errno]
    return name_cause(error) or f"{type(error).__name__}: {error}"
