"""A worker in a process of this machine, reached by two pipes."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict

from mmturn.resources import child_environment
from mmturn.rollout.workers.link import Gone, Message, Start
from mmturn.rollout.workers.wire import packed_message, read_message
from mmturn.types import Json

_POST_S = 1.0
_START_S = 30.0


class ProcessLink:
    """Starts ``mmturn.rollout.workers.serve`` and talks to it. The process ends when its pipe closes, so that it does
    not outlive this one, however this one ends."""

    def __init__(self, start: Start) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mmturn.rollout.workers.serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env={"OMP_NUM_THREADS": "1", **child_environment()},
        )  # fmt: skip
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._writing, self._lock = threading.Lock(), threading.Lock()
        self._open: dict[int, Future[Message]] = {}
        self._numbers = itertools.count()
        self._ended = ""
        threading.Thread(target=self._read, name="mmturn-worker", daemon=True).start()
        self._first = self._ask({**asdict(start), "parent": os.getpid()}, _START_S)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def call(self, head: dict[str, Json], timeout_s: float) -> Message:
        """See ``Link``; the first call waits for the start, and tells what was wrong with it."""
        deadline = time.monotonic() + timeout_s
        started = _result(self._first, timeout_s)
        if "error" in started.head:
            raise Gone(f"could not start: {started.head['error']['words']}")
        return _result(self._ask(head, timeout_s), deadline - time.monotonic())

    def post(self, head: dict[str, Json]) -> None:
        """See ``Link``."""
        try:
            self._ask(head, _POST_S)
        except (Gone, TimeoutError):
            return  # it ends, or is ended, with all that it holds

    def kill(self) -> None:
        """See ``Link``."""
        self._process.kill()
        self._process.wait()

    def close(self, timeout_s: float) -> None:
        """See ``Link``."""
        assert self._process.stdin is not None
        with self._writing:
            self._ended = self._ended or "was closed"
            self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def _ask(self, head: dict[str, Json], timeout_s: float) -> Future[Message]:
        answer: Future[Message] = Future()
        with self._lock:
            if self._ended:
                raise Gone(self._ended)
            number = next(self._numbers)
            self._open[number] = answer
        self._write(packed_message(number, Message(head)), time.monotonic() + timeout_s)
        return answer

    def _write(self, data: bytes, deadline: float) -> None:
        """All of it: half a message would make nonsense of the next. A worker that was stopped does not read."""
        assert self._process.stdin is not None
        if not self._writing.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            raise TimeoutError("the worker reads no more")
        try:
            if self._process.stdin.closed:
                raise Gone(self._ended)
            number, rest = self._process.stdin.fileno(), memoryview(data)
            ready = select.poll()
            ready.register(number, select.POLLOUT)
            while rest:
                if not ready.poll(max(deadline - time.monotonic(), 0.0) * 1000):
                    self._process.kill()
                    raise Gone("read no more, and was killed")
                with contextlib.suppress(BlockingIOError):
                    rest = rest[os.write(number, rest) :]
        except OSError as error:
            raise Gone(self._ended or f"cannot be written to: {error}") from error
        finally:
            self._writing.release()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while (got := read_message(self._process.stdout)) is not None:
                with self._lock:
                    answer = self._open.pop(got[0], None)
                if answer is not None:
                    answer.set_result(got[1])
        except (OSError, ValueError):
            self._process.kill()  # half a message, or nonsense
        how = _how(self._process.wait())
        with self._lock:
            self._ended = self._ended or how
            waiting, self._open = self._open, {}
        for answer in waiting.values():
            answer.set_exception(Gone(self._ended))


def _result(answer: Future[Message], timeout_s: float) -> Message:
    try:
        return answer.result(max(timeout_s, 0.0))
    except FutureTimeout:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed (signal {-code})"
