from __future__ import annotations

import json

import pytest

from video_thinker.errors import DataError
from video_thinker.spotlight.episode import (
    ENDS,
    Answer,
    AskFrame,
    Episode,
    Look,
    LookTimes,
    Shown,
    Told,
    Turn,
    episode_from_json,
    episode_to_json,
)

EPISODE = Episode(
    480,
    (0, 479),
    (
        Turn("when", AskFrame(65.0), Told(65.0, 195)),
        Turn("190 300", Look(190, 300), Shown(190, 300, (191, 299)), ("text outside",)),
        Turn("times", LookTimes(1.5, 30.0), Shown(4, 90, (5, 47, 89))),
        Turn(None, None),
        Turn("so", Answer("A")),
    ),
    "answered",
)


def test_an_episode_survives_json_and_counts_what_was_shown():
    assert episode_from_json(json.loads(json.dumps(episode_to_json(EPISODE)))) == EPISODE
    assert (EPISODE.num_looks, EPISODE.num_time_queries, EPISODE.num_frames_shown) == (2, 1, 2 + 2 + 3)
    assert EPISODE.answer == "A"
    assert Episode(9, (0,), EPISODE.turns[:-1], "turn limit").answer is None
    assert Episode(9, (0,), (), "cut off").answer is None


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_read(end):
    assert episode_from_json({**episode_to_json(EPISODE), "end": end}).end == end


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end": "done"}, "end='done'"),
        ({"end": []}, "end="),
        ({"num_frames": 0}, "num_frames=0"),
        ({"num_frames": True}, "num_frames=True"),
        ({"num_frames": -1}, "num_frames=-1"),
        ({"first_frames": [0, 1.5]}, "first_frames"),
        ({"turns": {}}, "turns"),
        ({"turns": ["x"]}, "turn 1: 'x'"),
        ({"turns": [{"think": "a"}]}, "turn 1: no action"),
        ({"turns": [{"think": 3, "action": None}]}, "turn 1: think=3"),
        ({"turns": [{"think": "a", "action": {"kind": "zoom"}}]}, "turn 1: action"),
        ({"turns": [{"think": "a", "action": {"kind": []}}]}, "turn 1: action"),
        ({"turns": [{"think": "a", "action": {"kind": "shown", "start": 1, "end": 2, "frames": []}}]}, "action"),
        ({"turns": [{"think": "a", "action": {"kind": "look", "start": 1}}]}, "no end"),
        ({"turns": [{"think": "a", "action": {"kind": "look", "start": 1, "end": "4"}}]}, "end='4'"),
        ({"turns": [{"think": "a", "action": {"kind": "look", "start": 1, "end": 4, "fps": 2}}]}, "unknown fps"),
        ({"turns": [{"think": "a", "action": {"kind": "ask_frame", "time_s": float("nan")}}]}, "time_s=nan"),
        ({"turns": [{"think": "a", "action": None, "faults": "x"}]}, "faults"),
        ({"turns": [{"think": "a", "action": None, "observation": {"kind": "look"}}]}, "observation"),
        ({"fps": 3}, "unknown fps"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    with pytest.raises(DataError, match="here.json:3") as error:
        episode_from_json({**episode_to_json(EPISODE), **change}, "here.json:3")
    assert message in str(error.value)


@pytest.mark.parametrize("value", [None, [], "x", {}])
def test_what_is_no_episode_is_refused(value):
    with pytest.raises(DataError):
        episode_from_json(value)
