"""Intervals and paired tests for scores, with questions that share a scene or image kept together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mmturn.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    level: float
    """Coverage, e.g. 0.95."""
    method: str

    def overlaps(self, other: Interval) -> bool:
        """Whether the two have a point in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact two-sided test that two runs on the same tasks are equally often right."""

    gained: int
    """Tasks wrong in the first run and right in the second."""
    lost: int
    """Tasks right in the first run and wrong in the second."""
    p_value: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Second minus first, task by task."""

    mean: float
    interval: Interval | None
    """None with fewer than two clusters: one scene tells nothing about another."""
    n: int
    num_clusters: int


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a share: (0, 1) for ``n == 0``; never empty, never outside [0, 1].

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    Raises ValueError for a count outside 0..n or a level outside (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..{n}, got {successes}")
    z = _z(level)
    if n == 0:
        return Interval(0.0, 1.0, level, "wilson")
    share = successes / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bounds are exactly 0 and 1; rounding must not move them past the share itself.
    low = 0.0 if successes == 0 else min(max(center - half, 0.0), share)
    high = 1.0 if successes == n else max(min(center + half, 1.0), share)
    return Interval(low, high, level, "wilson")


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return NormalDist().inv_cdf(0.5 + level / 2)


def _cluster_sums(values: Sequence[float], clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and number of the values of each cluster, smallest sums first; each value alone without clusters.

    The order depends on the clusters alone, and not on which of them came first: rows come as they finish, and a seed
    must draw the same resamples all the same.
    """
    if clusters is not None and len(clusters) != len(values):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    array = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return np.sort(array), np.ones_like(array)
    members: dict[Hashable, list[float]] = {}
    for cluster, value in zip(clusters, values, strict=True):
        members.setdefault(cluster, []).append(value)
    # fsum is exact, so that the order within a cluster does not show either
    sums = np.array([math.fsum(part) for part in members.values()], dtype=np.float64)
    counts = np.array([len(part) for part in members.values()], dtype=np.float64)
    order = np.lexsort((counts, sums))
    return sums[order], counts[order]


def bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Percentile interval of the mean, resampling whole clusters (the values of one scene or image) with ``seed``.

    None with fewer than two clusters. Source: A. C. Davison, D. V. Hinkley, "Bootstrap methods and their application"
    (1997), section 3.8. Differs: when all clusters agree, the interval has no width; read ``wilson`` beside it.
    """
    _z(level)
    sums, counts = _cluster_sums(values, clusters)
    if len(sums) < 2:
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 4_000_000 // len(sums))
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        picks = generator.integers(0, len(sums), (stop - start, len(sums)))
        means[start:stop] = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, "bootstrap" if clusters is None else "clustered bootstrap")


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """Exact McNemar test of two runs' verdicts (0 or 1) on the same tasks, in the same order.

    Two-sided: twice the smaller tail of Binomial(gained + lost, 1/2), at most 1; 1.0 when no task changed.
    Source: Q. McNemar, Psychometrika 12 (1947), with exact binomial tails. Raises ValueError for other verdicts.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} verdicts against {len(second)}: the test needs the same tasks in both")
    if not {*first, *second} <= {0, 1}:
        raise ValueError("the test needs verdicts 0 or 1; use paired_difference for other scores")
    gained = sum(a < b for a, b in zip(first, second, strict=True))
    lost = sum(a > b for a, b in zip(first, second, strict=True))
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    p_value = min(1.0, 2 * tail / 2**n)  # whole numbers of any size, rounded once
    return McNemar(gained, lost, p_value)


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Mean of second minus first over the same tasks, with the bootstrap interval of the paired differences."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scores against {len(second)}: a paired difference needs the same tasks in both")
    if not first:
        raise DataError("no task is in both runs: nothing to compare")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    interval = bootstrap(differences, clusters, level=level, resamples=resamples, seed=seed)
    number = len(set(clusters)) if clusters is not None else len(first)
    return Difference(math.fsum(differences) / len(differences), interval, len(differences), number)
