"""DeepSpeed's optimizer in C++, which each machine compiles once, in minutes: before the ranks start, by one process.

PyTorch guards a build by a file `lock` and waits for it without an end. A rank that is killed while it loads the part
leaves its lock there, and no later rank would ever start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests import launcher

BUILD = "from deepspeed.ops.op_builder import CPUAdamBuilder; CPUAdamBuilder().load()"
BUILD_TIMEOUT_S = 500


def extensions_root() -> Path:
    """Name the folder that PyTorch builds extensions in."""
    from torch.utils.cpp_extension import get_default_build_root

    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())


def open_files() -> Iterator[str]:
    """List what the processes of this machine have open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            yield str(descriptor.readlink())
        except OSError:  # the process has ended, or is another user's
            continue


def remove_dead_locks(root: Path) -> list[Path]:
    """Remove the locks that no process has open; a builder closes its own just before it removes it."""
    locks = set(root.glob("**/lock")) if Path("/proc/self/fd").is_dir() else set()
    for look in range(2):
        if locks:
            time.sleep(0.2 * look)
            held = set(open_files())
            locks = {lock for lock in locks if str(lock.resolve()) not in held}
    for lock in locks:
        lock.unlink(missing_ok=True)
    return sorted(locks)


def build(_: Path) -> None:
    """Compile what ranks with offloading load."""
    remove_dead_locks(extensions_root())
    done = launcher.run(["-c", BUILD], timeout=BUILD_TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-4000:]
