"""Asking a model: retries, rate limits, budget, and the response cache that makes a rerun free.

A reply is in the cache before anyone sees it, keyed by all that the reply depends on: the model, its parameters, the
messages (frames by the video's content and their times, so that a rerun decodes nothing), the attempt, and the sample
it is for. The address of the server and the key to it are no part of that. A kill loses the requests in flight.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from aiolimiter import AsyncLimiter

from video_thinker.data.decoding.process import end_decoding
from video_thinker.disk import STORE_ERRORS, open_store
from video_thinker.errors import ConfigError, ServerError, TeacherError, WriteError
from video_thinker.generation.replies import Answer, UsageError, clean_text
from video_thinker.generation.server import RequestFailedError, Server, is_local
from video_thinker.redaction import redact
from video_thinker.runs.files import keep, kept_place
from video_thinker.synthesis.arguments import Endpoint
from video_thinker.synthesis.frames import FrameSet

logger = logging.getLogger(__name__)

REFUSED_STATUS = (400, 413, 422)


class BudgetReachedError(TeacherError):
    """The token or money budget is used up."""


class UnreachableError(TeacherError):
    """A request failed on the way as often as it may; another run asks again."""


class RequestRefusedError(TeacherError):
    """The server refuses this one request, though it has answered others: a content filter, or too long an input."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model. `payload` is the JSON object of the user message; `attempt` makes retries differ."""

    sample_id: str
    stage: str
    system: str
    payload: Mapping[str, Any]
    frames: FrameSet | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said and what it cost. `refusal` and `finish_reason` are the API's."""

    text: str
    finish_reason: str
    refusal: str | None
    prompt_tokens: int
    completion_tokens: int


