"""Pools of this process by their settings, and how long to wait after a failure."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

_FIRST_S, _MOST_S = 0.1, 30.0


class Closable(Protocol):
    """What can be ended."""

    def close(self) -> None:
        """End it; once more does nothing."""
        ...


S = TypeVar("S", bound=Hashable)
P = TypeVar("P", bound=Closable)


class Pools(Generic[S, P]):
    """One pool for each settings in each process; all are ended with the process."""

    def __init__(self, make: Callable[[S], P]) -> None:
        self._make, self._pools, self._lock = make, dict[tuple[int, S], P](), threading.Lock()
        atexit.register(self.close)

    def of(self, settings: S) -> P:
        """The pool of this process with these settings."""
        key = (os.getpid(), settings)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._make(settings)
            return self._pools[key]

    def close(self) -> None:
        """End those of this process."""
        with self._lock:
            pools = [pool for (pid, _), pool in self._pools.items() if pid == os.getpid()]
            self._pools.clear()
        for pool in pools:
            pool.close()


class Backoff:
    """After each failure in a row the wait is twice as long, half a minute at most."""

    def __init__(self) -> None:
        self._failures, self._not_before = 0, 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until the next attempt may be made."""
        return max(self._not_before - time.monotonic(), 0.0)

    def failed(self) -> None:
        """An attempt has failed."""
        self._failures += 1
        self._not_before = time.monotonic() + min(_FIRST_S * 2.0**self._failures, _MOST_S)

    def succeeded(self) -> None:
        """An attempt has not."""
        self._failures = 0
