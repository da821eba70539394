"""The workers of a run: who gets the next episode, and what takes the place of one that failed."""

from __future__ import annotations

import atexit
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from mmturn.envs.gui.scratch import clear_leftovers
from mmturn.errors import EnvError
from mmturn.rollout.workers.link import Gone, Link
from mmturn.rollout.workers.settings import WorkersConfig

log = logging.getLogger(__name__)

_CLOSE_S = 15.0
_WAIT_S = 0.05


@dataclass(eq=False)
class Worker:
    """One process or actor. Once given up it gets no episodes any more."""

    name: str
    """Kind, place and how many were there before it: ``process-0.2``."""
    link: Link
    start_by_s: float = float("inf")
    """On the monotonic clock: when it must have answered for the first time."""
    well: bool = False
    """Whether it has ever answered."""
    given_up: bool = False
    envs: set[int] = field(default_factory=set)
    """Numbers of the environments that it holds."""


@dataclass(eq=False)
class _Place:
    """Where one worker runs after the other."""

    index: int
    worker: Worker | None = None
    started: int = 0
    failures: int = 0
    """In a row."""
    not_before_s: float = 0.0


class WorkerPool:
    """At most ``count`` workers, started when they are needed. Called from any thread."""

    def __init__(self, open_link: Callable[[], Link], count: int, config: WorkersConfig, step_limit_s: float) -> None:
        self.config, self.step_limit_s = config, step_limit_s
        self.restarts = 0
        """How many workers were given up."""
        self._open_link = open_link
        self._places = [_Place(index) for index in range(count)]
        self._old: list[Worker] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._closed = False
        self._why = ""
        closing = weakref.WeakMethod(self.close)
        atexit.register(lambda: (close := closing()) and close())

    def take(self) -> tuple[Worker, int]:
        """A worker that is well, the one with the fewest environments, and the number of a new environment there.

        Waits for one to start, and for the backoff after failures. Raises EnvError after ``start_timeout_s``.
        """
        deadline = time.monotonic() + self.config.start_timeout_s
        while (left := deadline - time.monotonic()) > 0 and not self._closed:
            taken = self._reserved()
            if taken is None:
                time.sleep(min(_WAIT_S, left))
            elif self.is_well(taken[0], left):
                return taken
            else:
                self.release(*taken)
        because = f": {self._why}" if self._why else ""
        raise EnvError(f"no worker was ready within {self.config.start_timeout_s:g} s{because}")

    def is_well(self, worker: Worker, patience_s: float = float("inf")) -> bool:
        """Whether a worker answers; one that does not is killed. One that has not started yet is waited for, but no
        longer than ``patience_s``."""
        if worker.given_up:
            return False
        left_s = worker.start_by_s - time.monotonic()
        limit = self.config.health_timeout_s if worker.well else min(left_s, patience_s)
        try:
            worker.link.call({"do": "ping"}, limit)
        except Gone as error:
            self.lost(worker, str(error))
        except TimeoutError:
            if worker.well or left_s <= patience_s:
                start_s = self.config.start_timeout_s
                self.lost(worker, f"gave no sign of life within {limit if worker.well else start_s:g} s")
        else:
            worker.well = True
            return True
        return False

    def served(self, worker: Worker) -> None:
        """An episode has begun there: failures of its place lie behind."""
        with self._lock:
            for place in self._places:
                if place.worker is worker:
                    place.failures = 0

    def lost(self, worker: Worker, why: str) -> None:
        """The worker is gone, or must go now; its place gets another after the backoff."""
        self._give_up(worker, why)
        worker.link.kill()
        clear_leftovers()  # its browsers and displays

    def wear_out(self, worker: Worker, why: str) -> None:
        """A step that never ends keeps a thread of the worker: it gets no more episodes, and ends with those it has."""
        self._give_up(worker, why)

    def release(self, worker: Worker, number: int) -> None:
        """An environment is not needed any more."""
        if not worker.given_up:
            worker.link.post({"do": "close", "env": number})
        with self._lock:
            worker.envs.discard(number)
            done = worker.given_up and not worker.envs and worker in self._old
            if done:
                self._old.remove(worker)
        if done:
            threading.Thread(target=worker.link.close, args=(_CLOSE_S,), daemon=True).start()

    def close(self) -> None:
        """End all workers, gently first."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            living = [place.worker for place in self._places if place.worker is not None]
            old, self._old = self._old, []
        for worker in old:
            worker.link.kill()
        closers = [threading.Thread(target=worker.link.close, args=(_CLOSE_S,)) for worker in living]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        clear_leftovers()  # of those that had to be killed

    def _reserved(self) -> tuple[Worker, int] | None:
        """A place in the worker with the fewest environments, which is started if there is none; None: not yet."""
        with self._lock:
            now = time.monotonic()
            ready = [place for place in self._places if place.worker is not None or place.not_before_s <= now]
            if not ready or self._closed:
                return None
            place = min(ready, key=lambda place: len(place.worker.envs) if place.worker is not None else 0)
            if place.worker is None:
                place.started += 1
                name = f"{self.config.kind}-{place.index}.{place.started}"
                place.worker = Worker(name, self._open_link(), now + self.config.start_timeout_s)
            number = next(self._numbers)
            place.worker.envs.add(number)
            return place.worker, number

    def _give_up(self, worker: Worker, why: str) -> None:
        with self._lock:
            if worker.given_up:
                return
            worker.given_up, self._why = True, f"worker {worker.name} {why}"
            self.restarts += 1
            for place in self._places:
                if place.worker is worker:
                    place.worker, place.failures = None, place.failures + 1
                    wait_s = self.config.restart_backoff_s * 2 ** min(place.failures - 1, 30)
                    place.not_before_s = time.monotonic() + min(wait_s, self.config.most_backoff_s)
            self._old.append(worker)
        log.warning("worker %s %s; another takes its place", worker.name, why)
