"""`train.log` holds what the console shows, of all sittings, with the error that ended a run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from video_thinker.errors import ConfigError
from video_thinker.training.logging.log_file import file_only, log_file


def test_all_sittings_and_the_error_that_ended_one(tmp_path, caplog):
    path = tmp_path / "train.log"
    caplog.set_level(logging.INFO)
    quiet = logging.getLogger("transformers")
    with log_file(path):
        logging.getLogger("video_thinker.x").info("first sitting")
        quiet.warning("a library's word")
        file_only.info("step 1/2  loss 1")
    logging.getLogger("video_thinker.x").info("between")
    with pytest.raises(ConfigError), log_file(path):
        raise ConfigError("wrong")
    text = path.read_text()
    for line in (
        "first sitting",
        "a library's word",
        "step 1/2  loss 1",
        "ERROR video_thinker.file_only: ConfigError: wrong",
    ):
        assert text.count(line) == 1, line
    assert "between" not in text


def test_a_token_of_the_command_line_is_not_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["video-thinker", "sft", "c.yaml", "hub_token=hf_planted", "seed=1"])
    with log_file(tmp_path / "train.log"):
        pass
    text = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert "seed=1" in text and "planted" not in text


def test_a_full_disk_ends_nothing_and_is_said_once(tmp_path, monkeypatch, capsys):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def flush(self):
            pass

        def close(self):
            pass

    with log_file(tmp_path / "train.log"):
        (handler,) = [one for one in file_only.handlers if getattr(one, "baseFilename", "").endswith("train.log")]
        handler.stream = Full()
        file_only.info("one")
        file_only.info("two")
    assert capsys.readouterr().err.count("cannot be written any more ([Errno 28] No space left on device)") == 1


def test_a_full_disk_at_the_end_does_not_hide_what_ended_the_run(tmp_path):
    with pytest.raises(ConfigError, match="wrong"), log_file(tmp_path / "train.log"):
        (handler,) = [one for one in file_only.handlers if getattr(one, "baseFilename", "").endswith("train.log")]
        handler.stream.close()
        handler.stream = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115  # the handler closes it
        handler.stream.write("what is left to be written when the file is closed")
        raise ConfigError("wrong")
