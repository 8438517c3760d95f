"""What the two sides of a decoding process say to each other, and how it is framed.

A message is a tuple, pickled behind its length. A frame follows its message as raw bytes, so that it is received into
the array it will stay in. Both sides run the same code of the same installation; nobody else can reach the socket.

    parent                child
    ("open", factory, modules, folder, arguments)
                          ("imported",)                          all that must be loaded is loaded
                          ("opened", facts)                      the reader's `facts`
    ("frames", times_s)   ("frame", time_s, shape) + pixels, …   one for each frame
                          ("end",)
    ("close",)

Instead of any answer: ("error", the class as "module.Name", its message).
"""

from __future__ import annotations

import pickle
import socket
import struct
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


def send_frame(connection: socket.socket, time_s: float, frame_HWC: np.ndarray) -> None:
    """Send one frame, uint8 (H, W, 3), of `time_s` seconds."""
    send_message(connection, ("frame", time_s, frame_HWC.shape))
    connection.sendall(np.ascontiguousarray(frame_HWC).data.cast("B"))
