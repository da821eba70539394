"""Stored successes, one of each task: they stand in where all that was sampled of a task failed.

A success is held by the process that sampled it, and handed over with its pictures where another process wants it.
Which one is held depends on what was sampled alone, and not on how many processes sampled it.
Source: DART (2509.23866), experience pool; dart-gui, verl/utils/dataset/trainable_filter.py: the newest success.
Differs: it replaces the oldest row of the task; here all of a group are of one update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mmturn.errors import LostImageError
from mmturn.media import ImageStore
from mmturn.store.trajectories import image_refs
from mmturn.training.crediting import Groups
from mmturn.training.curriculum import succeeded
from mmturn.training.handing import pictures_of, take_in
from mmturn.training.processes import Processes
from mmturn.types import ImageRef, Trajectory

INJECTED = "injected"
"""Key of ``Trajectory.meta``: of a stored success, its own ``id`` and the ``update`` that sampled it."""
UPDATE = "update"
"""Key of ``Trajectory.meta``: of a stored rollout, the update that it was trained on in."""


@dataclass(frozen=True, slots=True)
class Success:
    """A trajectory that succeeded, graded, without advantages."""

    trajectory: Trajectory
    update: int
    """That sampled it."""

    @property
    def age(self) -> tuple[int, str, int]:
        """The larger, the newer; unique among the trajectories of a run."""
        return self.update, self.trajectory.group, self.trajectory.index


class SuccessPool:
    """The newest success of each task. ``term``: of the rubric, above 0 where a trajectory succeeded; ``store``: takes
    in the pictures of successes that other processes hand over. All processes must call its methods together."""

    def __init__(self, term: str, processes: Processes, store: ImageStore) -> None:
        self.term, self.processes, self.store = term, processes, store
        self._held: dict[str, Success] = {}

    def __call__(self, groups: Groups) -> tuple[Groups, dict[str, Trajectory]]:
        """Graded groups with a stored success in each that had none, where there is one of its task; and, by id, the
        trajectories whose places they took.

        It takes the place, id and group of the last trajectory, of one that broke down if there is any; its tokens,
        log-probs, versions and reward stay its own. A group of one, or one that broke down altogether, stays as it is.
        """
        wanted = {group[0].task.id for group in groups if self._lacks(group)}
        known = {**self._held, **self._asked_for(wanted - self._held.keys())}
        placed, replaced = [], {}
        for group in groups:
            success = known.get(group[0].task.id)
            if success is not None and self._lacks(group):
                place = max(range(len(group)), key=lambda i: (group[i].stop.status == "failed", i))
                replaced[group[place].id] = group[place]
                group = (*group[:place], _in_place_of(group[place], success), *group[place + 1 :])
            placed.append(group)
        return tuple(placed), replaced

    def note(self, groups: Groups, update: int) -> None:
        """Remember the successes of an update. ``groups``: as they were sampled."""
        self._settle([Success(t, update) for group in groups for t in group if succeeded(t, self.term)])

    def recall(self, stored: Iterable[Trajectory]) -> None:
        """Remember the successes among this process's stored rollouts, those of all updates so far."""
        newest: dict[str, Success] = {}
        for trajectory in stored:
            if INJECTED not in trajectory.meta and succeeded(trajectory, self.term):
                meta = {key: value for key, value in trajectory.meta.items() if key != UPDATE}
                _keep_newest(newest, Success(replace(trajectory, meta=meta), int(trajectory.meta[UPDATE])))
        self._settle(newest.values())

    def _lacks(self, group: Sequence[Trajectory]) -> bool:
        """Whether none of a group succeeded, though some could be learned from beside a success."""
        fine = [trajectory for trajectory in group if trajectory.stop.status != "failed"]
        return len(group) > 1 and bool(fine) and not any(succeeded(trajectory, self.term) for trajectory in fine)

    def _settle(self, found: Iterable[Success]) -> None:
        """Of each task, the newest success of any process is held, by that process."""
        own: dict[str, Success] = {}
        for success in found:
            _keep_newest(own, replace(success, trajectory=replace(success.trajectory, advantages=None)))
        held: dict[str, tuple[tuple[int, str, int], int]] = {}
        for rank, ages in enumerate(self.processes.gather({task: success.age for task, success in own.items()})):
            for task, age in ages.items():
                held[task] = max(held.get(task, (age, rank)), (age, rank))
        for task, (_, rank) in held.items():
            self._held.pop(task, None)
            if rank == self.processes.rank:
                self._held[task] = own[task]

    def _asked_for(self, missing: set[str]) -> dict[str, Success]:
        """The successes of these tasks that other processes hold, with their pictures taken in."""
        asked = sorted(set().union(*self.processes.gather(missing)))
        if not asked:
            return {}
        parcels = self.processes.gather({task: self._packed(task) for task in asked if task in self._held})
        found = {task: parcel for part in parcels for task, parcel in part.items() if task in missing}
        for _, pictures in found.values():
            take_in(pictures, self.store)
        return {task: success for task, (success, _) in found.items()}

    def _packed(self, task: str) -> tuple[Success, Mapping[ImageRef, bytes]]:
        """A success with its pictures; without them where one is gone, which is said where its rows are made."""
        success = self._held[task]
        try:
            return success, pictures_of(image_refs(success.trajectory), self.store)
        except LostImageError:
            return success, {}


def _keep_newest(kept: dict[str, Success], success: Success) -> None:
    task = success.trajectory.task.id
    if task not in kept or kept[task].age < success.age:
        kept[task] = success


def _in_place_of(failure: Trajectory, success: Success) -> Trajectory:
    stored = success.trajectory
    meta = {**stored.meta, INJECTED: {"id": stored.id, "update": success.update}}
    return replace(stored, id=failure.id, group=failure.group, index=failure.index, meta=meta)
