"""Tells a checkpoint of the toy world, and a clip of it: the one knows nothing but the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from video_thinker.data.headers import read_header
from video_thinker.data.video import SampledVideo
from video_thinker.toyworld.world import FRAME_RATE, FRAME_SIZE, QUESTION_COLORS

MAX_VOCABULARY = 1024
"""Most ids of the toy's tokenizer; that of a released model has more than a hundred thousand."""


def is_toy_tokenizer(tokenizer: Any) -> bool:
    """Say whether a tokenizer is the toy base's, which SFT and GRPO hand on: few ids, and one for each color."""
    if len(tokenizer) > MAX_VOCABULARY:
        return False
    colors = [tokenizer(f" {color}", add_special_tokens=False)["input_ids"] for color in QUESTION_COLORS]
    return all(len(ids) == 1 for ids in colors)


def is_toy_clip(path: Path, video: SampledVideo, timeout_s: float | None) -> bool:
    """Say whether a video has the size and the frame rate of the toy world's files.

    Args:
        path: The file.
        video: What was read of it.
        timeout_s: Seconds that reading its head may take.
    """
    header = read_header((path, "video"), timeout_s)
    is_square = (header.width, header.height) == (FRAME_SIZE, FRAME_SIZE)
    return is_square and abs(video.native_fps - FRAME_RATE) < 0.01


def foreign_clip(tokenizer: Any, path: Path, video: SampledVideo, timeout_s: float | None) -> str:
    """Say that a toy checkpoint is shown a clip from elsewhere; empty if it is not."""
    if not is_toy_tokenizer(tokenizer) or is_toy_clip(path, video, timeout_s):
        return ""
    return (
        f"{path.name}: this checkpoint was trained on the toy world. It knows {len(QUESTION_COLORS)} colors "
        f"({', '.join(QUESTION_COLORS)}), four places and the words of the toy's questions, and this clip is not from "
        "there: its answer says nothing about the clip. For your own clips start from a released model "
        "(docs/tutorial.md)."
    )
