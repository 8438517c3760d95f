from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.built_ops import build, extensions_root, remove_dead_locks
from tests.tiny import shared_once


@pytest.fixture(scope="session")
def built_ops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let one worker compile DeepSpeed's optimizer."""
    return shared_once(tmp_path_factory, "built_ops", build)


@pytest.fixture
def ranks_can_load(built_ops: Path) -> None:
    """Leave no lock of a rank that another test has killed."""
    remove_dead_locks(extensions_root())
