"""A media file on which the decoder hangs in C code, in every command: an error of that file, in time.

The file is a named pipe into which nobody writes: to open it for reading blocks in the kernel. Where a command asks for
a regular file, the reader is one that hangs at files whose name begins with "hang".
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import diskcache
import psutil
import pytest
import yaml
from torch.utils.data import DataLoader

from tests import launcher
from tests.conftest import make_item, write_items
from tests.report_helpers import prediction, write_eval_run
from video_thinker import cli
from video_thinker.data.decoding import videos
from video_thinker.data.video import VideoSampling, load_video
from video_thinker.diagnostics.validate import main as validate
from video_thinker.errors import DataError, DecodeError
from video_thinker.evaluation import difficulty
from video_thinker.evaluation import run as runner
from video_thinker.report import ask
from video_thinker.report.command import main as report
from video_thinker.synthesis import run as synthesis
from video_thinker.synthesis.frames import FrameSet, VideoFile, VideoFolder
from video_thinker.training import sft

pytestmark = pytest.mark.integration

LIMIT_S = 1.0
IN_A_PIPE = ("wait_for_partner", "fifo_open")
LATE = f"hang.mp4: decoding did not end within {LIMIT_S:g} s"


@pytest.fixture
def folder(tmp_path, media_root) -> Path:
    """Two sound clips and one that hangs."""
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(media_root / name, tmp_path / name)
    os.mkfifo(tmp_path / "hang.mp4")
    return tmp_path


@pytest.fixture
def hanging_reader(folder, monkeypatch) -> None:
    """Make hang.mp4 a sound file, and let the reader hang at it."""
    monkeypatch.setattr(videos, "READER", "tests.fake_readers:HangingVideo")
    (folder / "hang.mp4").unlink()
    shutil.copy(folder / "a.mp4", folder / "hang.mp4")


@pytest.fixture
def items_file(folder) -> Path:
    items = [make_item("good", "a.mp4"), make_item("late", "hang.mp4"), make_item("next", "b.mp4")]
    return write_items(folder / "items.jsonl", items)


def place_in_kernel(pid: int) -> str:
    """Name the function of the kernel in which a process waits; "" or "0" where that is not told."""
    path = Path(f"/proc/{pid}/wchan")
    return path.read_text() if path.exists() else ""


@pytest.fixture(autouse=True)
def no_orphans():
    """No process that a test has started is left in the file that hangs."""
    yield
    places = [place_in_kernel(child.pid) for child in psutil.Process().children(recursive=True)]
    assert not set(places) & set(IN_A_PIPE)


def write_config(folder: Path, **values: object) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"media_timeout_s": LIMIT_S, **values}))
    return str(path)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_validate_counts_it_as_an_error(folder, items_file, capsys, monkeypatch):
    flags = ["--media-root", str(folder), "--media-timeout-s", str(LIMIT_S)]
    monkeypatch.setenv("COLUMNS", "600")
    assert validate([str(items_file), *flags]) == 1
    text = capsys.readouterr().out
    assert LATE in text and "sample 'late'" in text and "1 errors, 0 warnings in 3 rows" in text


def test_ask_ends_with_the_error(folder, tiny_model_dir):
    with pytest.raises(DecodeError, match=LATE):
        ask.main([str(folder / "hang.mp4"), "?", "--model", str(tiny_model_dir), "--media-timeout-s", str(LIMIT_S)])


def test_eval_counts_it_as_failed_and_answers_the_others(folder, items_file, tiny_model_dir):
    config = write_config(
        folder,
        model_name_or_path=str(tiny_model_dir),
        splits={"id": str(items_file)},
        media_root=str(folder),
        output_dir=str(folder / "out"),
        prompt_style="plain",
        max_new_tokens=4,
    )
    with pytest.raises(DataError, match=rf"id: 1 of 3 items cannot be shown.*max_failed=0\.01.*{LATE}"):
        runner.main([config])
    assert runner.main([config, "max_failed=0.5"]) == 0
    answered = {row["problem_id"]: row for row in rows(folder / "out" / "predictions" / "id.jsonl")}
    assert LATE in answered["late"]["error"] and "sample 'late'" in answered["late"]["error"]
    assert not answered["good"].get("error") and not answered["next"].get("error")
    assert json.loads((folder / "out" / "metrics.json").read_text())["id"]["num_failed"] == 1


def test_difficulty_gives_it_no_rate(folder, items_file, tiny_model_dir):
    config = write_config(
        folder,
        model_name_or_path=str(tiny_model_dir),
        items_file=str(items_file),
        media_root=str(folder),
        output_dir=str(folder / "out"),
        prompt_style="plain",
        num_generations=1,
        max_new_tokens=4,
    )
    with pytest.raises(DataError, match="items: 1 of 3 items cannot be shown"):
        difficulty.main([config])
    assert difficulty.main([config, "max_failed=0.5"]) == 0
    rates = {row["problem_id"]: row["pass_rate"] for row in rows(folder / "out" / "pass_rates.jsonl")}
    assert rates["late"] is None and rates["good"] is not None and rates["next"] is not None


def test_sft_skips_and_lists_it_and_its_workers_go_on(folder, items_file, tiny_model_dir):
    config = write_config(
        folder,
        model_name_or_path=str(tiny_model_dir),
        dtype="float32",
        train_file=str(items_file),
        media_root=str(folder),
        output_dir=str(folder / "out"),
        on_decode_error="skip",
        max_decode_errors=0.5,
        dataloader_num_workers=1,
        max_pixels=64 * 64,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        max_steps=1,
        canary_steps=0,
        save_strategy="no",
    )
    assert sft.main([config]) == 0
    (skipped,) = rows(folder / "out" / "skipped.jsonl")
    assert skipped["problem_id"] == "late" and LATE in skipped["error"]


class Clips:
    """A data set whose rows are what became of a file, and in which process."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, int]:
        try:
            video = load_video(self.paths[index], VideoSampling(), timeout_s=LIMIT_S)
        except DecodeError as error:
            return str(error), os.getpid()
        return f"{len(video.timestamps_s)} frames", os.getpid()


