"""Files that a config of a training names are looked at before a library reads them."""

from __future__ import annotations

import pytest

from video_thinker.errors import ConfigError
from video_thinker.training.arguments import check_json_object


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no JSON"),
        (b"", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[]", "must hold a JSON object"),
        (b"3", "must hold a JSON object"),
    ],
)
def test_a_deepspeed_file_that_is_no_object_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "ds.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"deepspeed='.*ds\.json': {message}"):
        check_json_object("deepspeed", tmp_path / "ds.json")
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2}}')
    check_json_object("deepspeed", tmp_path / "ds.json")