@dataclass
class Usage:
    """Requests and tokens that were paid for."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: Reply | Usage) -> None:
        """Count a reply, or another usage."""
        self.requests += other.requests if isinstance(other, Usage) else 1
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


@dataclass
class Limits:
    """What bounds the requests of all endpoints together; a budget of `None` is none."""

    concurrency: int = 16
    max_retries: int = 8
    max_backoff_s: float = 60.0
    max_tokens: int | None = None
    max_cost: float | None = None
    seed: int = 0


@dataclass
class ChatClient:
    """Asks the endpoints by role.

    Args:
        endpoints: Role -> endpoint.
        cache_dir: Folder of the response cache.
        limits: Concurrency, retries and budget.
    """

    endpoints: Mapping[str, Endpoint]
    cache_dir: Path
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Open the cache and make one HTTP client per address and key.

        Raises:
            ConfigError: a money budget that an endpoint without prices would never use up.
        """
        if self.limits.max_cost is not None:
            priced = {role: one.price_input or one.price_output for role, one in self.endpoints.items()}
            free = [role for role, one in self.endpoints.items() if not priced[role] and not is_local(one.base_url)]
            if free:
                raise ConfigError(
                    f"max_cost={self.limits.max_cost}: {', '.join(free)}: no price_input and price_output (money per "
                    "million tokens), so what is spent there would not count; give them, or use max_tokens."
                )
        self.cache = open_store(self.cache_dir, "the cache of replies", eviction_policy="none", size_limit=2**60)
        self._restore_kept()
        self.spent = {role: Usage(**self.cache.get(("spent", role), {})) for role in self.endpoints}
        limiters: dict[tuple[Any, ...], AsyncLimiter] = {}  # roles that ask the same endpoint share its rate
        spaced = {  # evenly spaced: a burst at the start would be up to twice the rate in the first minute
            role: limiters.setdefault(
                (endpoint.base_url, endpoint.model, endpoint.api_key_env),
                AsyncLimiter(1, 60 / endpoint.requests_per_minute),
            )
            for role, endpoint in self.endpoints.items()
            if endpoint.requests_per_minute
        }
        self._slots = asyncio.Semaphore(self.limits.concurrency)
        self._servers = {
            role: Server(
                endpoint.base_url,
                endpoint.api_key_env,
                timeout_s=endpoint.timeout_s,
                max_tries=self.limits.max_retries,
                max_backoff_s=self.limits.max_backoff_s,
                limiter=spaced.get(role),
            )
            for role, endpoint in self.endpoints.items()
        }
        self._counted = {role: not self._must_count(role) for role in self.endpoints}
        self._uncounted: set[str] = set()
        self._first = {role: asyncio.Lock() for role in self.endpoints}
        self._connections = AsyncExitStack()

    @property
    def num_sent(self) -> int:
        """Number of requests that were sent, retries included."""
        return sum(server.num_sent for server in self._servers.values())

    async def __aenter__(self) -> ChatClient:
        """Open the connections."""
        for server in self._servers.values():
            await self._connections.enter_async_context(server.connected())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections and the cache."""
        await self._connections.aclose()
        self.cache.close()

    async def ask(self, role: str, request: Request) -> Reply:
        """Give the reply to a request, from the cache or from the model.

        Raises:
            BudgetReachedError: the budget is used up and the reply is not in the cache.
            UnreachableError: the request failed on the way too often.
            RequestRefusedError: the server refuses this request, but has answered others.
            TeacherError: the server refuses requests like this one (key, model name, parameters).
        """
        key = self._key(role, request)
        stored: Any = self.cache.get(key)
        if isinstance(stored, str):
            raise RequestRefusedError(stored)
        if stored is not None:
            return Reply(**stored)
        async with self._slots, self._until_counted(role):
            self._check_counted(role)
            self._check_budget()
            try:
                reply = await self._send(role, request)
            except RequestRefusedError as error:  # kept too: the next run would only be refused again
                self.cache.set(key, str(error))
                raise
            self._store(role, key, reply)
            self._check_counted(role)
        return reply

    @asynccontextmanager
    async def _until_counted(self, role: str) -> AsyncIterator[None]:
        """Let requests through one at a time until a reply has shown that the server counts tokens for the budget."""
        async with self._first[role]:
            if not self._counted[role]:
                yield
                return
        yield

    def _must_count(self, role: str) -> bool:
        """Say whether a budget would not end without the numbers of tokens of an endpoint."""
        priced = self.endpoints[role].price_input or self.endpoints[role].price_output
        return self.limits.max_tokens is not None or (self.limits.max_cost is not None and bool(priced))

    def cost(self, spent: Mapping[str, Usage] | None = None) -> float:
        """Money for some usage by role; by default, for all requests that this cache holds."""
        return sum(
            self.endpoints[role].cost(usage.prompt_tokens, usage.completion_tokens)
            for role, usage in (self.spent if spent is None else spent).items()
        )

    def _key(self, role: str, request: Request) -> str:
        endpoint = self.endpoints[role]
        parts = [
            endpoint.model,
            endpoint.parameters,
            self._seed(endpoint, request),
            request.sample_id,
            request.stage,
            request.attempt,
            request.system,
            dict(request.payload),
            request.frames.identity if request.frames else None,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _seed(self, endpoint: Endpoint, request: Request) -> int | None:
        return self.limits.seed * 1000 + request.attempt if endpoint.send_seed else None

    def _check_counted(self, role: str) -> None:
        if role in self._uncounted:
            limit = "max_tokens" if self.limits.max_tokens is not None else "max_cost"
            raise TeacherError(
                f"{role} {self.endpoints[role].model!r} does not report how many tokens a request takes (usage), so "
                f"{limit} would never be used up. The most that its request can have taken is counted as spent, and "
                f"its reply is kept. Turn usage on at the server, or run without {limit}."
            )

    def _check_budget(self) -> None:
        limits = self.limits
        tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in self.spent.values())
        if limits.max_tokens is not None and tokens >= limits.max_tokens:
            raise BudgetReachedError(f"max_tokens={limits.max_tokens} is used up ({tokens} tokens); raise it to go on.")
        if limits.max_cost is not None and self.cost() >= limits.max_cost:
            raise BudgetReachedError(f"max_cost={limits.max_cost} is used up ({self.cost():.4f}); raise it to go on.")

    async def _send(self, role: str, request: Request) -> Reply:
        endpoint = self.endpoints[role]
        messages = await _messages(request)
        try:
            answer = await self._servers[role].complete(
                model=endpoint.model,
                messages=messages,
                seed=self._seed(endpoint, request) if endpoint.send_seed else openai.omit,
                extra_body=endpoint.parameters,
                extra_headers={"X-Client-Request-Id": _request_id(request)},
            )
        except RequestFailedError as error:  # not chained: a server's words may hold the key
            raise self._failure(role, request, error) from None
        except UsageError as error:
            self._spend(role, Usage(1, *_most_tokens(messages, endpoint)))
            raise TeacherError(str(error)) from None
        except ServerError as error:
            raise UnreachableError(str(error)) from None
        return self._read(role, answer, messages)

    def _failure(self, role: str, request: Request, error: RequestFailedError) -> TeacherError:
        """Say what a failed request means: that the server is away, or this request or all of them are refused."""
        if error.transient:
            return UnreachableError(self._describe(role, request, error, "run the command again later"))
        if error.status in REFUSED_STATUS and self.spent[role].requests > 0:
            return RequestRefusedError(self._describe(role, request, error, "the sample is asked for anew or rejected"))
        return TeacherError(self._describe(role, request, error, "check the endpoint's model, key and parameters"))

    def _read(self, role: str, answer: Answer, messages: list[Any]) -> Reply:
        """Take a reply out of an answer, without a secret that the server may have echoed.

        Where a budget needs the numbers of tokens and the server gives none, the most that can have been taken count.
        """
        message = answer.message
        text, refusal = message.content or "", message.refusal
        counts = (answer.prompt_tokens or 0, answer.completion_tokens or 0)
        self._counted[role] = not self._must_count(role) or (
            bool(counts[0]) and bool(counts[1] or not (text or refusal))
        )
        if not self._counted[role]:
            counts = _most_tokens(messages, self.endpoints[role], text or refusal or "")
            self._uncounted.add(role)
        return Reply(
            text=clean_text(text),
            finish_reason=clean_text(answer.finish_reason or "stop"),
            refusal=clean_text(refusal) if refusal else None,
            prompt_tokens=counts[0],
            completion_tokens=counts[1],
        )

    def _spend(self, role: str, usage: Usage) -> None:
        """Count what a request took that has left no reply."""
        self.spent[role].add(usage)
        self.cache.set(("spent", role), dataclasses.asdict(self.spent[role]))

    def _store(self, role: str, key: str, reply: Reply) -> None:
        self.spent[role].add(reply)
        try:
            with self.cache.transact():
                self.cache.set(key, dataclasses.asdict(reply))
                self.cache.set(("spent", role), dataclasses.asdict(self.spent[role]))
        except STORE_ERRORS as error:
            row = {"key": key, "role": role, "reply": dataclasses.asdict(reply)}
            kept = keep(self._kept, (json.dumps(row) + "\n").encode())
            where = f"it is kept in {kept}" if kept else "it is lost"
            raise WriteError(
                f"{self.cache_dir}: a reply cannot be stored ({error}); {where}. Make room, and the same command "
                "continues."
            ) from error

    @property
    def _kept(self) -> Path:
        return self.cache_dir / "kept.jsonl"

    def _restore_kept(self) -> None:
        """Take up the replies that an earlier run could not store."""
        place = kept_place(self._kept)
        if not place.is_file():
            return
        for line in place.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["key"] not in self.cache:
                usage = Usage(**self.cache.get(("spent", row["role"]), {}))
                usage.add(Reply(**row["reply"]))
                with self.cache.transact():
                    self.cache.set(row["key"], row["reply"])
                    self.cache.set(("spent", row["role"]), dataclasses.asdict(usage))
        logger.info("%s: has the replies that could not be stored before (%s)", self.cache_dir, place)
        place.unlink()

    def _describe(self, role: str, request: Request, error: RequestFailedError, fix: str) -> str:
        model = self.endpoints[role].model
        return redact(f"{role} {model!r}, request {_request_id(request)}: {error}; {fix}.")


def _request_id(request: Request) -> str:
    """Name a request in the server's logs: ASCII, at most 512 characters."""
    name = f"{request.sample_id}/{request.stage}/{request.attempt}"
    return name.encode("ascii", "backslashreplace").decode()[:512]


def _most_tokens(messages: list[Any], endpoint: Endpoint, text: str = "") -> tuple[int, int]:
    """Bound the tokens of a request whose server does not count them: a token has at least one byte."""
    longest = [endpoint.parameters.get(name) for name in ("max_tokens", "max_completion_tokens")]
    bounds = [
        len(text.encode("utf-8", "replace")),
        *(bound for bound in longest if isinstance(bound, int) and not text),
    ]
    return len(json.dumps(messages)), max(bounds)


async def _messages(request: Request) -> list[Any]:
    text = json.dumps(request.payload, ensure_ascii=False)
    content: str | list[Any] = text
    if request.frames is not None:
        content = [{"type": "text", "text": text}, *await _decode(request.frames)]
    return [{"role": "system", "content": request.system}, {"role": "user", "content": content}]


async def _decode(frames: FrameSet) -> list[Any]:
    """Decode frames in a thread. Ctrl-C, which cancels all tasks, ends decoding at once: the loop waits for threads."""
    try:
        return await asyncio.to_thread(frames.content)
    except asyncio.CancelledError:
        end_decoding()
        raise
