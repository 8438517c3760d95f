"""The packets that an mp4's head lists are those that reading it through finds."""

from __future__ import annotations

import av
import numpy as np
import pytest

from tests.coded_clips import NTSC, PHONE, Clip
from tests.unit.data.test_readers import CLOSED, INTRA, OPEN
from video_thinker.data import mp4_index
from video_thinker.data.containers import best_stream
from video_thinker.data.video_index import read_packets

CLIPS = [
    Clip("closed.mp4", options=CLOSED),
    Clip("intra.mov", options=INTRA),
    Clip("phone.mp4", times_s=PHONE, options=OPEN),
    Clip("sound.mp4", options=CLOSED, sound_s=3.0),
    Clip("closed_trimmed.mp4", options=CLOSED, trim_s=1.5),
    Clip("open_trimmed.mov", options=OPEN, trim_s=1.7),
    Clip("ntsc_trimmed.mp4", times_s=NTSC, options=OPEN, trim_s=float(NTSC[31])),
]


def tables_of(path):
    with av.open(str(path)) as container:
        return mp4_index.read_tables(path, container, best_stream(container))


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_the_head_lists_the_packets(tmp_path, monkeypatch, clip):
    path = clip.write(tmp_path)
    if clip.trim_s is None:  # FFmpeg is not asked for each entry
        monkeypatch.setattr(mp4_index, "_edited_track", None)
    table = tables_of(path)
    with av.open(str(path)) as container:
        read = read_packets(container, best_stream(container))
    assert table is not None
    for name in ("pts", "dts", "size", "key", "shown"):
        assert np.array_equal(getattr(table, name), getattr(read, name)), name
    assert read.shown.all() == (clip.trim_s is None)


def test_a_cut_file_and_a_damaged_head_are_read_through(tmp_path):
    path = Clip("cut.mp4", options=CLOSED, muxer={"movflags": "faststart"}).write(tmp_path)
    whole = path.read_bytes()
    assert tables_of(path) is not None
    path.write_bytes(whole[:-200])
    assert tables_of(path) is None
    times = whole.index(b"stts")
    path.write_bytes(whole[: times + 8] + b"\x00\x00\x00\xff" + whole[times + 12 :])
    assert tables_of(path) is None
