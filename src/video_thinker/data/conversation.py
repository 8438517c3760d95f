"""`VideoSample` -> chat messages, the same for SFT, GRPO, evaluation and `ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from video_thinker.errors import DataError
from video_thinker.prompts import render_question, render_system
from video_thinker.schema import Media, VideoSample

Message = dict[str, Any]


def media_path(media: Media, media_root: str | Path | None) -> Path:
    """Join a sample's path to the media root; an absolute path that exists is used as it is."""
    path = Path(media.path)
    if path.is_absolute() and path.exists():
        return path
    return Path(media_root or ".") / media.path.lstrip("/")


def build_messages(sample: VideoSample, prompt_style: str, media_root: str | Path | None = None) -> list[Message]:
    """Write the prompt of a sample: an optional system message, then one user message, media first.

    Every content part carries only the keys it needs. (A part with `video=None`, which `datasets` would add, makes
    the Qwen chat template render a second video.)
    """
    content: list[Message] = [
        {"type": media.kind, media.kind: str(media_path(media, media_root))} for media in sample.media
    ]
    content.append({"type": "text", "text": render_question(sample, prompt_style)})
    system = render_system(prompt_style)
    messages: list[Message] = [{"role": "user", "content": content}]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return messages


def build_target(sample: VideoSample) -> str:
    r"""Write what SFT teaches: the trace, a newline, the tagged answer (Video-Thinker's `process + "\n" + solution`).

    Raises:
        DataError: the sample has no trace.
    """
    if not sample.process or not sample.process.strip():
        raise DataError(
            f"{sample.location}: `process` is missing or empty (sample {sample.id!r}); SFT rows need a trace: "
            "add one or drop the row."
        )
    return f"{sample.process}\n<answer>{sample.answer}</answer>"
