"""What a trainer hands to a reward, and the call convention of rewards (TRL's).

A reward is called with keyword arguments: `prompts`, `completions`, `completion_ids` and every column of the data set,
each a list with one entry per completion. It returns one value in [0, 1] per completion, unweighted; `None` where it
does not apply, which TRL leaves out of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Completion = str | Sequence[Mapping[str, Any]]
RewardFunc = Callable[..., list[float | None]]


def completion_text(completion: Completion) -> str:
    """Return the text of a completion: a plain string, or TRL's list of messages, of which the assistant's count.

    `[{"role": "assistant", "content": "…"}]` and content in parts, `[{"type": "text", "text": "…"}]`, are both read.
    """
    if isinstance(completion, str):
        return completion
    texts = (_content_text(message["content"]) for message in completion if message["role"] == "assistant")
    return "\n".join(texts)


def _content_text(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")
