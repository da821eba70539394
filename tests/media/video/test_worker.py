"""The process that decodes, asked over its pipes, and the words that pass through them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from mmturn.media.video.table import FrameTable
from mmturn.media.video.wire import FRAME, REPLY, REQUEST, Kind, read_request, write_reply, write_request
from tests.media.video.clips import HEIGHT, WIDTH, number_of

REPO = Path(__file__).resolve().parents[3]


def start(idle_s: float = 60) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mmturn.media.video.worker", str(idle_s)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPO)


def asked(path: Path, what: str, **more: Any) -> dict[str, Any]:
    source = {
        "stream": 0,
        "orientation": [1, 0, 0, 1],
        "pixels": WIDTH * HEIGHT,
        "depth": 8,
        "codec": "h264",
        "container": "mov,mp4",
        "decoder": "pyav",
    }
    return {"ask": what, "path": str(path), "limit_s": 60, **source, **more}


def replies(stream: BinaryIO) -> list[tuple[Kind, bytes]]:
    found = []
    while not found or found[-1][0] not in (Kind.DONE, Kind.ERROR):
        mark, kind, length = REPLY.unpack(stream.read(REPLY.size))
        assert mark == b"mmtv"
        found.append((Kind(kind), stream.read(length)))
    return found


def test_it_scans_reads_complains_and_goes_on(clips: dict[str, Path], tmp_path: Path) -> None:
    worker = start()
    assert worker.stdin is not None and worker.stdout is not None
    frames = asked(clips["mp4"], "frames", indices=[7, 3], size=[WIDTH, HEIGHT])
    write_request(worker.stdin, frames)
    ((kind, words),) = replies(worker.stdout)
    assert kind is Kind.ERROR and b"before their times" in words
    write_request(worker.stdin, asked(clips["mp4"], "scan"))
    (kind, body), (done, _) = replies(worker.stdout)
    assert kind is Kind.TABLE and done is Kind.DONE and len(FrameTable.from_bytes(body).clock()) == 60
    write_request(worker.stdin, frames)
    *both, (done, decoder) = replies(worker.stdout)
    for (kind, data), index in zip(sorted(both, key=lambda reply: reply[1]), (3, 7), strict=True):
        assert kind is Kind.FRAME and FRAME.unpack_from(data) == (index, WIDTH, HEIGHT)
        assert number_of(np.frombuffer(data, np.uint8, -1, FRAME.size).reshape(HEIGHT, WIDTH, 3)) == index
    assert decoder == b"pyav"
    worker.stdin.close()
    assert worker.wait(30) == 0 and worker.stdout.read() == b""
    assert worker.stderr is not None and worker.stderr.read() == b""


def test_a_table_may_come_with_the_request(clips: dict[str, Path]) -> None:
    from mmturn.media.video.scan import scan

    worker = start()
    assert worker.stdin is not None and worker.stdout is not None
    table = scan(str(clips["mkv"]), 0).to_bytes()
    write_request(worker.stdin, asked(clips["mkv"], "frames", indices=[50], size=[48, 32]), table)
    (kind, data), _ = replies(worker.stdout)
    assert kind is Kind.FRAME and FRAME.unpack_from(data) == (50, 48, 32)
    worker.kill()
    worker.wait()


def test_it_ends_when_nobody_asks() -> None:
    worker = start(0.2)
    assert worker.wait(30) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that never answers")
def test_the_system_ends_it_when_nobody_is_left_to_kill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "never.mp4")
    worker = start()
    assert worker.stdin is not None
    started = time.monotonic()
    write_request(worker.stdin, {**asked(tmp_path / "never.mp4", "scan"), "limit_s": -4.0})
    assert worker.wait(60) != 0 and time.monotonic() - started < 50


def test_requests_are_read_whole_or_not_at_all() -> None:
    stream = io.BytesIO()
    write_request(stream, {"ask": "scan"}, b"table")
    data = stream.getvalue()
    assert read_request(io.BytesIO(data)) == ({"ask": "scan"}, b"table")
    assert all(read_request(io.BytesIO(data[:length])) is None for length in range(len(data)))
    assert REQUEST.unpack_from(data)[1] == 5


def test_replies_have_a_fixed_head() -> None:
    stream = io.BytesIO()
    write_reply(stream, Kind.ERROR, b"ab", b"c")
    assert stream.getvalue() == REPLY.pack(b"mmtv", 4, 3) + b"abc"
