"""What the two sides of a decoding process say to each other, and how it is framed.

A message is a tuple, pickled behind its length. Frames are passed in shared memory, one at a time: while the parent
takes one, the child decodes the next. Both sides run the same code of the same installation; nobody else can reach the
socket.

    parent                child
    ("open", factory, modules, folder, arguments)
                          ("imported",)                          all that must be loaded is loaded
                          ("opened", facts)                      the reader's `facts`
    ("frames", times_s)   ("frame", time_s, shape)               it lies in the `FrameSlot`
    ("taken",)            ("frame", …), …
    ("taken",)            ("end",)
    ("close",)

Instead of any answer: ("error", the class as "module.Name", its message).
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import socket
import struct
import tempfile
from typing import Any

import numpy as np

_LENGTH = struct.Struct("!Q")
MAX_MESSAGE_BYTES = 2**28
"""No honest message comes near: the largest holds the times of all frames of a video."""


def send_message(connection: socket.socket, message: tuple[Any, ...]) -> None:
    """Send one message. Raises `OSError`: the other side is gone, or does not read in the socket's time limit."""
    payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    connection.sendall(_LENGTH.pack(len(payload)) + payload)


def receive_message(connection: socket.socket, receive_into: Any) -> tuple[Any, ...]:
    """Receive one message; `receive_into` is `receive_exactly`, or the same with a time limit."""
    length = bytearray(_LENGTH.size)
    receive_into(connection, memoryview(length))
    (num_bytes,) = _LENGTH.unpack(length)
    if num_bytes > MAX_MESSAGE_BYTES:
        raise ConnectionError(f"a message of {num_bytes} bytes: something else writes into the socket")
    payload = bytearray(num_bytes)
    receive_into(connection, memoryview(payload))
    message: tuple[Any, ...] = pickle.loads(payload)
    return message


def receive_exactly(connection: socket.socket, buffer: memoryview) -> None:
    """Fill `buffer`. Raises `EOFError`: the other side has closed the socket."""
    while buffer:
        received = connection.recv_into(buffer)
        if received == 0:
            raise EOFError("the other side has closed the socket")
        buffer = buffer[received:]


class FrameSlot:
    """Memory that both sides share, for one frame at a time.

    A socket would take a frame of 1080p in thirty pieces, each of which waits until the other side gets its turn on a
    busy machine.

    Args:
        file_descriptor: A file in memory, the same for both sides.
    """

    def __init__(self, file_descriptor: int) -> None:
        """See the class."""
        self._file = os.fdopen(file_descriptor, "r+b", buffering=0)
        self._memory: mmap.mmap | None = None

    @classmethod
    def make(cls) -> FrameSlot:
        """Make an empty one."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("frame"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def fileno(self) -> int:
        """Give the file's descriptor."""
        return self._file.fileno()

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """Give the memory as an array, uint8, made larger where it is too small."""
        num_bytes = math.prod(shape)
        if self._memory is None or len(self._memory) < num_bytes:
            if os.fstat(self.fileno()).st_size < num_bytes:
                os.ftruncate(self.fileno(), num_bytes)
            self._memory = mmap.mmap(self.fileno(), num_bytes)
        return np.frombuffer(self._memory, np.uint8, count=num_bytes).reshape(shape)

    def close(self) -> None:
        """Let go of the file; the memory goes with the last array."""
        self._memory = None
        self._file.close()
