"""Files are complete or absent, whatever the disk or a kill does; what was computed is kept."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from video_thinker import cli
from video_thinker.disk import WORDS, open_store
from video_thinker.errors import DataError, WriteError
from video_thinker.runs import files
from video_thinker.runs.completions import append_rows
from video_thinker.runs.files import (
    LogFile,
    append_text,
    building,
    check_folder,
    check_place,
    kept_place,
    read_json,
    remove_drafts,
    replacing,
    restore_kept,
    write_json,
    write_text,
)


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path, monkeypatch):
    """What is kept elsewhere must not leave the test's folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()


def full(monkeypatch, code: int = errno.ENOSPC, only: str = "") -> None:
    """Let the disk refuse all that is forced to it, or only files whose path holds a text."""
    real = os.fsync

    def fsync(descriptor):
        if only in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "tmp")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG])
def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_draft(tmp_path, monkeypatch, code):
    write_text(tmp_path / "a.json", "old")
    full(monkeypatch, code)
    with pytest.raises(WriteError, match=rf"a\.json: cannot be written: {WORDS[code].partition('(')[0]}"):
        write_text(tmp_path / "a.json", "new")
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text() == "old"


def test_a_link_that_leads_nowhere_is_said(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "removed" / "run")
    for write in (check_folder, lambda path: write_text(path / "a.json", "")):
        with pytest.raises(WriteError, match="run.*: a symbolic link in its path leads nowhere"):
            write(tmp_path / "run")


def test_an_error_of_the_writer_is_its_own_and_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), replacing(tmp_path / "a.txt") as file:
        file.write("half")
        raise KeyError("x")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_file_where_a_folder_is_wanted_and_the_other_way_are_said(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "x" / "a.json", tmp_path / "file" / "a.json"):
        with pytest.raises(WriteError, match="a file is where a folder is wanted"):
            write_text(place, "")
        with pytest.raises(WriteError, match="a file is where a folder is wanted"):
            check_folder(place)
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="a folder is where a file is wanted"):
        write_text(tmp_path / "folder", "")
    with pytest.raises(WriteError, match="a folder is where a file is wanted"):
        check_place(tmp_path / "folder", "--out")


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["y" * 200] * 30)])
def test_a_name_or_path_that_is_too_long_is_said_in_short(tmp_path, name):
    for write in (lambda path: write_text(path, ""), check_folder, lambda path: check_place(path, "--out")):
        with pytest.raises(WriteError, match="too long") as caught:
            write(tmp_path / name)
        assert len(str(caught.value)) < 700


def test_a_long_name_that_the_file_system_takes_is_written(tmp_path):
    write_text(tmp_path / ("é" * 125), "x")
    assert (tmp_path / ("é" * 125)).read_text() == "x"


def test_a_full_disk_is_noticed_before_anything_is_computed(tmp_path, monkeypatch):
    full(monkeypatch)
    with pytest.raises(WriteError, match=r"the disk is full, .* MiB are free there; choose another output_dir"):
        check_folder(tmp_path / "run")


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with building(tmp_path / "model") as draft:
        (draft / "a").write_text("1")
        assert not (tmp_path / "model").exists()
    assert names(tmp_path / "model") == ["a"]
    with pytest.raises(WriteError, match="not empty"), building(tmp_path / "model") as draft:
        (draft / "b").write_text("2")
    with building(tmp_path / "model", replace=True) as draft:
        (draft / "b").write_text("2")
    assert names(tmp_path / "model") == ["b"] and names(tmp_path) == ["model"]


