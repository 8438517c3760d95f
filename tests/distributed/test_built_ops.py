from __future__ import annotations

from tests.distributed.built_ops import remove_dead_locks


def test_a_lock_is_removed_when_no_process_holds_it(tmp_path):
    dead, held = tmp_path / "py311" / "adam" / "lock", tmp_path / "py311" / "comm" / "lock"
    for lock in (dead, held):
        lock.parent.mkdir(parents=True)
        lock.touch()
    with held.open():
        assert remove_dead_locks(tmp_path) == [dead]
        assert held.exists() and not dead.exists()
    assert remove_dead_locks(tmp_path) == [held]
