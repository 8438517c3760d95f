"""One sample's conversation with the models: replies are parsed, unusable ones asked for again, the cost is counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from video_thinker.synthesis.client import ChatClient, Reply, Request, RequestRefusedError, Usage
from video_thinker.synthesis.frames import FrameSet

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

MAX_TRIES = 10
"""Seeds per attempt: a reply asked for again because it was unusable belongs to the same attempt."""

_JSON_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


class UnusableReplyError(Exception):
    """The model refused, was cut off, or did not keep to the form it was asked for."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that was written, and why it was not kept (`None` if it was). `number` counts from 1."""

    stage: str
    number: int
    reason: str | None
    text: str = ""


@dataclass
class Conversation:
    """Asks the models on behalf of one sample.

    Args:
        client: Sends the requests.
        sample_id: Part of each request's name.
        max_unusable: How often an unusable reply is asked for again.
    """

    client: ChatClient
    sample_id: str
    max_unusable: int = 3
    usage: dict[str, Usage] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)

    async def ask(
        self,
        role: str,
        stage: str,
        system: str,
        payload: Mapping[str, Any],
        parse: Callable[[str], T],
        *,
        attempt: int = 1,
        frames: FrameSet | None = None,
    ) -> T:
        """Ask until `parse` takes the reply.

        Raises:
            UnusableReplyError: no reply was usable, or the server refuses this request; the message is about the last.
            TeacherError: see `ChatClient.ask`.
        """
        for repeat in range(min(self.max_unusable, MAX_TRIES - 1) + 1):
            number = attempt * MAX_TRIES + repeat
            request = Request(self.sample_id, stage, system, payload, frames, number)
            try:
                reply = await self.client.ask(role, request)
            except RequestRefusedError as error:
                raise UnusableReplyError(f"refused: {error}") from error
            self.usage.setdefault(role, Usage()).add(reply)
            try:
                return parse(_usable_text(reply))
            except UnusableReplyError as error:
                last = error
        raise last

    def log(self, stage: str, number: int, reason: str | None, text: str = "") -> None:
        """Note what became of an attempt."""
        self.attempts.append(Attempt(stage, number, reason, text))


def _usable_text(reply: Reply) -> str:
    if reply.refusal or reply.finish_reason == "content_filter":
        raise UnusableReplyError(f"refused: {(reply.refusal or 'content filter')[:200]}")
    if reply.finish_reason == "length":
        raise UnusableReplyError("cut off at the model's token limit")
    if not reply.text.strip():
        raise UnusableReplyError("empty")
    return reply.text.strip()


def json_parser(model: type[M]) -> Callable[[str], M]:
    """Parse a reply that is one JSON object, in code fences or not."""

    def parse(text: str) -> M:
        match = _JSON_OBJECT.search(text)
        if match is None:
            raise UnusableReplyError(f"no JSON object: {text[:100]!r}")
        try:
            return model.model_validate_json(match.group())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the reply"
            raise UnusableReplyError(f"malformed JSON, {where}: {first['msg']}") from error

    return parse
