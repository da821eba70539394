"""Engines that share a table: each seat is played by its own."""

from __future__ import annotations

from collections.abc import Mapping

from mmturn.interfaces import Engine
from mmturn.types import Completion, Request

_TURN_STEPS = 4
"""Token steps after which an engine lets the others have theirs."""


class SeatEngines:
    """One engine that plays every seat: those of ``seats`` by the engine named there, any other by ``engine``.

    Its name and version are those of ``engine``, the policy that learns; a completion keeps the version of whoever gave
    it. An engine may play several seats.
    """

    def __init__(self, engine: Engine, seats: Mapping[str, Engine]) -> None:
        self._engine, self._seats = engine, dict(seats)
        self._all = list({id(each): each for each in (engine, *seats.values())}.values())
        self.name = engine.name

    @property
    def version(self) -> int:
        """Version of the policy that learns, counted in updates."""
        return self._engine.version

    def submit(self, request: Request) -> None:
        """Queue a request with the engine of its seat."""
        self._seats.get(request.seat, self._engine).submit(request)

    def collect(self, max_steps: int | None = None) -> list[Completion]:
        """What any of them has finished; they run in turn, a few token steps each, until one has."""
        while not self.idle:
            finished: list[Completion] = []
            busy = [each for each in self._all if not each.idle]
            steps = max_steps if len(busy) == 1 else min(max_steps or _TURN_STEPS, _TURN_STEPS)
            for each in busy:
                finished += each.collect(steps)
            if finished or max_steps is not None:
                return finished
        return []

    @property
    def room(self) -> int:
        """How many more requests could run, whoever is to play them."""
        return min(each.room for each in self._all)

    @property
    def idle(self) -> bool:
        """True when no request is under way."""
        return all(each.idle for each in self._all)

    def close(self) -> None:
        """Free the caches of all."""
        for each in self._all:
            each.close()
