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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diskcache
import openai
from aiolimiter import AsyncLimiter
from openai import AsyncOpenAI

from video_thinker.data.decoding.process import end_decoding
from video_thinker.errors import ConfigError, TeacherError
from video_thinker.generation.chat import (
    RETRIED,
    check_completion,
    clean_text,
    connect,
    count_tokens,
    describe_failure,
    is_local,
    is_transient,
    make_retrying,
)
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
        self.cache = diskcache.Cache(str(self.cache_dir), eviction_policy="none", size_limit=2**60)
        self.spent = {role: Usage(**self.cache.get(("spent", role), {})) for role in self.endpoints}
        self.num_sent = 0
        self._secrets: set[str] = set()
        self._clients = {role: self._connect(endpoint) for role, endpoint in self.endpoints.items()}
        limiters: dict[tuple[Any, ...], AsyncLimiter] = {}  # roles that ask the same endpoint share its rate
        self._limiters = {  # evenly spaced: a burst at the start would be up to twice the rate in the first minute
            role: limiters.setdefault(
                (endpoint.base_url, endpoint.model, endpoint.api_key_env),
                AsyncLimiter(1, 60 / endpoint.requests_per_minute),
            )
            for role, endpoint in self.endpoints.items()
            if endpoint.requests_per_minute
        }
        self._slots = asyncio.Semaphore(self.limits.concurrency)
        self._retrying = make_retrying(self.limits.max_retries, self.limits.max_backoff_s)

    async def close(self) -> None:
        """Close the connections and the cache."""
        for client in self._clients.values():
            await client.close()
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
        async with self._slots:
            self._check_budget()
            try:
                reply = await self._send(role, request)
            except RequestRefusedError as error:  # kept too: the next run would only be refused again
                self.cache.set(key, str(error))
                raise
        self._store(role, key, reply)
        return reply

    def cost(self, spent: Mapping[str, Usage] | None = None) -> float:
        """Money for some usage by role; by default, for all requests that this cache holds."""
        return sum(
            self.endpoints[role].cost(usage.prompt_tokens, usage.completion_tokens)
            for role, usage in (self.spent if spent is None else spent).items()
        )

    def _connect(self, endpoint: Endpoint) -> AsyncOpenAI:
        client, key = connect(endpoint.base_url, endpoint.api_key_env, timeout_s=endpoint.timeout_s)
        if key:
            self._secrets.add(key)
        return client

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
            async for attempt in self._retrying.copy():  # it holds the state of one call
                with attempt:
                    if role in self._limiters:
                        await self._limiters[role].acquire()
                    async with asyncio.timeout(endpoint.timeout_s):
                        self.num_sent += 1
                        completion = await self._clients[role].chat.completions.create(
                            model=endpoint.model,
                            messages=messages,
                            seed=self._seed(endpoint, request) if endpoint.send_seed else openai.omit,
                            extra_body=endpoint.parameters,
                            extra_headers={"X-Client-Request-Id": _request_id(request)},
                        )
                    reply = self._read(completion)
        except (*RETRIED, openai.APIStatusError) as error:  # not chained: a server's words may hold the key
            raise self._failure(role, request, error) from None
        return reply

    def _failure(self, role: str, request: Request, error: Exception) -> TeacherError:
        """Say what a failed request means: that the server is away, or this request or all of them are refused."""
        if is_transient(error):
            return UnreachableError(self._describe(role, request, error, "run the command again later"))
        status = error.status_code if isinstance(error, openai.APIStatusError) else 0
        if status in REFUSED_STATUS and self.spent[role].requests > 0:
            return RequestRefusedError(self._describe(role, request, error, "the sample is asked for anew or rejected"))
        return TeacherError(self._describe(role, request, error, "check the endpoint's model, key and parameters"))

    def _read(self, response: object) -> Reply:
        """Take a reply out of a completion, without a secret that the server may have echoed."""
        completion = check_completion(response)
        choice, (prompt_tokens, completion_tokens) = completion.choices[0], count_tokens(completion)
        return Reply(
            text=clean_text(choice.message.content or "", self._secrets),
            finish_reason=clean_text(choice.finish_reason or "stop", self._secrets),
            refusal=clean_text(choice.message.refusal, self._secrets) if choice.message.refusal else None,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )

    def _store(self, role: str, key: str, reply: Reply) -> None:
        self.spent[role].add(reply)
        with self.cache.transact():
            self.cache.set(key, dataclasses.asdict(reply))
            self.cache.set(("spent", role), dataclasses.asdict(self.spent[role]))

    def _describe(self, role: str, request: Request, error: BaseException, fix: str) -> str:
        model = self.endpoints[role].model
        return f"{role} {model!r}, request {_request_id(request)}: {describe_failure(error, self._secrets)}; {fix}."


def _request_id(request: Request) -> str:
    """Name a request in the server's logs: ASCII, at most 512 characters."""
    name = f"{request.sample_id}/{request.stage}/{request.attempt}"
    return name.encode("ascii", "backslashreplace").decode()[:512]


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
