"""Asking an OpenAI-compatible server: the one room for it, used by evaluation and synthesis. Runs without torch.

`Server.complete` sends one request until it is answered, refused, or has failed too often. All requests to a server
share what is known of its health: a server that is away is probed, and then nobody waits for it (`ServerError`). Bodies
are bounded, redirects to another host are refused, numbers of tokens are checked, and no message holds a key.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import openai
from aiolimiter import AsyncLimiter
from openai import AsyncOpenAI
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from video_thinker.errors import ConfigError, ServerError
from video_thinker.generation.faults import (
    BlockedResponseError,
    BrokenReplyError,
    NoJsonError,
    describe_failure,
    is_unreachable,
    name_body,
)
from video_thinker.generation.replies import Answer, UsageError, read_answer
from video_thinker.redaction import register

NO_KEY = "none"
"""Sent where no key is set: servers on one's own machine want none, but the client insists on one."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_BODY_BYTES = 64 * 2**20
"""The longest body that is read. A completion of a million tokens has about 5 MiB."""
CONNECT_TIMEOUT_S = 10.0
PROBE_WAITS_S = (0.2, 1.0, 2.0)
"""Waits before the tries that decide whether a server is away: seconds, not the minutes of a request's own tries."""
MAX_GIVEN_UP = 3
"""So many requests in a row that failed at every try, with no answer to any other one, say that the server is away."""

RETRIED = (
    openai.APIConnectionError,  # and its subclass for timeouts
    openai.RateLimitError,
    openai.InternalServerError,
    openai.ConflictError,
    openai.APIResponseValidationError,
    json.JSONDecodeError,
    BrokenReplyError,
    TimeoutError,
    OSError,  # too many open files
)
RETRIED_STATUS = (408, 425)  # for these the client has no class of its own
FAILED = (*RETRIED, openai.OpenAIError)
"""All that a request can fail with."""


class RequestFailedError(Exception):
    """A request failed for good, though the server may answer others.

    `status` is the server's, if it gave one; `transient` says that the same request may succeed another time.
    """

    def __init__(self, cause: str, status: int | None, *, transient: bool) -> None:
        """Keep the cause, which holds no key."""
        super().__init__(cause)
        self.status, self.transient = status, transient


class Server:
    """One server, asked by many tasks at once; what is known of its health outlives its connections.

    Args:
        base_url: Its address; `None` is OpenAI's.
        api_key_env: Environment variable with the key.
        timeout_s: Longest time for one try of a request.
        max_tries: Tries of a request that fails on the way.
        max_backoff_s: Longest wait between tries.
        limiter: Spaces the tries; `None` is no limit.
    """

    def __init__(
        self,
        base_url: str | None,
        api_key_env: str,
        *,
        timeout_s: float,
        max_tries: int,
        max_backoff_s: float,
        limiter: AsyncLimiter | None = None,
    ) -> None:
        """See the class; nothing is sent yet."""
        self.base_url, self.api_key_env, self.timeout_s = base_url, api_key_env, timeout_s
        self.limiter = limiter
        self.num_sent = 0
        self.down: str | None = None
        self._max_backoff_s = max_backoff_s
        self._retrying = make_retrying(max_tries, max_backoff_s)
        self._num_answered = self._num_given_up = 0
        self._key = read_key(api_key_env)
        self._client: AsyncOpenAI | None = None
        self._probing: asyncio.Lock | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Server]:
        """Hold the connections of one event loop."""
        self._probing = asyncio.Lock()
        try:
            async with connect(self.base_url, self._key, timeout_s=self.timeout_s) as self._client:
                yield self
        finally:
            self._client = None

    async def complete(self, *, check: Callable[[Answer], None] = lambda answer: None, **request: Any) -> Answer:
        """Send a chat completion until it is answered.

        Args:
            check: Raises `BrokenReplyError` for an answer that is asked for again.
            request: As `chat.completions.create` takes it.

        Raises:
            RequestFailedError: it is refused, or failed at every try.
            ServerError: the server is away, or its counts of tokens are none; no other request would fare better.
        """
        try:
            async for attempt in self._retrying.copy():  # it holds the state of one call
                with attempt:
                    answer = await self._try(request, check)
        # Not chained: a server's words may hold the key.
        except FAILED as error:
            raise self._failure(error) from None
        return answer

    async def _try(self, request: dict[str, Any], check: Callable[[Answer], None]) -> Answer:
        try:
            answer = await self._send(request)
        except UsageError as error:
            raise UsageError(f"{self._name()}: {error}") from None
        except openai.APIStatusError as error:
            if not is_transient(error):
                self._count_answer()
            raise
        except (BlockedResponseError, NoJsonError, json.JSONDecodeError) as error:
            if not self._num_answered and not (isinstance(error, json.JSONDecodeError) and not name_body(error.doc)):
                self.down = self.describe(error)
                raise self._down_error() from None
            raise
        except openai.APIConnectionError as error:
            if is_unreachable(error):
                await self._probe(error)
            raise
        self._count_answer()
        check(answer)
        return answer

    async def _send(self, request: dict[str, Any]) -> Answer:
        if self.down:
            raise self._down_error()
        if self.limiter is not None:
            await self.limiter.acquire()
        if self._client is None:
            raise RuntimeError("a Server answers inside of `connected` only")
        async with asyncio.timeout(self.timeout_s):
            self.num_sent += 1
            return read_answer(await self._client.chat.completions.create(**request))

    def _count_answer(self) -> None:
        self._num_answered += 1
        self._num_given_up = 0

    async def _probe(self, error: openai.APIConnectionError) -> None:
        """Find out whether a server to which no connection came about is away: one task asks for all.

        Raises:
            ServerError: it is.
        """
        if self._probing is None or self._client is None:
            return
        num_answered = self._num_answered
        async with self._probing:
            for wait_s in PROBE_WAITS_S:
                if self.down:
                    raise self._down_error() from None
                if self._num_answered > num_answered:
                    return
                await asyncio.sleep(min(wait_s, self._max_backoff_s))
                try:
                    await self._client.with_options(timeout=CONNECT_TIMEOUT_S).models.list()
                except openai.APIConnectionError as again:
                    if not is_unreachable(again):
                        return
                    error = again
                except FAILED:
                    return  # any response says that it is there
                else:
                    return
            self.down = self.describe(error)
        raise self._down_error() from None

    def _failure(self, error: Exception) -> Exception:
        cause, status = self.describe(error), error.status_code if isinstance(error, openai.APIStatusError) else None
        if not is_transient(error):
            return RequestFailedError(cause, status, transient=False)
        self._num_given_up += 1
        if self._num_given_up >= MAX_GIVEN_UP and self.down is None:
            self.down = f"{self._num_given_up} requests in a row failed at every try, the last one: {cause}"
        return self._down_error() if self.down else RequestFailedError(cause, status, transient=True)

    def describe(self, error: BaseException) -> str:
        """Say in one line why a request failed, without a key."""
        return describe_failure(error, self._key, timeout_s=self.timeout_s)

    def _name(self) -> str:
        return self.base_url or "OpenAI's server"

    def _down_error(self) -> ServerError:
        return ServerError(
            f"{self._name()} is away: {self.down}. Nothing more is asked, and what was answered is kept: start the "
            "server, or correct base_url, and the same command continues."
        )


