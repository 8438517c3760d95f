"""Files opened again: their indexes are remembered, and an index that turned out wrong is replaced."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.coded_clips import CONSTANT, Clip, number_of
from tests.unit.data.test_readers import CLOSED
from video_thinker.data import pyav_reader
from video_thinker.data.decoding import videos
from video_thinker.data.decoding.served import ServedVideo
from video_thinker.data.index_memory import FileVersion, IndexMemory
from video_thinker.data.readers import open_reader
from video_thinker.data.video_index import PacketTable
from video_thinker.errors import TimesChangedError


@pytest.mark.parametrize("name", ["again.mp4", "again.mkv"])
def test_a_file_opened_again_is_not_indexed_again(tmp_path, monkeypatch, name):
    path = Clip(name, options=CLOSED).write(tmp_path)
    open_reader(path)
    with monkeypatch.context() as patch:
        patch.setattr(pyav_reader.PyavReader, "_index_file", None)
        reader = open_reader(path)
        found = reader.frames_at(reader.times_s[[3, 20, 37]].tolist())
        assert [number_of(pixels) for _, pixels in found] == [3, 20, 37]
    path.write_bytes(
        Clip(f"other {name}", options=CLOSED, times_s=Clip(name).times_s[:30]).write(tmp_path).read_bytes()
    )
    assert len(open_reader(path).times_s) == 30


@pytest.mark.parametrize("how", ["replaced", "in place"])
def test_another_file_of_the_same_size_and_time_is_indexed(tmp_path, how):
    """As `cp -p` and `rsync -t` leave them; the index says that the frames come every 0.1 s, or every 0.2 s."""
    path = Clip("clip.mkv", options=CLOSED).write(tmp_path)
    slower = Clip("slower.mkv", options=CLOSED, times_s=[2 * time_s for time_s in CONSTANT]).write(tmp_path)
    size = max(path.stat().st_size, slower.stat().st_size)
    for file in (path, slower):
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
        os.utime(file, ns=(0, 0))
    assert open_reader(path).times_s[-1] == pytest.approx(3.9, abs=0.002)
    if how == "replaced":
        slower.rename(path)
    else:
        path.write_bytes(slower.read_bytes())
        os.utime(path, ns=(0, 0))
    assert open_reader(path).times_s[-1] == pytest.approx(7.8, abs=0.002)


@pytest.mark.parametrize("field", ["st_size", "st_mtime_ns", "st_ino", "st_ctime_ns"])
def test_each_sign_of_another_file_counts(tmp_path, monkeypatch, field):
    path = tmp_path / "file"
    path.write_text("x")
    before, status = FileVersion.of(path), path.stat()
    signs = {name: getattr(status, name) for name in ("st_size", "st_mtime_ns", "st_ino", "st_ctime_ns")}
    for change, same in ((0, True), (1, False)):
        found = SimpleNamespace(**{**signs, field: signs[field] + change})
        monkeypatch.setattr(Path, "stat", lambda self, found=found: found)
        assert (FileVersion.of(path) == before) is same
        monkeypatch.undo()


def test_the_ones_not_used_for_longest_are_forgotten(tmp_path):
    memory, versions = IndexMemory(len, most=10), []
    for number in range(3):
        (tmp_path / str(number)).write_text("x")
        versions.append(FileVersion.of(tmp_path / str(number)))
        memory.keep(versions[-1], [0] * 5)
        memory.get(versions[0])
    assert [memory.get(version) is not None for version in versions] == [True, False, True]
    memory.keep(versions[1], [0] * 99)
    assert [memory.get(version) is not None for version in versions] == [False, True, False]


def test_times_that_decoding_proves_wrong_are_told_and_then_right(tmp_path, monkeypatch):
    """The packets announce a frame between two others, which no decoder gives."""
    path = Clip("ghost.mkv", options=CLOSED).write(tmp_path)
    index_by_packets = pyav_reader.index_by_packets

    def announce_another(packets, start):
        packets.pts[30] += 13
        return index_by_packets(packets, start)

    monkeypatch.setattr(pyav_reader, "index_by_packets", announce_another)
    monkeypatch.setattr(PacketTable, "is_at", lambda self, packet, place: True)
    video = ServedVideo(str(path), "pyav", "", whole=True)
    with pytest.raises(TimesChangedError, match=r"ghost\.mkv.*other times"):
        list(video.frames_at(video.facts.times_s.tolist()))
    again = ServedVideo(str(path), "pyav", "", whole=True)
    frames = list(again.frames_at(again.facts.times_s.tolist()))
    assert [number_of(pixels) for _, pixels in frames] == list(range(40))


def test_a_video_is_opened_again_where_its_times_changed(monkeypatch, tmp_path):
    path = Clip("twice.mkv", options=CLOSED).write(tmp_path)
    left = [2]

    def read(video):
        if left[0]:
            left[0] -= 1
            raise TimesChangedError("as decoding has shown")
        return len(video.times_s)

    assert videos.read_video(path, read) == 40
    left[0] = videos.MOST_OPENINGS
    with pytest.raises(TimesChangedError):
        videos.read_video(path, read)
