"""What spotlight prompts and observations say: own words for FrameThinker's protocol. No torch.

No `prompt_style` uses these texts yet: the episode loop will.
"""

from __future__ import annotations

from video_thinker.spotlight.actions import Grammar
from video_thinker.times import format_time

LAST_TURN = "This is your last turn. Write <think>…</think><action>output answer: …</action>."


def system_text(grammar: Grammar, num: int) -> str:
    """Write the system message: the two tags, the actions, and how many frames a look shows."""
    actions = "\n".join(f"- {verb}" for verb in grammar)
    return (
        f"You study a video of which you see only some frames. Look at more of it before you answer, where that helps:"
        f" a look shows {num} frames of an interval. In each turn write your thoughts between <think> and </think>, "
        f"then exactly one action between <action> and </action>. The actions are:\n{actions}\n"
        "Before a look, end your thoughts with the two ends of its interval. Do not look at an interval twice."
    )


REMINDER = "Think between <think> and </think>, then act between <action> and </action>."


def frame_label(frame: int) -> str:
    """Write what stands before the picture of a frame: "frame 120:"."""
    return f"frame {frame}:"


def frame_number_reply(time_s: float, frame: int) -> str:
    """Write the answer to a time query: "Frame number at time 01:05 is: 1950."; hours are folded into minutes."""
    clock = format_time(time_s) if time_s < 3600 else f"{int(time_s) // 60:02d}:{format_time(time_s % 60)[3:]}"
    return f"Frame number at time {clock} is: {frame}."
