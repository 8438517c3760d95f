"""The package's own names: each is imported when it is used, and `import video_thinker` needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import video_thinker


def test_the_import_needs_no_torch_and_samples_need_none_either():
    code = (
        "import sys, video_thinker; from video_thinker import load_samples, accuracy_reward, parse_trace; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; print(*dir(video_thinker))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(shown) >= set(video_thinker.__all__)


def test_what_type_checkers_see_is_what_is_imported():
    tree = ast.parse(Path(video_thinker.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module.removeprefix("video_thinker.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert seen == video_thinker._HOME_OF
    assert sorted(seen) == sorted(video_thinker.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'trainer_of_all'"):
        video_thinker.trainer_of_all  # noqa: B018
