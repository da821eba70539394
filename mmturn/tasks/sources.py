"""Which task comes next."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from mmturn.errors import CheckpointError, DataError
from mmturn.types import Json, Task

_VERSION = 1


class ShuffledSource:
    """Every task once per epoch, in an order that the seed and the epoch decide; implements ``TaskSource``.

    The order is a sort by hash, so that it is the same on every machine and Python. The visit number is the epoch.
    """

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        if not tasks:
            raise DataError("there are no tasks to draw from")
        self.tasks, self.seed = tuple(tasks), seed
        self.position = 0
        """Tasks handed out so far."""
        self.fingerprint = _fingerprint(self.tasks)
        self._epoch = -1
        self._order: list[int] = []

    def next(self, count: int) -> list[tuple[Task, int]]:
        """The next ``count`` tasks with their visit numbers; goes on into the next epoch."""
        drawn = []
        for _ in range(count):
            epoch, place = divmod(self.position, len(self.tasks))
            drawn.append((self.tasks[self._order_of(epoch)[place]], epoch))
            self.position += 1
        return drawn

    def state(self) -> dict[str, Json]:
        """Position, seed and the tasks' fingerprint."""
        return {"version": _VERSION, "position": self.position, "seed": self.seed, "tasks": self.fingerprint}

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Go to a stored position. Raises CheckpointError when it belongs to other tasks or another seed."""
        position = state.get("position")
        if state.get("version") != _VERSION or isinstance(position, bool) or not isinstance(position, int):
            raise CheckpointError(f"the data position is not one of this version: {dict(state)!r:.200}")
        if state.get("tasks") != self.fingerprint:
            raise CheckpointError(
                "the data position belongs to other tasks: resume with the same task file, in the same order"
            )
        if state.get("seed") != self.seed:
            raise CheckpointError(f"the data position belongs to seed {state.get('seed')}, this run has {self.seed}")
        if position < 0:
            raise CheckpointError(f"the data position must not be negative, got {position}")
        self.position = position

    def _order_of(self, epoch: int) -> list[int]:
        """Indices of the tasks in the order of an epoch."""
        if epoch != self._epoch:
            keys = [_digest(f"{self.seed}\0{epoch}\0{i}\0{task.id}") for i, task in enumerate(self.tasks)]
            self._order = sorted(range(len(keys)), key=keys.__getitem__)
            self._epoch = epoch
        return self._order


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _fingerprint(tasks: Sequence[Task]) -> str:
    """Hash of the tasks' ids, questions and answers, in their order."""
    total = hashlib.sha256()
    for task in tasks:
        total.update(_digest(f"{task.id}\0{task.question}\0{task.answer}"))
    return total.hexdigest()
