"""The process that decodes one video: ``python -m mmturn.media.video.worker IDLE_S``.

Decoders crash and hang on hostile files; here they take nothing else with them. Requests come in by the standard input,
replies go out by the standard output (see wire.py). It ends when its input closes or is silent for IDLE_S seconds.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import Any, BinaryIO

from mmturn.errors import DataError
from mmturn.media.video.frames import FrameReader, Source
from mmturn.media.video.scan import scan
from mmturn.media.video.table import FrameTable
from mmturn.media.video.wire import FRAME, MAX_WORDS, Kind, read_request, write_reply

GRACE_S = 5.0
"""The system ends a process that decodes for so much longer than allowed, should nobody be left to kill it."""


class Server:
    """Answers requests for one file, which is opened when first needed."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._table: FrameTable | None = None
        self._frames: FrameReader | None = None

    def answer(self, request: dict[str, Any], data: bytes) -> None:
        """``scan``: the table of frames. ``frames``: pixels by index. ``data``: the table if known."""
        if data:
            self._table = FrameTable.from_bytes(data)
        if request["ask"] == "scan":
            self._table = scan(request["path"], request["stream"])
            write_reply(self._replies, Kind.TABLE, self._table.to_bytes())
            write_reply(self._replies, Kind.DONE)
        else:
            self._send_frames(request)
            write_reply(self._replies, Kind.DONE, self._frames.decoder.encode() if self._frames else b"")

    def _send_frames(self, request: dict[str, Any]) -> None:
        if self._table is None:
            raise DataError("frames were asked for before their times were known")
        if self._frames is None:
            self._frames = FrameReader(Source.of(request), self._table)
        width, height = request["size"]
        for index, pixels in self._frames.read(request["indices"], (width, height)):
            head = FRAME.pack(index, pixels.shape[1], pixels.shape[0])
            write_reply(self._replies, Kind.FRAME, head, pixels.data.cast("B"))


def serve(requests: BinaryIO, replies: BinaryIO, idle_s: float) -> None:
    """Answer until nobody asks any more."""
    server = Server(replies)
    while select.select([requests], [], [], idle_s)[0]:
        received = read_request(requests)
        if received is None:
            return
        request, data = received
        _alarm(request["limit_s"] + GRACE_S)
        try:
            server.answer(request, data)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                return
            _complain(replies, error)
        except Exception as error:  # decoders raise anything on hostile files; the reader names the file and goes on
            _complain(replies, error)
        _alarm(0)


def _complain(replies: BinaryIO, error: Exception) -> None:
    words = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
    write_reply(replies, Kind.ERROR, words.encode("utf-8", "replace")[:MAX_WORDS])


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def main() -> None:
    """Keep the two pipes for the protocol: whatever a library prints goes nowhere."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    serve(requests, replies, float(sys.argv[1]))


if __name__ == "__main__":
    main()
