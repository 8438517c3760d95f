"""What a stage wants of its rows besides the schema, checked before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from video_thinker.data.conversation import build_messages, build_target
from video_thinker.data.encode import SampleEncoder, render_prompt
from video_thinker.data.texts import check_texts
from video_thinker.errors import DataError
from video_thinker.prompts import render_question, render_system
from video_thinker.schema import VideoSample


@dataclass(frozen=True, slots=True)
class RowRules:
    """What a stage wants of its rows.

    Attributes:
        has_trace: Each row has a trace to learn.
        max_tokens: Longest sequence in tokens, `None` for no limit.
        option: The key that sets `max_tokens`, for messages.
    """

    has_trace: bool = False
    max_tokens: int | None = None
    option: str = "max_length"

    def check(self, sample: VideoSample, encoder: SampleEncoder, num_prompt_tokens: int | None = None) -> None:
        """Check a row: its prompt in full where the number of its tokens is known, else what is sure without its media.

        Raises:
            DataError: a text holds a special token, a trace is missing, or the row is longer than `max_tokens`.
        """
        check_texts(sample, encoder.special_tokens)
        target = build_target(sample) if self.has_trace else ""
        if num_prompt_tokens is None:
            self.check_length(sample, encoder, least_vision_tokens(sample, encoder))
        elif self.max_tokens is not None:
            self._refuse_above(sample, num_prompt_tokens + _target_tokens(encoder, target), "")

    def check_length(self, sample: VideoSample, encoder: SampleEncoder, num_vision: int) -> None:
        """Check the length of a row with `num_vision` vision tokens. Qwen3-VL's words for times are not counted.

        Raises:
            DataError: the row is longer than `max_tokens`, or a trace is missing.
        """
        if self.max_tokens is None:
            return
        target = build_target(sample) if self.has_trace else ""
        words = [render_system(encoder.prompt_style) or "", render_question(sample, encoder.prompt_style), target]
        num_bytes = sum(len(text.encode()) for text in words) + TEMPLATE_TOKENS * (1 + len(sample.media))
        if num_bytes + num_vision <= self.max_tokens:
            return  # no tokenizer makes more tokens than there are bytes
        prompt = render_prompt(encoder.processor, build_messages(sample, encoder.prompt_style))
        # The placeholder of a file is one token of its vision tokens.
        num_tokens = _count_tokens(encoder, prompt) + num_vision - len(sample.media) + _target_tokens(encoder, target)
        self._refuse_above(sample, num_tokens, "at least ")

    def _refuse_above(self, sample: VideoSample, num_tokens: int, at_least: str) -> None:
        if self.max_tokens is not None and num_tokens > self.max_tokens:
            raise DataError(
                f"{sample.location}: {at_least}{num_tokens} tokens are more than {self.option}={self.max_tokens} "
                f"(sample {sample.id!r}); nothing is truncated: raise {self.option}, lower max_frames / max_pixels, or "
                "drop the row."
            )


TEMPLATE_TOKENS = 64
"""More tokens than a chat template writes around a turn or a file."""


def least_vision_tokens(sample: VideoSample, encoder: SampleEncoder) -> int:
    """Count the vision tokens that a sample has whatever its media are: two frames make one grid, an image too."""
    sampling = encoder.sampling
    grids = (sampling.num_frames or sampling.min_frames) // 2
    per_grid = math.ceil(sampling.min_pixels / encoder.resize_factor**2)
    return sum(per_grid * (grids if media.kind == "video" else 1) for media in sample.media)


def _count_tokens(encoder: SampleEncoder, text: str) -> int:
    return len(encoder.processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _target_tokens(encoder: SampleEncoder, target: str) -> int:
    """Count the tokens of a trace and of the end of its turn."""
    return _count_tokens(encoder, target) + 1 if target else 0
