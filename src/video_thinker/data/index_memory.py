"""Indexes of files that were opened before in this process, so that a second look into a long video costs none."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MOST_PACKETS = 300_000
"""About 12 MB of indexes: three hours at 25 frames a second."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as it is now; another one when it was written anew, also where its time was set back (`cp -p`)."""

    path: Path
    num_bytes: int
    modified_ns: int
    inode: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileVersion:
        """Look at a file."""
        found = path.stat()
        return cls(path.absolute(), found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)


class IndexMemory(Generic[T]):
    """The indexes that were used last, as many as `most` packets allow, and the last one whatever its size.

    Args:
        num_packets: Tells the size of an index.
        most: Packets of all that are kept.
    """

    def __init__(self, num_packets: Callable[[T], int], most: int = MOST_PACKETS) -> None:
        """See the class."""
        self._num_packets, self._most = num_packets, most
        self._kept: OrderedDict[FileVersion, T] = OrderedDict()

    def get(self, version: FileVersion) -> T | None:
        """Give the index of a file, if it is remembered and the file is the same."""
        found = self._kept.pop(version, None)
        if found is not None:
            self._kept[version] = found
        return found

    def keep(self, version: FileVersion, index: T) -> None:
        """Remember the index of a file, and forget the ones that were not used for longest."""
        self._kept.pop(version, None)
        self._kept[version] = index
        total = sum(map(self._num_packets, self._kept.values()))
        while total > self._most and len(self._kept) > 1:
            _, forgotten = self._kept.popitem(last=False)
            total -= self._num_packets(forgotten)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
