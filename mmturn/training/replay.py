"""The newest of what a run has sampled, to be learned from again: each in the process that sampled it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from mmturn.training.processes import Processes
from mmturn.types import Trajectory

Key = tuple[int, str, int]
"""Update, group, index in the group: names a trajectory, whichever process has it, and sorts by age."""
T = TypeVar("T")
"""What is kept of a trajectory."""


class Replay(Generic[T]):
    """``size`` trajectories over all processes; draws follow from the seed, and are the same in all of them, however
    many there are."""

    def __init__(self, size: int, seed: int, processes: Processes) -> None:
        self.size, self._seed, self.processes = size, seed, processes
        self.keys: tuple[Key, ...] = ()
        """Of all processes, oldest first."""
        self.own: dict[Key, T] = {}
        """Those that are here."""

    def add(self, own: Mapping[Key, T]) -> None:
        """Take in trajectories and let go of the oldest. All processes must call it."""
        new = [key for part in self.processes.gather(list(own)) for key in part]
        known = sorted({*self.keys, *new})
        self.keys = tuple(known[max(len(known) - self.size, 0) :])
        kept = set(self.keys)
        self.own = {key: found for key, found in {**self.own, **own}.items() if key in kept}

    def restore(self, stored: Iterable[tuple[Key, T]]) -> None:
        """Begin anew with what this process has stored, oldest update first. All processes must call it."""
        self.keys, self.own = (), {}
        self.add(dict(deque(stored, maxlen=self.size)))

    def draw(self, fresh: Sequence[Key], update: int, step: int, count: int) -> list[Key]:
        """``count`` of what is kept and of the update's own ``fresh`` ones (of all processes), each at most once."""
        pool = sorted({*self.keys, *fresh})
        dice = np.random.default_rng([self._seed, update, step])
        return sorted(pool[i] for i in dice.choice(len(pool), min(count, len(pool)), replace=False).tolist())


def keyed(trajectories: Iterable[Trajectory], update: int | None = None) -> Iterator[tuple[Key, Trajectory]]:
    """Those that say something: they did not fail, and a trained seat took a turn. ``update``: that of all of them;
    None: each says its own in its meta, as stored rollouts do."""
    for found in trajectories:
        if found.stop.status != "failed" and any(turn.trained for turn in found.turns):
            number = int(found.meta["update"]) if update is None else update
            yield (number, found.group, found.index), found
