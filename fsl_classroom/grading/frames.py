"""Messages between a lane and a worker: JSON with bytes beside it, behind two lengths."""

from __future__ import annotations

import json
import math
import os
import select
import struct
import time
from typing import Any

MOST_HEAD, MOST_BLOB = 8 * 2**20, 64 * 2**20  # bytes of a message's two parts
_PIECE = 2**15  # bytes at a time: more may block where `select` says that there is room
_HEAD = struct.Struct("<QQ")


class Garbled(Exception):
    """Raised for a message that this module did not write, or that is too large."""


def send(handle: int, message: dict[str, Any], blob: bytes = b"", until: float = math.inf) -> None:
    """Writes a message into a file handle. message: JSON values; blob: bytes beside it; until: on the clock `time.monotonic`.

    Raises OSError if nobody reads (TimeoutError if nobody did in time), and ValueError for a message that is too large.
    """
    head = json.dumps(message).encode()
    if len(head) > MOST_HEAD or len(blob) > MOST_BLOB:
        raise ValueError(f"{(len(head) + len(blob)) // 2**20} MB are too much for one call")
    data = memoryview(_HEAD.pack(len(head), len(blob)) + head + blob)
    while data:
        _wait([], [handle], until)
        data = data[os.write(handle, data[:_PIECE]) :]


def receive(handle: int, until: float = math.inf) -> tuple[dict[str, Any], bytes]:
    """Reads a message from a file handle. until: on the clock `time.monotonic`.

    Raises EOFError if the other side has gone, TimeoutError if it was not there in time, Garbled for anything but a message.
    """
    sizes = _HEAD.unpack(_exactly(handle, _HEAD.size, until))
    if sizes[0] > MOST_HEAD or sizes[1] > MOST_BLOB:
        raise Garbled(f"a message of {sum(sizes)} bytes")
    head, blob = (_exactly(handle, size, until) for size in sizes)
    try:
        message = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise Garbled(type(error).__name__) from None
    if not isinstance(message, dict):
        raise Garbled("no message")
    return message, blob


def _wait(reads: list[int], writes: list[int], until: float) -> None:
    if until < math.inf and not any(select.select(reads, writes, [], max(0.0, until - time.monotonic()))):
        raise TimeoutError


def _exactly(handle: int, size: int, until: float) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        _wait([handle], [], until)
        piece = os.read(handle, min(size - len(pieces), _PIECE))
        if not piece:
            raise EOFError("the other side has gone")
        pieces += piece
    return bytes(pieces)
