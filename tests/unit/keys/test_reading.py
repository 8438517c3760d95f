"""A config that cannot be read: the message names file and line."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from tests.conftest import REPO
from video_thinker.errors import ConfigError
from video_thinker.keys import reading
from video_thinker.keys.reading import read_file, read_value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: 1\n\tb: 2\n", r"c\.yaml:2: is not YAML: a tab stands"),
        (b"a: 1\nb: caf\xe9\n", r"c\.yaml:2: byte 0xe9 is not UTF-8"),
        ("a: 1\n".encode("utf-16"), r"c\.yaml:1: byte 0xff is not UTF-8"),
        (b"a: 1\nb: 2\na: 3\n", r"c\.yaml:3: the key 'a' is given twice, first in line 1"),
        (b"a: {x: 1, x: 2}\n", r"c\.yaml:1: the key 'x' is given twice"),
        (b"a: 1\nb: &x\n  c: *x\n", r"c\.yaml:\d: an alias \(\*name\) holds itself"),
        (b"a: 1\nb: *nope\n", r"c\.yaml:2: is not YAML: found undefined alias 'nope'"),
        (b"# x\n- a\n", r"c\.yaml:2: holds a list; it must hold a YAML mapping"),
        (b"text\n", r"c\.yaml:1: holds a single value; it must hold a YAML mapping"),
        (b"", r"c\.yaml: is empty"),
        (b"# only this\n", r"c\.yaml: is empty"),
        (b"a: 1\nb: [1, 2\nc: 3\n", r"c\.yaml:\d: is not YAML"),
        (b"a: 1\nb: c: d\n", r"c\.yaml:2: is not YAML: a text that holds ': ' needs quotes"),
        (b"a: 1\n---\nb: 2\n", r"c\.yaml:2: is not YAML: it holds several documents"),
        (b"a: 1\nb: \x07\n", r"c\.yaml:2: holds the control character"),
        (b"1: a\n", r"c\.yaml:1: a key must be a name"),
        (b"[a, b]: c\n", r"c\.yaml:1: a key must be a name"),
        (b"a: " + b"[" * 3000, r"c\.yaml:?.*: is (nested too deeply|not YAML)"),
        (b"a: !!python/object:os.system x\n", r"c\.yaml:1: a: the value cannot be read"),
        (b"a: 1\nb:\n  c: !!python/name:os.system\n", r"c\.yaml:3: b: the value cannot be read"),
        (b"a: 1\n<<: 3\n", r"c\.yaml:2: << must name a mapping"),
    ],
)
def test_what_cannot_be_read_is_named_with_file_and_line(tmp_path, data, message):
    path = tmp_path / "c.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message) as caught:
        read_file(path)
    assert "\n" not in str(caught.value) and "unicode string" not in str(caught.value)


def test_byte_order_mark_line_ends_of_windows_and_merges_are_read(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xa9\r\n")
    assert {key: one.value for key, one in read_file(path).items()} == {"a": 1, "b": "é"}
    path.write_text("<<: {a: 1, b: 2}\nb: 3\n")
    assert {key: one.value for key, one in read_file(path).items()} == {"a": 1, "b": 3}


def test_a_folder_a_missing_and_a_huge_file_are_named(tmp_path):
    with pytest.raises(ConfigError, match="is a folder; name a YAML config"):
        read_file(tmp_path)
    with pytest.raises(ConfigError, match="no such config file"):
        read_file(tmp_path / "no.yaml")
    (tmp_path / "clip.mp4").write_bytes(bytes(5 << 20))
    with pytest.raises(ConfigError, match="so it is no config"):
        read_file(tmp_path / "clip.mp4")


def test_a_pipe_is_read_once_for_all_who_ask_and_what_never_ends_is_no_config():
    read, write = os.pipe()
    os.write(write, b"fps: 2.0\n")
    os.close(write)
    path = Path(f"/dev/fd/{read}")  # as a shell writes <(sed …)
    assert [read_file(path)["fps"].value for _ in range(2)] == [2.0, 2.0]
    os.close(read)
    reading._read_pipe.cache_clear()
    with pytest.raises(ConfigError, match="so it is no config"):
        read_file(Path("/dev/zero"))


def test_a_value_of_the_command_line_that_is_no_yaml_is_named_by_its_key():
    with pytest.raises(ConfigError, match="^command line: kwargs: is not YAML: "):
        read_value("kwargs", "{rate: [0.1")


def without_encoding(source: str) -> list[int]:
    """Lines that open a text file without an encoding; the first argument of `open` may be a path or a mode."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg in ("encoding", None) for keyword in node.keywords):
            continue
        name = ast.unparse(node.func).split(".")[-1]
        modes = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
        is_binary = any(isinstance(mode, str) and "b" in mode and len(mode) <= 3 for mode in modes)
        opens = ast.unparse(node.func) == "open" or re.fullmatch(
            r".*(path|file|Path\(.*\))\.open", ast.unparse(node.func)
        )
        is_method = isinstance(node.func, ast.Attribute)
        if (is_method and name in ("read_text", "write_text")) or (opens and not is_binary):
            lines.append(node.lineno)
    return lines


def test_files_are_read_and_written_as_utf8_in_every_locale():
    package = REPO / "src" / "video_thinker"
    found = {str(path): without_encoding(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert without_encoding("path.read_text()\nopen(x)\npath.open('w')\nopen(x, 'rb')\nopen(x, encoding='a')") == [
        1,
        2,
        3,
    ]
