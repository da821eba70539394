"""What an update learns from: groups that were sampled, graded and credited, sampled anew where some teach nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from mmturn.credit.method import Assigned
from mmturn.interfaces import Rubric, TaskSource
from mmturn.rollout.groups import Episode
from mmturn.training.crediting import Crediting, Groups
from mmturn.training.curriculum import Curriculum
from mmturn.training.pool import SuccessPool
from mmturn.training.processes import Processes
from mmturn.training.settings import RlConfig
from mmturn.types import Json, Trajectory

Roll = Callable[[Sequence[Episode]], Iterable[Trajectory]]
"""Runs episodes with the policy's present weights; trajectories come in any order (``Driver.run``)."""
Clock = Callable[[str], AbstractContextManager[None]]
"""Counts the seconds of a stage."""
_METHOD, _CURRICULUM = "method", "curriculum"


@dataclass(frozen=True, slots=True)
class Sampled:
    """The trajectories of an update, of this process."""

    groups: Groups
    """Graded and with their advantages per turn."""
    assigned: Mapping[str, Assigned]
    """What the method made of each trajectory that did not fail."""
    replaced: Mapping[str, Trajectory] | None = None
    """By id, what was sampled where ``groups`` have a stored success; None where none are stored."""

    @property
    def trajectories(self) -> list[Trajectory]:
        """All of them."""
        return [trajectory for group in self.groups for trajectory in group]

    @property
    def in_loss(self) -> list[tuple[Trajectory, Assigned]]:
        """Those that are trained on, each with its credit."""
        credited = [(t, self.assigned[t.id]) for t in self.trajectories if t.id in self.assigned]
        return [(trajectory, found) for trajectory, found in credited if found.in_loss]

    @property
    def drawn_groups(self) -> Groups:
        """The groups as they were sampled, whatever stored success took a place in them."""
        replaced = self.replaced or {}
        return tuple(tuple(replaced.get(t.id, t) for t in group) for group in self.groups)

    @property
    def drawn(self) -> list[Trajectory]:
        """All that was sampled."""
        return [trajectory for group in self.drawn_groups for trajectory in group]


@dataclass(frozen=True)
class Sampler:
    """Samples the groups of an update. All processes must call it together."""

    source: TaskSource
    roll: Roll
    rubric: Rubric
    crediting: Crediting
    curriculum: Curriculum
    config: RlConfig
    gathered: Callable[[], AbstractContextManager[None]]
    """Holds the policy's weights in full while it rolls."""
    pool: SuccessPool | None = None
    """Successes that stand in where a group has none."""

    def __call__(self, update: int, clock: Clock) -> Sampled:
        """``groups_per_update`` groups over all processes. As long as there are refill rounds left, other tasks are
        sampled in place of groups that the method does not train on."""
        processes, method = self.crediting.processes, self.crediting.method
        before = method.state()
        sampled, missing = Sampled((), {}), self.config.groups_per_update
        for number in range(1 + self.config.refill_rounds):
            visits = processes.share(self.source.next(missing))
            with clock("rollout"), self.gathered():
                rolled = list(self.roll(self.curriculum.episodes(visits, update)))
            with clock("reward"):
                if number:
                    method.load_state(before)  # credit is assigned anew, over all groups so far
                sampled = self._credited(sampled, graded(rolled, self.rubric))
            missing = self.config.groups_per_update - self._taught(sampled, processes)
            if missing <= 0:
                break
        self.curriculum.note(sampled.drawn_groups, processes)
        if self.pool is not None:
            self.pool.note(sampled.drawn_groups, update)
        return sampled

    def _credited(self, before: Sampled, groups: Groups) -> Sampled:
        """What was sampled before, and further groups, with credit over all of them."""
        replaced = before.replaced
        if self.pool is not None:
            groups, found = self.pool(groups)
            replaced = {**(replaced or {}), **found}
        return Sampled(*self.crediting((*before.groups, *groups)), replaced)

    def _taught(self, sampled: Sampled, processes: Processes) -> int:
        """How many groups of all processes have a trajectory that is trained on."""
        groups = {trajectory.group for trajectory, _ in sampled.in_loss}
        return int(processes.sums({"groups": len(groups)})["groups"])

    def state(self) -> dict[str, Json]:
        """Where the tasks are, and what method and curriculum remember, as one part of a checkpoint."""
        remembered = {_METHOD: self.crediting.method.state(), _CURRICULUM: self.curriculum.state()}
        return {**self.source.state(), **{key: value for key, value in remembered.items() if value}}

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Go on from there."""
        own = {key: value for key, value in state.items() if key not in (_METHOD, _CURRICULUM)}
        self.source.load_state(own)
        self.crediting.method.load_state(state.get(_METHOD, {}))
        self.curriculum.load_state(state.get(_CURRICULUM, {}))


def graded(trajectories: Iterable[Trajectory], rubric: Rubric) -> Groups:
    """Trajectories with rewards, by group, in an order that depends on their names alone.

    A failed trajectory gets no reward: there is nothing to grade.
    """
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in sorted(trajectories, key=lambda t: (t.group, t.index)):
        reward = None if trajectory.stop.status == "failed" else rubric(trajectory)
        groups.setdefault(trajectory.group, []).append(replace(trajectory, reward=reward))
    return tuple(map(tuple, groups.values()))
