"""Trajectories with their credit -> rows with an advantage per token, and what they count in the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmturn.batching.collate import spread_advantages
from mmturn.credit.lessons import Lesson
from mmturn.credit.method import Assigned
from mmturn.errors import DataError
from mmturn.losses.aggregate import Denominators
from mmturn.types import Row, Trajectory


@dataclass(frozen=True, slots=True)
class RowLesson:
    """``credit.lessons.Lesson`` along a row: [T] per token, 0.0 where the loss mask is 0."""

    values: tuple[float, ...]
    targets: tuple[float, ...]
    returns: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A row as the policy loss sees it."""

    row: Row
    """Its loss mask is 1 on the sampled tokens of turns that are trained on."""
    advantages: tuple[float, ...]
    """[T] per token; 0.0 where the loss mask is 0."""
    trajectory_tokens: int
    """Tokens of the whole trajectory that are trained on, over all its rows."""
    trajectory_turns: int
    """Turns of the whole trajectory that are trained on."""
    lesson: RowLesson | None = None
    """What a critic learns from it."""
    present: tuple[int, ...] | None = None
    """[T] 1 on tokens that the weights which learn sampled, 0 on those of older ones and on what nobody sampled; None:
    none are older."""

    @property
    def has_signal(self) -> bool:
        """Whether any token that is trained on has an advantage."""
        return any(self.advantages)


def samples_of(
    credited: Sequence[tuple[Trajectory, Assigned]],
    rows_of: Callable[[Trajectory], Sequence[Row]],
    version: int | None = None,
) -> tuple[list[Sample], list[str]]:
    """Rows of trajectories with what a method made of them; and, by name, those that had to be dropped.

    Only turns that the method kept are trained on; a row without one is left out. A trajectory whose rows cannot be
    made (its placeholders and images disagree, an image is gone) is dropped alone. ``version``: of the weights that
    learn; None: whatever was sampled is theirs.
    Raises DataError for one whose engine reported no log-probs: no policy gradient can be had from it.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    for trajectory, found in credited:
        try:
            rows = [narrowed(row, found.kept) for row in rows_of(trajectory)]
        except DataError as error:
            problems.append(str(error))
            continue
        rows = [row for row in rows if any(row.loss_mask)]
        tokens, turns = sum(sum(row.loss_mask) for row in rows), len(turns_in(rows))
        for row in rows:
            if row.logprobs is None:
                raise DataError(
                    f"trajectory {trajectory.id}: engine {trajectory.meta.get('engine', '?')!r} reports no token ids "
                    "and log-probs, so that policy-gradient training cannot use it; supervised learning can"
                )
            advantages = spread_advantages(row, found.advantages)
            present = _by_present(row, trajectory, version)
            samples.append(Sample(row, advantages, tokens, turns, _along(row, found.lesson), present))
    return samples, problems


def _along(row: Row, lesson: Lesson | None) -> RowLesson | None:
    if lesson is None:
        return None
    return RowLesson(*(spread_advantages(row, part) for part in (lesson.values, lesson.targets, lesson.returns)))


def _by_present(row: Row, trajectory: Trajectory, version: int | None) -> tuple[int, ...] | None:
    fresh = [version is None or turn.policy_version == version for turn in trajectory.turns]
    if all(fresh):
        return None
    return tuple(int(turn >= 0 and fresh[turn]) for turn in row.turn_index)


def narrowed(row: Row, kept: Sequence[bool]) -> Row:
    """A row whose loss mask is 0 on turns that are not kept."""
    if all(kept):
        return row
    pairs = zip(row.loss_mask, row.turn_index, strict=True)
    return replace(row, loss_mask=tuple(int(mask and kept[turn]) for mask, turn in pairs))


def turns_in(rows: Sequence[Row]) -> set[tuple[str, int]]:
    """Trajectory and index of every turn with a token that is trained on."""
    return {
        (row.trajectory_id, turn)
        for row in rows
        for mask, turn in zip(row.loss_mask, row.turn_index, strict=True)
        if mask
    }


def denominators_of(samples: Sequence[Sample]) -> Denominators:
    """Tokens, trajectories (however many rows each has) and turns that are trained on."""
    rows = [sample.row for sample in samples]
    tokens = sum(sum(row.loss_mask) for row in rows)
    return Denominators(tokens, len({row.trajectory_id for row in rows}), len(turns_in(rows)))


def minibatches(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """``count`` parts of about as many trajectories each, in order, so that a group is cut as little as can be; a
    trajectory's rows stay together, and some parts may be empty."""
    place: dict[str, int] = {}
    for sample in samples:
        place.setdefault(sample.row.trajectory_id, len(place))
    return [[s for s in samples if place[s.row.trajectory_id] * count // len(place) == part] for part in range(count)]


def presence(samples: Sequence[Sample], length: int) -> Tensor:
    """[B, T] ``Sample.present`` of rows padded to ``length``."""
    found = torch.ones(len(samples), length)
    for number, sample in enumerate(samples):
        if sample.present is not None:
            found[number, : len(sample.present)] = torch.tensor(sample.present)
    return found