def test_a_data_worker_outlives_a_file_that_hangs(folder):
    load_video(folder / "a.mp4", VideoSampling())  # the parent has a child that is not the worker's
    loader = DataLoader(Clips([folder / f"{name}.mp4" for name in ("a", "hang", "b")]), batch_size=None, num_workers=1)
    (good, first), (late, second), (after, third) = loader
    assert (good, after) == ("8 frames", "12 frames") and LATE in late
    assert first == second == third != os.getpid()


@pytest.mark.usefixtures("hanging_reader")
def test_synthesize_drops_and_lists_it(folder):
    videos = [
        {"path": f"{name}.mp4", "segments": [{"start_s": 0, "end_s": 1, "caption": "x"}]} for name in ("a", "hang")
    ]
    (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in videos))
    endpoint = {"model": "m", "base_url": "http://127.0.0.1:9/v1"}
    config = write_config(
        folder,
        sources={"raw": {"source": "videos", "file": str(folder / "raw.jsonl")}},
        media_root=str(folder),
        output_dir=str(folder / "out"),
        teacher=endpoint,
        validator=endpoint,
        min_video_frames=2,
    )
    assert synthesis.main([config]) == 0
    reasons = [row["reason"] for row in rows(folder / "out" / "dropped.jsonl")]
    assert len(reasons) == 2 and any(LATE in reason for reason in reasons)


@pytest.mark.usefixtures("hanging_reader")
def test_frames_for_a_model_are_given_up_in_time(folder):
    video = VideoFile("hang.mp4", folder / "hang.mp4", "digest", 32, 4.0)
    with pytest.raises(DecodeError, match=LATE):
        FrameSet(video, 0.0, 2.0, 2, 64 * 64, timeout_s=LIMIT_S).content()
    with diskcache.Cache(str(folder / "cache")) as cache:
        found = VideoFolder(folder, cache, min_frames=2, backend="auto", timeout_s=LIMIT_S)
        late, good = found.open_all([("", "hang.mp4"), ("", "b.mp4")])
    assert isinstance(late, DecodeError) and LATE in str(late)
    assert isinstance(good, VideoFile) and good.num_frames == 48


def test_a_report_says_so_in_place_of_the_frames(folder, items_file, caplog):
    run = write_eval_run(folder / "run", items_file, {"id": [prediction(name) for name in ("good", "late", "next")]})
    flags = ["--out", str(folder / "page.html"), "--media-root", str(folder), "--media-timeout-s", str(LIMIT_S)]
    with caplog.at_level(logging.WARNING):
        assert report([str(run), *flags]) == 0
    assert LATE in caplog.text
    page = (folder / "page.html").read_text()
    assert LATE in page and page.count("data:image/jpeg") == 2


def start_validate(folder: Path, items_file: Path) -> tuple[launcher.Popen, psutil.Process]:
    """Start the command without a limit, and wait until its child is in the file that hangs."""
    arguments = [items_file, "--media-root", folder, "--media-timeout-s", "none", "--workers", "1"]
    pipes = {"stdout": launcher.PIPE, "stderr": launcher.PIPE}
    script = launcher.Popen(["-m", "video_thinker.cli", "validate", *arguments], **pipes)
    end_s = time.monotonic() + 120
    while time.monotonic() < end_s:
        for child in psutil.Process(script.pid).children():
            if place_in_kernel(child.pid) in (*IN_A_PIPE, "0", ""):
                return script, child
        time.sleep(0.05)
    raise AssertionError("the command did not come to the file")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_command_that_is_killed(folder, items_file, end):
    script, child = start_validate(folder, items_file)
    os.killpg(script.pid, end)
    script.communicate(timeout=60)
    child.wait(timeout=60)
    assert not child.is_running() and script.returncode not in (None, 0)


def test_the_cli_prints_the_error_and_no_traceback(folder, tiny_model_dir, capsys):
    arguments = [str(folder / "hang.mp4"), "?", "--model", str(tiny_model_dir), "--media-timeout-s", str(LIMIT_S)]
    assert cli.main(["ask", *arguments]) == 2
    assert f"DecodeError: {folder / LATE}" in capsys.readouterr().err
