from __future__ import annotations

import json
import logging

import pytest

from video_thinker.errors import ConfigError, DataError
from video_thinker.evaluation.metrics import grade
from video_thinker.models.fingerprint import model_fingerprint
from video_thinker.runs.files import read_json, write_json
from video_thinker.runs.predictions import Prediction, PredictionFile, open_output_dir
from video_thinker.schema import VideoSample

SETTINGS = {"model_sha256": "aa", "fps": 2.0, "prompt_style": "trace"}
SPLITS = {"id": {"file": "a.json", "sha256": "11", "num_samples": 3}}


def graded(name: str, text: str = "<answer>A</answer>", error: str | None = None):
    sample = VideoSample(name, "?", "multiple choice", "A", ("A. é", "B. y"))
    return grade(Prediction(name, text if error is None else "", 5, True, 4.0, error), sample)


@pytest.fixture
def file(tmp_path):
    return PredictionFile(tmp_path / "predictions" / "id.jsonl")


def test_rows_come_back_as_they_were(file):
    rows = [graded("q0", 'line\nbreak, "quotes", é, \u2028'), graded("q1", error="v.mp4: cannot decode")]
    file.append(rows)
    assert file.read() == {row.prediction.problem_id: row.prediction for row in rows}


def test_a_row_says_what_was_read_in_the_completion(file):
    text = "<time>00:01-00:03</time> <caption>c</caption> <think>t</think> <answer>A</answer>"
    file.append([graded("q0", text), graded("q1", error="gone")])
    first, second = (json.loads(line) for line in file.path.read_text().splitlines())
    assert (first["answer"], first["status"], first["score"], first["valid_format"]) == ("A", "correct", 1.0, True)
    assert first["segments"] == [[1.0, 3.0]]
    assert (second["status"], second["score"], second["error"]) == ("failed", None, "gone")


def test_nothing_there_is_no_prediction(file):
    assert file.read() == {}


def test_a_later_row_replaces_an_earlier_one(file):
    file.append([graded("q0", error="gone")])
    file.append([graded("q0", "<answer>B</answer>")])
    assert file.read()["q0"].completion == "<answer>B</answer>"


@pytest.mark.parametrize("cut", [1, 2, 30, 100])
def test_a_half_written_last_line_is_dropped_and_reported(file, cut, caplog):
    file.append([graded("q0"), graded("q1", "é" * 60)])
    content = file.path.read_bytes()
    file.path.write_bytes(content[:-cut])
    with caplog.at_level(logging.WARNING):
        assert set(file.read()) == {"q0"}
    assert "half-written" in caplog.text and str(file.path) in caplog.text
    file.append([graded("q1")])
    assert set(file.read()) == {"q0", "q1"}


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(file):
    file.append([graded("q0")])
    with file.path.open("a") as stream:
        stream.write('{"problem_id": "q1"}\n')
    file.append([graded("q2")])
    with pytest.raises(DataError, match=r"id\.jsonl:2: .*completion"):
        file.read()


def start(folder, settings=SETTINGS, splits=SPLITS, *, overwrite=False):
    open_output_dir(folder, settings, splits, {"batch_size": 4}, overwrite=overwrite)


def started(folder):
    start(folder)
    PredictionFile(folder / "predictions" / "id.jsonl").append([graded("q0")])
    return folder


def test_the_manifest_says_how_predictions_were_made(tmp_path):
    start(tmp_path)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["settings"] == SETTINGS
    assert manifest["splits"] == SPLITS
    assert manifest["config"] == {"batch_size": 4}
    assert manifest["packages"]["torch"] and manifest["git_commit"]


def test_the_same_settings_continue(tmp_path):
    start(started(tmp_path))
    assert PredictionFile(tmp_path / "predictions" / "id.jsonl").read().keys() == {"q0"}


def test_other_settings_are_refused_by_name(tmp_path):
    started(tmp_path)
    with pytest.raises(ConfigError, match=r"fps was 2\.0, is now 4\.0.*overwrite=true") as error:
        start(tmp_path, {**SETTINGS, "fps": 4.0})
    assert "prompt_style" not in str(error.value)


