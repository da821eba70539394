"""Several engines behind one: a rule says which of them samples a turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mmturn.interfaces import Engine
from mmturn.rollout.seeds import seed_of
from mmturn.types import Completion, Request

_TURN_STEPS = 4
"""Token steps after which an engine lets the others have theirs."""
_SEEDS = 1 << 63
"""How many seeds there are."""

Route = Callable[[Request], Engine]
"""Which engine samples a request."""


class RoutedEngines:
    """One engine made of several: ``route`` names one of them for each request.

    Its name and version are those of ``engine``, the policy that learns; a completion keeps the version of whoever gave
    it. ``others``: all that ``route`` may name beside it, once or several times.
    """

    def __init__(self, engine: Engine, others: Iterable[Engine], route: Route) -> None:
        self._engine, self._route = engine, route
        self._all = list({id(each): each for each in (engine, *others)}.values())
        self.name = engine.name

    @property
    def version(self) -> int:
        """Version of the policy that learns, counted in updates."""
        return self._engine.version

    def submit(self, request: Request) -> None:
        """Queue a request with the engine that is to sample it."""
        self._route(request).submit(request)

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
        """How many more requests could run, whoever is to sample them."""
        return min(each.room for each in self._all)

    @property
    def idle(self) -> bool:
        """True when no request is under way."""
        return all(each.idle for each in self._all)

    def close(self) -> None:
        """Free the caches of all."""
        for each in self._all:
            each.close()


def by_seat(engine: Engine, seats: Mapping[str, Engine]) -> RoutedEngines:
    """Engines that share a table: the seats of ``seats`` are played by the engine named there, any other by ``engine``.
    An engine may play several seats."""
    return RoutedEngines(engine, seats.values(), lambda request: seats.get(request.seat, engine))


def by_turn(engine: Engine, other: Engine, share: float) -> RoutedEngines:
    """Policies that share trajectories: ``other`` samples a ``share`` (0 to 1) of all turns, ``engine`` the others.

    Source: AgentRL (2510.04206), cross-policy sampling, from second-hand notes. Differs: the pool of policies and how a
    turn's is drawn are not verified; here there are two, and each turn is drawn by itself.
    """
    return RoutedEngines(engine, [other], lambda request: other if falls_to_other(request.seed, share) else engine)


def falls_to_other(seed: int, share: float) -> bool:
    """Whether a turn with this sampling seed is among a ``share`` of all: whatever else is sampled beside it, and apart
    from what is drawn for its tokens."""
    return seed_of("policy", seed) < share * _SEEDS
