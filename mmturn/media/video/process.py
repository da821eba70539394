"""A process that decodes, as its reader sees it: started when asked, killed when too slow, replaced when gone."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmturn.errors import DataError
from mmturn.media.video.wire import MARK, MAX_WORDS, REPLY, Kind, write_request
from mmturn.resources import child_environment

_PIPE_BYTES = 1 << 20  # room for a frame, so that the two sides do not wait for one another
_SLACK_S = 5.0  # a process outlives its idle limit by this, so that it never ends between a look at it and a request


class _Gone(Exception):
    """The process has ended, or what it says makes no sense."""


class _TooSlow(Exception):
    """The time limit is over."""


class DecoderProcess:
    """One ``mmturn.media.video.worker``, which reads the file at ``path``. One thread at a time may use it."""

    def __init__(self, path: str, limit_s: float, idle_s: float) -> None:
        self._path, self._limit_s, self._idle_s = path, limit_s, idle_s
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._used = 0.0

    @property
    def pid(self) -> int | None:
        """Of the process, if one runs."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether a process runs and will for a while. One inherited by a fork is another's."""
        if self._process is None or self._owner != os.getpid() or time.monotonic() - self._used > self._idle_s:
            return False
        return self._process.poll() is None

    def start(self) -> None:
        """Start the process if none runs."""
        if self.alive:
            return
        self.stop()
        # no threads for linear algebra: there is none to do, and starting them takes a while
        environment = {**child_environment(), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mmturn.media.video.worker", str(self._idle_s + _SLACK_S)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
        self._owner, self._used = os.getpid(), time.monotonic()
        _widen(self._process)

    def stop(self) -> None:
        """Kill the process, if one runs."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass  # what was not yet written has no reader any more

    def ask(
        self,
        request: Mapping[str, Any],
        data: bytes,
        words: str,
        take: Callable[[Kind, bytearray], None],
        most: Mapping[Kind, int],
    ) -> None:
        """Send a request and hand each reply to ``take``, the last of kind DONE. ``words`` say in errors what was
        asked, ``most`` how many bytes replies may have.

        Raises DataError, naming the file and the request, when the process reports one, crashes, answers nonsense or
        takes longer than the limit. The process is killed then, unless it goes on.
        """
        deadline = time.monotonic() + self._limit_s
        try:
            self._send(request, data)
            kind, body = self._reply(deadline, most)
            while kind not in (Kind.DONE, Kind.ERROR):
                take(kind, body)
                kind, body = self._reply(deadline, most)
        except _TooSlow:
            self.stop()
            raise DataError(
                f"{self._path}: the decoder took longer than {self._limit_s:g} s to read {words} and was stopped; "
                "raise video.request_limit_s if the file is sound"
            ) from None
        except (_Gone, OSError):
            ended = self._how_it_ended()
            self.stop()
            raise DataError(f"{self._path}: the decoder {ended} while it read {words}") from None
        except BaseException:
            self.stop()  # replies are left over, which the next request would take for its own
            raise
        self._used = time.monotonic()
        if kind is Kind.ERROR:
            text = body.decode("utf-8", "replace")
            raise DataError(text if text.startswith(self._path) else f"{self._path}: {text}, while reading {words}")
        take(kind, body)

    def _send(self, request: Mapping[str, Any], data: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the process was not started")
        write_request(self._process.stdin, {**request, "limit_s": self._limit_s}, data)

    def _reply(self, deadline: float, most: Mapping[Kind, int]) -> tuple[Kind, bytearray]:
        mark, number, length = REPLY.unpack(self._read(REPLY.size, deadline))
        limits = {int(kind): limit for kind, limit in {Kind.ERROR: MAX_WORDS, Kind.DONE: MAX_WORDS, **most}.items()}
        if mark != MARK or length > limits.get(number, -1):
            raise _Gone
        return Kind(number), self._read(length, deadline)

    def _read(self, length: int, deadline: float) -> bytearray:
        assert self._process is not None and self._process.stdout is not None
        number = self._process.stdout.fileno()
        data = bytearray(length)
        view, got = memoryview(data), 0
        with selectors.DefaultSelector() as selector:
            selector.register(number, selectors.EVENT_READ)
            while got < length:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise _TooSlow
                count = os.readv(number, [view[got:]])
                if count == 0:
                    raise _Gone
                got += count
        return data

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "answered nonsense"
        if code >= 0:
            return f"ended with status {code}"
        try:
            return f"crashed ({signal.Signals(-code).name})"
        except ValueError:
            return f"crashed (signal {-code})"


class ProcessPool:
    """At most ``most`` processes alive at once; one more ends the one unused for the longest, or waits."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._idle: OrderedDict[DecoderProcess, None] = OrderedDict()
        self._busy: set[DecoderProcess] = set()

    @contextmanager
    def use(self, process: DecoderProcess) -> Iterator[bool]:
        """Have ``process`` run, and nobody end it meanwhile. Gives whether it had to be started."""
        with self._changed:
            self._idle.pop(process, None)
            while not process.alive and len(self._busy) + self._alive() >= self._most:
                if self._idle:
                    oldest, _ = self._idle.popitem(last=False)
                    oldest.stop()
                else:
                    self._changed.wait()
            self._busy.add(process)
        try:
            fresh = not process.alive
            process.start()
            yield fresh
        finally:
            with self._changed:
                self._busy.discard(process)
                if process.alive:
                    self._idle[process] = None
                self._changed.notify_all()

    def close(self) -> None:
        """End the processes that nobody uses."""
        with self._changed:
            while self._idle:
                self._idle.popitem()[0].stop()

    def _alive(self) -> int:
        for process in [one for one in self._idle if not one.alive]:
            del self._idle[process]
            process.stop()
        return len(self._idle)


def _widen(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "linux" and process.stdout is not None:
        import fcntl

        try:
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            pass  # the system allows no more to this user; the narrow pipe works too
