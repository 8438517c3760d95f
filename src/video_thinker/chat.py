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

import openai
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

if TYPE_CHECKING:
    import numpy as np

NO_KEY = "none"
"""Sent where no key is set: servers on one's own machine want none, but the client insists on one."""

JPEG_QUALITY = 90


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
    key = os.environ.get(api_key_env) or NO_KEY
    # Retries are ours: one policy, counted once. The client's own timeout bounds each read, ours the whole request.
    client = AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=timeout_s, organization="", project="")
    return client, None if key == NO_KEY else key


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
    if not isinstance(completion, ChatCompletion) or not completion.choices or not completion.choices[0].message:
        raise BrokenReplyError(f"the response is no chat completion: {str(completion)[:100]!r}")
    return completion


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
