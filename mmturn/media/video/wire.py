"""What the reader and the process that decodes say to one another: fixed headers and raw bytes, nothing else.

A request is JSON, whose sender is trusted, and raw bytes. A reply is a kind and raw bytes: it may come from a process
that a hostile file has taken over, and nothing in it is executed or unpickled.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import IO, Any

REQUEST = struct.Struct("<II")
"""Lengths of the JSON and of the bytes that follow it."""
REPLY = struct.Struct("<4sIQ")
"""Mark, kind, length of what follows."""
FRAME = struct.Struct("<qII")
"""Index, width, height; then height x width x 3 bytes of RGB."""
MARK = b"mmtv"
MAX_WORDS = 2000
"""Longest error text, in bytes."""


class Kind(IntEnum):
    """What a reply is."""

    FRAME = 1
    TABLE = 2
    DONE = 3
    """Nothing more comes for this request."""
    ERROR = 4
    """UTF-8 text of what is wrong with the file; nothing more comes."""


def write_request(stream: IO[bytes], request: Mapping[str, Any], data: bytes = b"") -> None:
    """Send a request. Raises OSError when nobody reads it any more."""
    text = json.dumps(request).encode()
    stream.write(REQUEST.pack(len(text), len(data)) + text)
    stream.write(data)
    stream.flush()


def read_request(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next request; None when the sender is gone."""
    head = stream.read(REQUEST.size)
    if len(head) < REQUEST.size:
        return None
    words, length = REQUEST.unpack(head)
    text, data = stream.read(words), stream.read(length)
    return (json.loads(text), data) if len(text) == words and len(data) == length else None


def write_reply(stream: IO[bytes], kind: Kind, *parts: bytes | memoryview) -> None:
    """Send a reply in one piece."""
    stream.write(REPLY.pack(MARK, kind, sum(len(part) for part in parts)))
    for part in parts:
        stream.write(part)
    stream.flush()
