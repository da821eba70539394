"""Where environments run: beside the engine on threads, or inline."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any


class InlineHost:
    """Runs work at once, in the caller's thread."""

    def __init__(self) -> None:
        self._done: list[tuple[str, Any]] = []

    def submit(self, key: str, work: Callable[[], Any]) -> None:
        """Run ``work`` now; its result or exception waits to be collected."""
        self._done.append((key, _run(work)))

    def collect(self, timeout_s: float | None) -> list[tuple[str, Any]]:
        """All finished pairs."""
        done, self._done = self._done, []
        return done

    @property
    def under_way(self) -> int:
        """Pieces of work not yet collected."""
        return len(self._done)

    def close(self) -> None:
        """Nothing to stop."""


class ThreadHost:
    """Runs work on daemon threads. Work that outlasts ``limit_s`` is reported as TimeoutError and abandoned:
    its thread is replaced, its late result is dropped. While all are busy, up to ``most`` threads are had,
    for work that mostly waits."""

    def __init__(self, workers: int = 2, limit_s: float = 120.0, *, most: int = 0) -> None:
        self._limit_s, self._most = limit_s, most
        self._todo: queue.SimpleQueue[tuple[int, str, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}
        self._open: dict[int, str] = {}
        self._serial = 0
        self._threads = 0
        for _ in range(workers):
            self._add_thread()

    def submit(self, key: str, work: Callable[[], Any]) -> None:
        """Queue ``work``."""
        self._serial += 1
        self._open[self._serial] = key
        self._todo.put((self._serial, key, work))
        if self._threads < min(self._most, len(self._open)):
            self._add_thread()

    def collect(self, timeout_s: float | None) -> list[tuple[str, Any]]:
        """Finished pairs, in the order in which they finished."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        results: list[tuple[str, Any]] = []
        while self._open and not results:
            left = 0.05 if deadline is None else min(0.05, max(deadline - time.monotonic(), 0.0))
            results += self._take(left) + self._abandon()
            if deadline is not None and time.monotonic() >= deadline:
                break
        return results

    @property
    def under_way(self) -> int:
        """Pieces of work not yet collected."""
        return len(self._open)

    def close(self) -> None:
        """Let the threads end after what they are doing; queued work is dropped."""
        self._open.clear()
        for _ in range(self._threads):
            self._todo.put(None)

    def _take(self, wait_s: float) -> list[tuple[str, Any]]:
        taken: list[tuple[str, Any]] = []
        try:
            item = self._done.get(timeout=wait_s) if wait_s > 0 else self._done.get_nowait()
            while True:
                if self._open.pop(item[0], None) is not None:
                    taken.append((item[1], item[2]))
                item = self._done.get_nowait()
        except queue.Empty:
            return taken

    def _abandon(self) -> list[tuple[str, Any]]:
        now = time.monotonic()
        with self._lock:
            late = [serial for serial, start in self._started.items() if now - start > self._limit_s]
            for serial in late:
                del self._started[serial]
        results = []
        for serial in late:
            key = self._open.pop(serial, None)
            if key is not None:
                self._threads -= 1  # it ends when its work does
                self._add_thread()
                results.append((key, TimeoutError(f"no result within {self._limit_s:g} s")))
        return results

    def _add_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"mmturn-env-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while (item := self._todo.get()) is not None:
            serial, key, work = item
            if serial not in self._open:
                continue
            with self._lock:
                self._started[serial] = time.monotonic()
            result = _run(work)
            with self._lock:
                abandoned = self._started.pop(serial, None) is None
            if abandoned:
                return
            self._done.put((serial, key, result))


def _run(work: Callable[[], Any]) -> Any:
    """Result of ``work``, or the exception it raised: an episode's failure must not stop the others."""
    try:
        return work()
    except Exception as error:
        return error
