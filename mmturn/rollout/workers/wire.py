"""Messages on the pipes between a trainer and a worker: a number, JSON and raw bytes; nothing is unpickled."""

from __future__ import annotations

import json
import struct
from typing import IO

from mmturn.rollout.workers.link import Message

_HEAD = struct.Struct("<QIQ")
"""Number of the question, lengths of the JSON and of all bytes behind it."""


def packed_message(number: int, message: Message) -> bytes:
    """A message as bytes. ``number``: that of the question, which its answer has too."""
    text = json.dumps({"head": message.head, "sizes": [len(blob) for blob in message.blobs]}).encode()
    length = sum(len(blob) for blob in message.blobs)
    return b"".join((_HEAD.pack(number, len(text), length), text, *message.blobs))


def read_message(stream: IO[bytes]) -> tuple[int, Message] | None:
    """The next message with its number; None at the end of the stream. Raises ValueError for half a message."""
    head = stream.read(_HEAD.size)
    if not head:
        return None
    if len(head) < _HEAD.size:
        raise ValueError("the stream ends within a message")
    number, words, length = _HEAD.unpack(head)
    text, data = stream.read(words), stream.read(length)
    if len(text) < words or len(data) < length:
        raise ValueError("the stream ends within a message")
    told = json.loads(text)
    blobs, at = [], 0
    for size in told["sizes"]:
        blobs.append(data[at : at + size])
        at += size
    return number, Message(told["head"], blobs)