def test_a_setting_that_is_new_or_gone_is_a_difference(tmp_path):
    started(tmp_path)
    with pytest.raises(ConfigError, match="top_p was None, is now 0.9"):
        start(tmp_path, {**SETTINGS, "top_p": 0.9})
    with pytest.raises(ConfigError, match="fps was 2.0, is now None"):
        start(tmp_path, {key: value for key, value in SETTINGS.items() if key != "fps"})


def test_other_data_are_refused_and_a_moved_file_is_not(tmp_path):
    started(tmp_path)
    with pytest.raises(ConfigError, match=r"splits\.id\.sha256 was '11', is now '22'"):
        start(tmp_path, splits={"id": {**SPLITS["id"], "sha256": "22"}})
    start(tmp_path, splits={"id": {**SPLITS["id"], "file": "elsewhere/a.json"}})


def test_a_split_can_be_added(tmp_path):
    started(tmp_path)
    start(tmp_path, splits={"ood": {"file": "b.json", "sha256": "33", "num_samples": 1}})
    assert set(read_json(tmp_path / "manifest.json")["splits"]) == {"id", "ood"}
    with pytest.raises(ConfigError, match=r"splits\.id\.num_samples"):
        start(tmp_path, splits={"id": {**SPLITS["id"], "num_samples": 2}})


def test_overwrite_starts_over_and_leaves_other_files_alone(tmp_path):
    started(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    write_json(tmp_path / "metrics.json", {"id": {}})
    start(tmp_path, {**SETTINGS, "fps": 4.0}, overwrite=True)
    assert read_json(tmp_path / "manifest.json")["settings"]["fps"] == 4.0
    assert not (tmp_path / "metrics.json").exists()
    assert PredictionFile(tmp_path / "predictions" / "id.jsonl").read() == {}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_settings_may_change_while_there_is_no_prediction(tmp_path):
    start(tmp_path)
    start(tmp_path, {**SETTINGS, "fps": 4.0})
    assert read_json(tmp_path / "manifest.json")["settings"]["fps"] == 4.0


def test_predictions_without_a_manifest_are_refused(tmp_path):
    started(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"no manifest\.json"):
        start(tmp_path)


def test_a_damaged_json_names_its_file(tmp_path):
    (tmp_path / "m.json").write_text('{"a": 1')
    with pytest.raises(DataError, match=r"m\.json:1"):
        read_json(tmp_path / "m.json")


def model_folder(folder):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def test_the_fingerprint_is_that_of_weights_and_configuration(tmp_path):
    folder = model_folder(tmp_path / "a")
    first = model_fingerprint(str(folder))
    assert model_fingerprint(str(model_folder(tmp_path / "copy"))) == first
    (folder / "trainer_state.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(b"state")
    assert model_fingerprint(str(folder)) == first
    (folder / "model.safetensors").write_bytes(b"weightz")
    second = model_fingerprint(str(folder))
    (folder / "config.json").write_text("{ }")
    assert len({first, second, model_fingerprint(str(folder))}) == 3


@pytest.mark.parametrize("manifest", [{}, {"settings": 3}, {"settings": SETTINGS, "splits": [], "packages": {}}])
def test_a_manifest_that_lacks_its_parts_is_one_message(tmp_path, manifest):
    open_output_dir(tmp_path, SETTINGS, SPLITS, {}, overwrite=False)
    PredictionFile(tmp_path / "predictions" / "id.jsonl").append([graded("a")])
    write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises((DataError, ConfigError), match=r"manifest\.json"):
        open_output_dir(tmp_path, SETTINGS, SPLITS, {}, overwrite=False)


def test_a_line_that_is_no_text_is_an_error_with_its_number(file):
    file.append([graded("a")])
    file.path.write_bytes(file.path.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(DataError, match=":2: not a prediction"):
        file.read()
