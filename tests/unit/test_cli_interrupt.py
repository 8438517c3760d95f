"""Ctrl-C ends any command with one line and exit code 130."""

from __future__ import annotations

import signal
import sys
from types import ModuleType

import pytest

from video_thinker import cli


@pytest.mark.parametrize(("argv", "again"), [(["eval", "x.yaml"], True), (["validate", "x.json"], False)])
def test_one_line_and_no_traceback(monkeypatch, capsys, argv, again):
    command = argv[0]

    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "check_first", lambda name, argv: True)
    module = ModuleType("interrupted")
    module.main = interrupted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "interrupted", module)
    monkeypatch.setitem(cli.COMMANDS, command, ("interrupted", ""))
    before = signal.getsignal(signal.SIGINT)
    try:
        assert cli.main(argv) == 130
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL, "a second one ends what Python still waits for"
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"{command}: interrupted by Ctrl-C") and "\n" not in said
    assert ("The same command continues" in said) is again
