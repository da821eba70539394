"""Processes that decode: killed when they hang, named when they crash, replaced, and never too many."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmturn.errors import DataError
from mmturn.media.video import VideoConfig, VideoReader, VideoStore
from mmturn.media.video.process import DecoderProcess, ProcessPool
from mmturn.media.video.wire import REPLY, Kind
from tests.media.video.clips import number_of


def pid_of(reader: VideoReader) -> int | None:
    return reader._process.pid


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def while_stopped(reader: VideoReader, act: Callable[[], object]) -> list[DataError]:
    """Ask for a frame of a process that does not answer, and ``act`` meanwhile."""
    errors: list[DataError] = []

    def ask() -> None:
        try:
            reader.frames([33])
        except DataError as error:
            errors.append(error)

    pid = pid_of(reader)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    act()
    thread.join(60)
    assert not thread.is_alive()
    return errors


def test_a_process_that_hangs_is_killed_and_replaced(clips: dict[str, Path]) -> None:
    with VideoStore(VideoConfig(request_limit_s=5)) as store:
        reader = store.open(clips["mp4"])
        assert number_of(reader.frames([1])[0]) == 1
        first = pid_of(reader)
        started = time.monotonic()
        (error,) = while_stopped(reader, lambda: None)
        assert 4 < time.monotonic() - started < 30
        assert "longer than 5 s to read frame 33" in str(error) and str(clips["mp4"]) in str(error)
        assert first is not None and not running(first) and pid_of(reader) is None
        assert number_of(reader.frames([33])[0]) == 33 and pid_of(reader) not in (None, first)


def test_a_crash_names_the_file_and_the_request(clips: dict[str, Path]) -> None:
    with VideoStore() as store:
        reader = store.open(clips["mp4"])
        reader.frames([1])
        pid = pid_of(reader)
        assert pid is not None

        def crash() -> None:
            os.kill(pid, signal.SIGSEGV)
            os.kill(pid, signal.SIGCONT)

        (error,) = while_stopped(reader, crash)
        assert "crashed (SIGSEGV) while it read frame 33" in str(error) and str(clips["mp4"]) in str(error)
        assert number_of(reader.frames([33])[0]) == 33 and reader.decoder == "pyav", "decord is not tried again"


def test_the_limit_is_a_setting(clips: dict[str, Path]) -> None:
    words = r"longer than 0\.001 s to read the times of its frames.*request_limit_s"
    with VideoStore(VideoConfig(request_limit_s=0.001)) as store, pytest.raises(DataError, match=words):
        store.open(clips["mkv"]).clock()


def test_an_idle_process_ends_by_itself(clips: dict[str, Path]) -> None:
    with VideoStore(VideoConfig(idle_limit_s=0.5)) as store:
        reader = store.open(clips["mp4"])
        reader.frames([1])
        first = reader._process._process
        assert first is not None and first.poll() is None
        assert first.wait(30) == 0, "it ends, and not by being killed"
        assert number_of(reader.frames([2])[0]) == 2 and reader._process._process is not first


def test_no_more_processes_than_allowed(clips: dict[str, Path]) -> None:
    with VideoStore(VideoConfig(max_workers=2)) as store:
        readers = [store.open(clips[name]) for name in ("mp4", "mkv", "avi")]
        for number, reader in enumerate(readers):
            assert number_of(reader.frames([number])[0]) == number
        assert [pid_of(reader) is not None for reader in readers] == [False, True, True], "the longest unused has ended"
        assert number_of(readers[0].frames([9])[0]) == 9 and pid_of(readers[1]) is None
    assert all(pid_of(reader) is None for reader in readers), "closing ends them"


def test_who_comes_when_all_are_busy_waits() -> None:
    pool, order = ProcessPool(1), []
    one, other = (DecoderProcess(name, 60, 60) for name in ("one", "other"))

    def second() -> None:
        with pool.use(other):
            order.append("other")

    with pool.use(one) as fresh:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("one")
        assert fresh
    thread.join(60)
    assert order == ["one", "other"] and not one.alive
    pool.close()
    assert not other.alive


class Impostor(DecoderProcess):
    """Answers with bytes of its own."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("clip.mp4", 20, 20)
        self.answer = answer

    def start(self) -> None:
        super().start()
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        read, write = os.pipe()
        os.write(write, self.answer)
        os.close(write)
        self._process.stdout = os.fdopen(read, "rb")

    def _send(self, request: object, data: bytes) -> None:
        return


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"garbage that is long enough to be a header", REPLY.pack(b"mmtv", Kind.FRAME, 1 << 40),
        REPLY.pack(b"mmtv", 77, 0), REPLY.pack(b"mmtv", Kind.TABLE, 0), REPLY.pack(b"mmtv", Kind.FRAME, 8) + b"cut",
        REPLY.pack(b"mmtv", Kind.ERROR, 1 << 20),
    ],
)  # fmt: skip
def test_nonsense_is_not_believed(answer: bytes) -> None:
    process = Impostor(answer)
    process.start()
    with pytest.raises(DataError, match=r"clip\.mp4: the decoder .* while it read frame 3"):
        process.ask({}, b"", "frame 3", lambda kind, body: None, {Kind.FRAME: 100})
    assert not process.alive


def test_a_forked_process_starts_its_own(clips: dict[str, Path]) -> None:
    with VideoStore() as store:
        reader = store.open(clips["mp4"])
        reader.frames([1])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if pid_of(reader) is None and number_of(reader.frames([40])[0]) == 40 else 2
                store.close()
            finally:
                os._exit(status)  # whatever happened: this is not the process that runs the tests
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pid_of(reader) is not None and number_of(reader.frames([41])[0]) == 41
