"""Sending to an OpenAI-compatible server: what the synthesis and the evaluation have in common. Runs without torch.

One policy of retries (with a server's Retry-After), one reading of what comes back, one place that keeps keys out of
messages, and images as data URLs.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

if TYPE_CHECKING:
    import numpy as np

NO_KEY = "none"
"""Sent where no key is set: servers on one's own machine want none, but the client insists on one."""

JPEG_QUALITY = 90
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MIN_SECRET_LENGTH = 8
"""Shorter "keys" are placeholders ("EMPTY", "1") that a text may well hold; they are redacted in errors only."""

CHOICES_ARE_BROKEN = ("error", "abort")
"""What servers give as `finish_reason` when they, not the model, ended a completion."""


class BrokenReplyError(Exception):
    """The body of a response was no chat completion."""


RETRIED = (
    openai.APIConnectionError,  # and its subclass for timeouts
    openai.RateLimitError,
    openai.InternalServerError,
    openai.ConflictError,
    openai.APIResponseValidationError,
    json.JSONDecodeError,
    BrokenReplyError,
    TimeoutError,
)
RETRIED_STATUS = (408, 425)  # for these the client has no class of its own


def connect(base_url: str | None, api_key_env: str, *, timeout_s: float) -> tuple[AsyncOpenAI, str | None]:
    """Make a client, and give the key it sends: that in the environment variable `api_key_env`, `None` without one."""
    key = (os.environ.get(api_key_env) or "").strip() or NO_KEY
    # A proxy from the environment is not for a server on this machine, and must not get its key.
    http_client = openai.DefaultAsyncHttpxClient(trust_env=False, timeout=timeout_s) if is_local(base_url) else None
    # Retries are ours: one policy, counted once. The client's own timeout bounds each read, ours the whole request.
    client = AsyncOpenAI(
        api_key=key,
        base_url=base_url,
        max_retries=0,
        timeout=timeout_s,
        organization="",
        project="",
        http_client=http_client,
    )
    return client, None if key == NO_KEY else key


def is_local(base_url: str | None) -> bool:
    """Say whether a server is on this machine."""
    return urlsplit(base_url or "").hostname in LOOPBACK


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


def check_completion(completion: object) -> ChatCompletion:
    """Give a response back if it holds an answer, `choices[0].message`.

    Raises:
        BrokenReplyError: it holds none; some servers answer 200 with an error, or with nothing.
    """
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


def count_tokens(completion: ChatCompletion) -> tuple[int, int]:
    """Read prompt and completion tokens of a response; 0 where the server does not say."""
    prompt, answer = (getattr(completion.usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    return prompt if isinstance(prompt, int) else 0, answer if isinstance(answer, int) else 0


def clean_text(text: str, secrets: Iterable[str]) -> str:
    """Make what a model wrote fit to be stored: no key that it echoes, no half of a surrogate pair."""
    whole = text.encode("utf-8", "replace").decode()
    return redact(whole, [secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH])


def redact(text: str, secrets: Iterable[str]) -> str:
    """Take keys out of a text: servers echo them."""
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return text


def describe_failure(error: BaseException, secrets: Iterable[str]) -> str:
    """Say in one line why a request failed, with the server's words, without keys."""
    said = f"{error}"
    if isinstance(error, openai.APIStatusError) and " - " not in said:  # the body is not in OpenAI's form
        said += f" - {error.body}"
    cause = " ".join(redact(said, secrets).split())[:300] or type(error).__name__
    return f"{type(error).__name__}: {cause}"


def image_part(pixels_HWC: np.ndarray[Any, Any], image_format: str = "jpeg") -> dict[str, Any]:
    """Write an image, uint8 (H, W, 3), as a part of a message: a JPEG or PNG in a data URL."""
    from PIL import Image

    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY} if image_format == "jpeg" else {}
    Image.fromarray(pixels_HWC).save(buffer, format=image_format.upper(), **options)
    return {"type": "image_url", "image_url": {"url": data_url(buffer.getvalue(), f"image/{image_format}")}}


def data_url(content: bytes, media_type: str) -> str:
    """Write bytes as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _retry_after_s(state: RetryCallState) -> float:
    """Seconds that the server asks to wait, 0 if it does not say."""
    error = state.outcome.exception() if state.outcome else None
    header = error.response.headers.get("retry-after", "") if isinstance(error, openai.APIStatusError) else ""
    try:
        return max(0.0, float(header))
    except ValueError:  # a date, or nothing
        return 0.0
