from __future__ import annotations

import pytest

from video_thinker.spotlight.actions import GRAMMARS, read_turn_strict
from video_thinker.spotlight.episode import Answer
from video_thinker.spotlight.texts import LAST_TURN, frame_label, frame_number_reply, system_text


@pytest.mark.parametrize("name", GRAMMARS)
def test_the_system_text_names_tags_every_action_and_the_number_of_frames(name):
    text = system_text(GRAMMARS[name], 12)
    for part in ("<think>", "</action>", "12 frames", *map(str, GRAMMARS[name])):
        assert part in text


def test_labels_and_replies():
    assert frame_label(120) == "frame 120:"
    assert frame_number_reply(65.0, 1950) == "Frame number at time 01:05 is: 1950."
    assert frame_number_reply(3750.0, 9) == "Frame number at time 62:30 is: 9."
    assert frame_number_reply(3600.0, 9) == "Frame number at time 60:00 is: 9."


def test_the_last_turns_example_is_of_the_grammar():
    turn = LAST_TURN[LAST_TURN.index("<think>") :].removesuffix(".")
    assert read_turn_strict(turn, GRAMMARS["frame_thinker"]).action == Answer("…")
