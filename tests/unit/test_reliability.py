"""docs/reliability.md: each fault names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| fault |", "| ---"))
]


def test_there_are_sixty_faults() -> None:
    assert len(ROWS) >= 60
    assert len(set(ROWS)) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_the_tests_of_a_fault_are_there(row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    assert named
    for path, name in named:
        assert re.search(
            rf"^(?:async )?def {name}\(", (ROOT / "tests" / path).read_text(encoding="utf-8"), re.MULTILINE
        )
