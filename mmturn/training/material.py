"""Graded trajectories -> rows with an advantage per token, and what they count in the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmturn.batching.collate import spread_advantages
from mmturn.errors import DataError
from mmturn.losses.aggregate import Denominators
from mmturn.types import Row, Trajectory


@dataclass(frozen=True, slots=True)
class Sample:
    """A row as the policy loss sees it."""

    row: Row
    advantages: tuple[float, ...]
    """[T] advantage of the turn that sampled the token; 0.0 elsewhere."""
    trajectory_tokens: int
    """Sampled tokens of the whole trajectory, over all its rows."""

    @property
    def has_signal(self) -> bool:
        """Whether any sampled token has an advantage."""
        return any(self.advantages)


def samples_of(
    trajectories: Sequence[Trajectory], rows_of: Callable[[Trajectory], Sequence[Row]]
) -> tuple[list[Sample], list[str]]:
    """Rows of trajectories that have their advantages; and, by name, those that had to be dropped.

    A trajectory whose rows cannot be made (its placeholders and images disagree, an image is gone) is dropped alone.
    Raises DataError for one whose engine reported no log-probs: no policy gradient can be had from it.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    for trajectory in trajectories:
        try:
            rows = [row for row in rows_of(trajectory) if any(row.loss_mask)]
        except DataError as error:
            problems.append(str(error))
            continue
        tokens = sum(sum(row.loss_mask) for row in rows)
        for row in rows:
            if row.logprobs is None:
                raise DataError(
                    f"trajectory {trajectory.id}: engine {trajectory.meta.get('engine', '?')!r} reports no token ids "
                    "and log-probs, so that policy-gradient training cannot use it; supervised learning can"
                )
            samples.append(Sample(row, spread_advantages(row, trajectory.advantages or ()), tokens))
    return samples, problems


def denominators_of(samples: Sequence[Sample]) -> Denominators:
    """Sampled tokens, and trajectories (however many rows each has)."""
    tokens = sum(sum(sample.row.loss_mask) for sample in samples)
    return Denominators(tokens, len({sample.row.trajectory_id for sample in samples}))


def minibatches(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """``count`` parts of about as many trajectories each, in order, so that a group is cut as little as can be; a
    trajectory's rows stay together, and some parts may be empty."""
    place: dict[str, int] = {}
    for sample in samples:
        place.setdefault(sample.row.trajectory_id, len(place))
    return [[s for s in samples if place[s.row.trajectory_id] * count // len(place) == part] for part in range(count)]
