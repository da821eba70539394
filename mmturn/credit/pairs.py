"""Which trajectories a preference is learned from: pairs of a better and a worse one of a group, or labels.

Trajectories are named by their place in the sequence that is given, since a file that was appended to may repeat ids.
Two of a group share their task and the seed of their environment, so that they begin alike.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from mmturn.errors import DataError
from mmturn.types import Trajectory, Turn


@dataclass(frozen=True, slots=True)
class Pair:
    """A better and a worse trajectory of one group."""

    chosen: int
    rejected: int
    turn: int = 0
    """Index of the turn to learn from on: what both sampled before is context."""
    objective: str = "total"
    """What they were compared by."""

    @property
    def members(self) -> tuple[int, ...]:
        """The chosen one, then the rejected one."""
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True)
class Label:
    """A trajectory that is good or bad by itself."""

    trajectory: int
    desirable: bool
    objective: str = "total"

    @property
    def members(self) -> tuple[int, ...]:
        """The trajectory."""
        return (self.trajectory,)


def value_of(trajectory: Trajectory, objective: str) -> float:
    """What a trajectory is worth: its reward's ``total``, its ``outcome``, or the raw value of a component.

    Raises DataError naming a trajectory that failed, was never graded, or has no such number.
    """
    where, reward = f"trajectory {trajectory.id}", trajectory.reward
    if trajectory.stop.status == "failed":
        raise DataError(f"{where}: failed ({trajectory.error or trajectory.stop.value})")
    if reward is None:
        raise DataError(f"{where}: has no reward")
    known = {**reward.components, "total": reward.total, "outcome": reward.outcome}
    if objective not in known:
        raise DataError(f"{where}: its reward has no {objective!r} (it has: {', '.join(known)})")
    if not math.isfinite(known[objective]):
        raise DataError(f"{where}: its {objective} is {known[objective]}")
    return known[objective]


def graded(trajectories: Sequence[Trajectory], objectives: Collection[str]) -> tuple[list[Trajectory], list[str]]:
    """The trajectories that every objective has a value of; and, by name, why the others have to be left out."""
    found: list[Trajectory] = []
    problems: list[str] = []
    for trajectory in trajectories:
        try:
            for objective in objectives:
                value_of(trajectory, objective)
        except DataError as error:
            problems.append(str(error))
        else:
            found.append(trajectory)
    return found, problems


def best_against_worst(
    trajectories: Sequence[Trajectory], objective: str = "total", min_gap: float = 0.0
) -> list[Pair]:
    """One pair of each group whose best and worst trajectory lie further apart than ``min_gap``; of equals the first.

    Source: the pairs of iterative DPO, as in M-DPO (2409.02392): best against worst of the samples for one prompt.
    """
    pairs: list[Pair] = []
    for members in _groups(trajectories):
        values = {index: value_of(trajectories[index], objective) for index in members}
        best, worst = max(members, key=values.__getitem__), min(members, key=values.__getitem__)
        if values[best] - values[worst] > min_gap:
            pairs.append(Pair(best, worst, objective=objective))
    return pairs


def good_against_bad(
    trajectories: Sequence[Trajectory], good_from: float, bad_to: float, objective: str = "total", per_group: int = 0
) -> list[Pair]:
    """Every trajectory of a group from ``good_from`` on against every one up to ``bad_to``.

    ``per_group``: most pairs of a group; 0 takes all. The first ones hold as many different trajectories as there are.
    """
    pairs: list[Pair] = []
    for members in _groups(trajectories):
        values = {index: value_of(trajectories[index], objective) for index in members}
        good = [index for index in members if values[index] >= good_from]
        bad = [index for index in members if values[index] <= bad_to]
        turned = [(a, bad[(place + shift) % len(bad)]) for shift in range(len(bad)) for place, a in enumerate(good)]
        pairs += [Pair(a, b, objective=objective) for a, b in turned[: per_group or None]]
    return pairs


def at_turns(
    trajectories: Sequence[Trajectory], objective: str = "total", min_gap: float = 0.0, per_group: int = 0
) -> list[Pair]:
    """Of each history that trajectories of a group share, the two furthest apart that go on differently from it.

    A history is everything up to a turn's completion, token by token and view by view; the opening is one. The pair is
    learned from on at that turn. Values must differ by more than ``min_gap``; of equals the first. ``per_group``: most
    pairs of a group, those furthest apart first; 0 takes all. Trajectories without token ids share no history.
    """
    pairs: list[Pair] = []
    for members in _groups(trajectories):
        values = {index: value_of(trajectories[index], objective) for index in members}
        found: list[tuple[float, Pair]] = []
        for turn, said in _decisions(trajectories, members):
            gaps = [(values[a] - values[b], a, b) for a, own in said for b, other in said if own != other]
            gap, best, worst = max(gaps, key=lambda entry: entry[0], default=(0.0, 0, 0))
            if gap > min_gap:
                found.append((gap, Pair(best, worst, turn, objective)))
        found.sort(key=lambda entry: -entry[0])
        pairs += [pair for _, pair in found[: per_group or None]]
    return pairs


def labels(
    trajectories: Sequence[Trajectory], good_from: float, bad_to: float, objective: str = "total"
) -> list[Label]:
    """Trajectories from ``good_from`` on as desirable, those up to ``bad_to`` as not; the others have no label."""
    values = [value_of(trajectory, objective) for trajectory in trajectories]
    return [
        Label(index, value >= good_from, objective)
        for index, value in enumerate(values)
        if value >= good_from or value <= bad_to
    ]


def _groups(trajectories: Sequence[Trajectory]) -> list[list[int]]:
    """Places by group, both in order of appearance."""
    groups: dict[str, list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        groups.setdefault(trajectory.group, []).append(index)
    return list(groups.values())


def _decisions(
    trajectories: Sequence[Trajectory], members: Sequence[int]
) -> Iterator[tuple[int, list[tuple[int, object]]]]:
    """Per history in a group: the turn that goes on from it, and what each trajectory that shares it sampled there."""
    numbers: dict[object, int] = {}
    met: dict[int, tuple[int, list[tuple[int, object]]]] = {}
    for index in members:
        history = -1
        for turn in trajectories[index].turns:
            if turn.token_ids is None:
                break
            shown, said = _parts(turn)
            history = numbers.setdefault((history, shown), len(numbers))
            met.setdefault(history, (turn.index, []))[1].append((index, said))
            history = numbers.setdefault((history, said), len(numbers))
    yield from met.values()


def _parts(turn: Turn) -> tuple[object, object]:
    """What a turn shows, and what it samples with what closes it."""
    ids = turn.token_ids or ()
    start = turn.provenance.find("s")
    start = len(ids) if start < 0 else start
    return (ids[:start], turn.observation.views, turn.context_views), ids[start:]