def test_what_a_killed_process_left_is_removed_by_the_next_and_that_of_a_live_one_is_not(tmp_path):
    code = f"""
        import os, signal
        from video_thinker.runs.files import building, replacing
        with building({str(tmp_path / "model")!r}) as draft, replacing({str(tmp_path / "a.json")!r}) as file:
            (draft / "half").write_text("x")
            file.write("half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    left = names(tmp_path)
    assert len(left) == 2 and all(name.startswith(".") and name.endswith(".tmp") for name in left)
    live = tmp_path / f".model.{files._host()}.{os.getppid()}.0123.tmp"
    live.mkdir()
    remove_drafts(tmp_path / "model")
    write_text(tmp_path / "a.json", "whole")
    assert names(tmp_path) == [live.name, "a.json"]


def test_rows_that_cannot_be_added_are_kept_and_taken_up(tmp_path, monkeypatch, caplog):
    run = tmp_path / "run"
    path = run / "predictions" / "id.jsonl"
    append_text(path, "one\n")
    with monkeypatch.context() as patch:
        full(patch, only="/run/predictions/id.jsonl")
        patch.setattr(files, "kept_place", lambda p: tmp_path / "kept" / Path(p).name)
        with pytest.raises(WriteError, match=r"the new rows are kept in .*kept/id\.jsonl; make room, and"):
            append_text(path, "two\n")
    assert path.read_text() == "one\n"
    with monkeypatch.context() as patch:
        patch.setattr(files, "keep", lambda p, data: None)
        full(patch)
        with pytest.raises(WriteError, match="4 bytes are lost"):
            append_text(path, "two\n")
    place = kept_place(path)
    place.parent.mkdir(parents=True)
    place.write_text("two\nthree\n")
    path.write_text("one\nhalf a li")
    caplog.set_level("INFO")
    restore_kept(run)
    assert path.read_text() == "one\ntwo\nthree\n" and not place.exists()
    assert "could not be written before" in caplog.text
    restore_kept(run)
    assert path.read_text() == "one\ntwo\nthree\n"


def test_kept_rows_can_be_dropped(tmp_path):
    place = kept_place(tmp_path / "run" / "a.jsonl")
    place.parent.mkdir(parents=True)
    place.write_text("two\n")
    restore_kept(tmp_path / "run", drop=True)
    assert not place.exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"[1, 2]", b"3", b"{", b"\xff\xfe", b""])
def test_damaged_json_is_said_with_its_name(tmp_path, content):
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(DataError, match=r"m\.json.*damaged"):
        read_json(tmp_path / "m.json")
    write_json(tmp_path / "m.json", {"a": "é"})
    assert read_json(tmp_path / "m.json") == {"a": "é"} and read_json(tmp_path / "none.json") == {}


def test_a_log_that_cannot_be_written_is_said_once_counted_and_ends_nothing(tmp_path, caplog):
    (tmp_path / "gone").write_text("a file in the place of the folder")
    log = LogFile(tmp_path / "gone" / "completions.jsonl", "completions")
    for _ in range(3):
        append_rows(log, [{"step": 1}, {"step": 1}])  # type: ignore[list-item]  # any row will do
    log.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "the run goes on" in said[0] and "6 completions could not be written" in said[1]


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE in a child")
def test_a_log_has_no_half_line_after_a_full_disk(tmp_path):
    code = f"""
        import resource, signal
        from pathlib import Path
        from video_thinker.runs.files import LogFile
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        log = LogFile(Path({str(tmp_path / "log")!r}), "lines")
        for number in range(20):
            log.append("%07d\\n" % number)
        assert log.num_lost == 8, log.num_lost
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True)
    assert (tmp_path / "log").read_text() == "".join(f"{number:07d}\n" for number in range(12))


@pytest.mark.parametrize("damage", ["a file", "no database"])
def test_a_store_that_cannot_be_used_is_said_with_its_key(tmp_path, damage):
    folder = tmp_path / "cache"
    if damage == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        (folder / "cache.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(WriteError, match=r"cache: .*frame_cache_dir"):
        open_store(folder, "frame_cache_dir")


def test_a_file_that_any_command_cannot_read_or_write_is_one_line(monkeypatch, capsys):
    class Command:
        @staticmethod
        def main(argv):
            raise OSError(errno.ENOSPC, "No space left on device", "/data/run/metrics.json")

    monkeypatch.setattr(cli, "check_first", lambda name, argv: True)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Command)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "\nOSError: /data/run/metrics.json: the disk is full\n"
