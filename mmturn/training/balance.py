"""Groups moved between processes before an update, so that each has about as much to compute.

Rollouts differ in length, and a process that has less to learn from waits for the others at every collective. A group
moves as a whole: its common beginning is computed once wherever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmturn.families.spec import Holders
from mmturn.media import ImageStore
from mmturn.training.cost import trees_of
from mmturn.training.handing import pictures_of, take_in
from mmturn.training.material import Sample
from mmturn.training.price import Price
from mmturn.training.processes import Processes

WORTH = 0.05
"""A group moves if that takes at least this share of the mean off the process that has most."""

Work = Callable[[Sequence[Sample]], float]
"""What it takes to learn from the samples of one group, in any unit."""


@dataclass(frozen=True, slots=True)
class Move:
    """A group that changes its process."""

    group: str
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Balance:
    """Evens out what processes learn from. ``store`` is where the images of groups that arrive are put."""

    processes: Processes
    store: ImageStore
    work: Work

    def __call__(self, samples: Sequence[Sample]) -> list[Sample]:
        """This process's samples after the moves. All processes must call it."""
        if self.processes.world_size == 1:
            return list(samples)
        groups: dict[str, list[Sample]] = {}
        for sample in samples:
            groups.setdefault(sample.row.group, []).append(sample)
        works = {group: self.work(members) for group, members in groups.items() if group}
        for move in moves(self.processes.gather(works)):
            self._carry_out(move, groups)
        return [sample for members in groups.values() for sample in members]

    def _carry_out(self, move: Move, groups: dict[str, list[Sample]]) -> None:
        leaving = self.processes.rank == move.source
        members = groups.pop(move.group) if leaving else []
        pictures = pictures_of(
            (ref for sample in members for view in sample.row.views for ref in view.sources), self.store
        )
        parcel = self.processes.hand((members, pictures), move.source, move.target)
        if parcel is not None:
            groups[move.group] = parcel[0]
            take_in(parcel[1], self.store)


def moves(works: Sequence[Mapping[str, float]]) -> list[Move]:
    """Which groups change their process, given each process's groups with what they cost.

    Step by step, the process that has most gives the one that has least the group that brings both closest together,
    for as long as that is worth it. The same everywhere, since it depends on ``works`` alone.
    """
    held = [dict(work) for work in works]
    mean = sum(sum(work.values()) for work in held) / max(len(held), 1)
    made: dict[str, Move] = {}
    while True:
        loads = [sum(work.values()) for work in held]
        most, least = max(range(len(held)), key=loads.__getitem__), min(range(len(held)), key=loads.__getitem__)
        gap = loads[most] - loads[least]
        # what moves comes off the one and onto the other: the larger of the two falls by min(work, gap - work)
        best = max(held[most], key=lambda group: (min(held[most][group], gap - held[most][group]), group), default=None)
        if best is None or min(held[most][best], gap - held[most][best]) <= WORTH * mean:
            return [move for move in made.values() if move.source != move.target]
        held[least][best] = held[most].pop(best)
        origin = made[best].source if best in made else most
        made[best] = Move(best, origin, least)


def work_of(samples: Sequence[Sample], holders: Holders | int, price: Price | None = None) -> float:
    """FLOPs of learning from some samples; without a price, the tokens that have to run."""
    rows = [sample.row for sample in samples]
    trees = trees_of(rows, holders)
    if price is None:
        return float(sum(tree.end for tree in trees))
    views = {view for row in rows for view in row.views}
    sampled = sum(sum(row.loss_mask) for row in rows)
    return price.update({"learned_unique": len(views)}, trees, sampled, views, 1)
