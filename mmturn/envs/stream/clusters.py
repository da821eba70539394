"""k-means that always gives the same clusters for the same points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROUNDS = 10


def middles(points: Floats, count: int) -> list[int]:
    """Indices of at most ``count`` of the points [N, D], rising: of each cluster the point nearest to its mean.

    Clusters begin at the first point and then at the one farthest from all so far, and go through up to 10 rounds of
    k-means. Few points, or fewer than ``count`` different ones, give one each. Raises ValueError for a count below 1.
    Source: StreamChat (arXiv 2501.13468), whose leaves and parents are 5 clusters of features. Differs: its seeds are
    random, and the means themselves stand for a node where here, since images are shown, the frames nearest to them do.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if len(points) <= count:
        return list(range(len(points)))
    centres = points[_spread(points, count)]
    labels = np.zeros(len(points), dtype=np.int64)
    for _ in range(_ROUNDS):
        labels = _distances(points, centres).argmin(1)
        moved = np.stack([
            points[labels == k].mean(0) if bool((labels == k).any()) else centres[k] for k in range(len(centres))
        ])  # fmt: skip
        if np.array_equal(moved, centres):
            break
        centres = moved
    distances = _distances(points, centres)
    found = []
    for k in range(len(centres)):
        members = np.flatnonzero(labels == k)
        if len(members):
            found.append(int(members[distances[members, k].argmin()]))
    return sorted(found)


def _spread(points: Floats, count: int) -> list[int]:
    """The first point, then again and again the one farthest from those chosen; as many as differ."""
    chosen, nearest = [0], _distances(points, points[:1])[:, 0]
    while len(chosen) < count and float(nearest.max()) > 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(points, points[chosen[-1:]])[:, 0])
    return chosen


def _distances(points: Floats, centres: Floats) -> Floats:
    """[N, K] squared distances."""
    return np.asarray(((points[:, None, :] - centres[None]) ** 2).sum(2), dtype=np.float64)
