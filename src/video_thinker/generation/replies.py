"""What a server's reply holds: the answer, checked, and its counts of tokens. Runs without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openai.types.chat import ChatCompletion

from video_thinker.errors import ServerError
from video_thinker.generation.faults import BrokenReplyError, NoJsonError, name_body
from video_thinker.redaction import redact_known

MAX_TOKENS_COUNTED = 100_000_000
"""More tokens in one request are no count of tokens."""
CHOICES_ARE_BROKEN = ("error", "abort")
"""What servers give as `finish_reason` when they, not the model, ended a completion."""


class UsageError(ServerError):
    """A server reports numbers of tokens that are none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server gave: the first choice's message, and the tokens it counted (`None` where it does not say)."""

    message: Any
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


def read_answer(response: object) -> Answer:
    """Read a response.

    Raises:
        BrokenReplyError: it holds no answer.
        UsageError: its numbers of tokens are none.
    """
    completion = check_completion(response)
    choice, (prompt_tokens, completion_tokens) = completion.choices[0], count_tokens(completion)
    return Answer(choice.message, choice.finish_reason, prompt_tokens, completion_tokens)


def check_completion(completion: object) -> ChatCompletion:
    """Give a response back if it holds an answer, `choices[0].message`.

    Raises:
        BrokenReplyError: it holds none; some servers answer 200 with an error, or with nothing.
    """
    if isinstance(completion, str) and (cause := name_body(completion)):
        raise NoJsonError(cause)
    choices = completion.choices if isinstance(completion, ChatCompletion) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if not isinstance(completion, ChatCompletion) or choice is None or message is None:
        raise BrokenReplyError(f"the response is no chat completion: {completion!s:.2000}")
    texts = (getattr(message, "content", None), getattr(message, "refusal", None))
    if not all(text is None or isinstance(text, str) for text in texts):
        raise BrokenReplyError(f"the response's text is no text: {texts!s:.2000}")
    if choice.finish_reason in CHOICES_ARE_BROKEN:
        raise BrokenReplyError(f"the server ended the completion with {choice.finish_reason!r}")
    return completion


def count_tokens(completion: ChatCompletion) -> tuple[int | None, int | None]:
    """Read prompt and completion tokens of a response; `None` where the server does not say.

    Raises:
        UsageError: what it says is no count: negative, NaN, a text, or absurdly many.
    """
    usage: object = getattr(completion, "usage", None)
    if usage is None:
        return None, None
    counts: list[int | None] = []
    for name in ("prompt_tokens", "completion_tokens"):
        count = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
        if isinstance(usage, str | int | float | list):
            count = usage
        whole = isinstance(count, int | float) and not isinstance(count, bool) and count == count // 1
        if count is not None and not (whole and 0 <= count <= MAX_TOKENS_COUNTED):
            raise UsageError(
                f"it reports usage.{name}={str(count)[:40]!r}, which is no number of tokens; nothing that depends on "
                "it (a cost, a length) could be trusted: repair the server, or the proxy in front of it."
            )
        counts.append(None if count is None else int(count))
    return counts[0], counts[1]


def clean_text(text: str) -> str:
    """Make what a model wrote fit to be stored: no key that it echoes, no half of a surrogate pair."""
    return redact_known(text.encode("utf-8", "replace").decode())
