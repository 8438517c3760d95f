"""The three kinds of grades that are not right or wrong, and how a value becomes a `Score`."""

from __future__ import annotations

from video_thinker.schema import Score

UNSCORABLE = Score(None, "unscorable")
UNANSWERED = Score(0.0, "unanswered")


def graded(value: float) -> Score:
    """Make the score of an answer that was read, from its value in [0, 1]."""
    return Score(value, "correct" if value == 1.0 else "wrong" if value == 0.0 else "partial")
