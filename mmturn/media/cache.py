"""A cache bounded in bytes that makes each value once, however many threads ask for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Least recently used values within ``max_bytes``; a value larger than that is handed out but not kept."""

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._size_of = size_of
        self._lock = threading.Lock()
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._making: dict[str, Future[Value]] = {}

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made now if it is not held. Threads that ask meanwhile wait for it.

        Raises what ``make`` raises, to each of them; nothing is kept then, and the next call tries again.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            waiting = self._making.get(key)
            if waiting is None:
                mine: Future[Value] = Future()
                self._making[key] = mine
        if waiting is not None:
            return waiting.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        with self._lock:
            self._keep(key, value)
            del self._making[key]
        mine.set_result(value)
        return value

    def held(self, key: str) -> Value | None:
        """The value of ``key`` if it is held, as one just used."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: str, value: Value) -> None:
        """Hold a value that was made elsewhere, several in one go say, in place of one held before."""
        with self._lock:
            if key in self._values:
                self.held_bytes -= self._size_of(self._values.pop(key))
            self._keep(key, value)

    def drop(self, keys: Collection[str]) -> None:
        """Forget values, those that are held."""
        with self._lock:
            for key in keys:
                if key in self._values:
                    self.held_bytes -= self._size_of(self._values.pop(key))

    def _keep(self, key: str, value: Value) -> None:
        size = self._size_of(value)
        if size > self.max_bytes:
            return
        self._values[key] = value
        self.held_bytes += size
        while self.held_bytes > self.max_bytes:
            _, oldest = self._values.popitem(last=False)
            self.held_bytes -= self._size_of(oldest)
