"""Files that are one JSON object: read whole up to a size, and otherwise left to the reader of rows."""

from __future__ import annotations

import pytest

from video_thinker.datasets import files
from video_thinker.datasets.files import read_json_object
from video_thinker.errors import DataError


def write(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    return tmp_path / "a.json"


@pytest.mark.parametrize(
    "text",
    ['[{"a": 1}]', '{"a": 1}\n{"a": 2}\n', "{", "{}", "plain", '{"a": ' + "[" * 100_000, '{"a": ' + "9" * 5000 + "}"],
)
def test_what_is_no_object_is_for_the_reader_of_rows(tmp_path, text):
    assert read_json_object(write(tmp_path, text)) is None


def test_an_object_is_read(tmp_path):
    assert read_json_object(write(tmp_path, ' \n{"v": {"a": 1}}')) == {"v": {"a": 1}}
    assert read_json_object(write(tmp_path, '\ufeff{"v": {"a": 1}}')) == {"v": {"a": 1}}


def test_an_object_that_is_too_large_is_refused_unread_and_rows_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LIST_BYTES", 20)
    monkeypatch.setattr(files.json, "loads", lambda *args, **kwargs: pytest.fail("it was read"))
    with pytest.raises(DataError, match=r"a\.json: one JSON object of .* GB; .*write one row a line as JSONL"):
        read_json_object(write(tmp_path, '{"v_0001": {"a": 1,\n "b": 2}}'.replace("\n", " ")))
    monkeypatch.undo()
    monkeypatch.setattr(files, "MAX_LIST_BYTES", 20)
    assert read_json_object(write(tmp_path, '{"a": 1}\n{"a": 2}\n{"a": 3}\n')) is None
    with pytest.raises(DataError, match="one JSON object"):
        read_json_object(write(tmp_path, '{"v_0001":\n {"a": 1, "b": 2}}'))