def read_key(api_key_env: str) -> str | None:
    """Read a key from its environment variable, `None` without one, and see to it that it is never shown.

    Raises:
        ConfigError: it has characters that no HTTP header may hold.
    """
    key = (os.environ.get(api_key_env) or "").strip()
    register(key)
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{api_key_env}: the key in this environment variable has characters that no key has.")
    return key if key not in ("", NO_KEY) else None


def connect(base_url: str | None, key: str | None, *, timeout_s: float) -> AsyncOpenAI:
    """Make a client. Retries are ours, counted once. Its timeout bounds each read, ours the whole request."""
    timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
    http_client = openai.DefaultAsyncHttpxClient(
        # A proxy from the environment is not for a server on this machine, and must not get its key.
        trust_env=not is_local(base_url),
        timeout=timeout,
        event_hooks={"response": [_guard]},
    )
    return AsyncOpenAI(
        api_key=key or NO_KEY,
        base_url=base_url,
        max_retries=0,
        timeout=timeout,
        organization="",
        project="",
        http_client=http_client,
        default_headers={"Accept-Encoding": "identity"},  # a small packed body may be a large one
    )


def is_local(base_url: str | None) -> bool:
    """Say whether a server is on this machine."""
    return urlsplit(base_url or "").hostname in LOOPBACK


async def _guard(response: httpx2.Response) -> None:
    """Look at a response before its body is read: where it sends us, and how much it brings.

    Raises:
        BlockedResponseError: it is not read.
    """
    if "location" in response.headers and response.is_redirect:
        ours = urlsplit(str(response.request.url))
        theirs = urlsplit(urljoin(str(response.request.url), response.headers["location"]))
        if theirs.hostname != ours.hostname or (ours.scheme, theirs.scheme) == ("https", "http"):
            raise BlockedResponseError(
                f"a redirect to another host ({theirs.scheme}://{theirs.hostname}) is not followed: give its address "
                "as base_url, if it is the right one"
            )
    if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise BlockedResponseError("the body is packed, though none was asked for; turn that off in the server's proxy")
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_long()
    response.stream = _Bounded(response.stream)  # type: ignore[arg-type]  # a client of asyncio gets this kind only


def _too_long() -> BlockedResponseError:
    return BlockedResponseError(f"the body is longer than {MAX_BODY_BYTES / 2**20:g} MiB; it is not read")


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends with an error when it is too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for part in self._stream:
            num_bytes += len(part)
            if num_bytes > MAX_BODY_BYTES:
                raise _too_long()
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


def make_retrying(max_tries: int, max_backoff_s: float) -> AsyncRetrying:
    """Make the policy: transient failures are tried again after a random, growing wait, or the one the server asks for.

    It holds the state of one call; `copy()` it for each.
    """
    backoff = wait_random_exponential(multiplier=0.5, max=max_backoff_s)
    return AsyncRetrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(max_tries),
        wait=lambda state: max(backoff(state), min(_retry_after_s(state), max_backoff_s)),
        reraise=True,
    )


def is_transient(error: BaseException) -> bool:
    """Say whether the same request may succeed another time."""
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    return isinstance(error, RETRIED) or status in RETRIED_STATUS


def _retry_after_s(state: RetryCallState) -> float:
    """Seconds that the server asks to wait, 0 if it does not say."""
    error = state.outcome.exception() if state.outcome else None
    header = error.response.headers.get("retry-after", "") if isinstance(error, openai.APIStatusError) else ""
    try:
        return max(0.0, float(header))
    except ValueError:  # a date, or nothing
        return 0.0
