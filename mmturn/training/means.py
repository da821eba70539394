"""Weighted means, sums, maxima and covariances that are collected in pieces and over processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mmturn.training.processes import Processes


@dataclass
class Means:
    """Sums with weights, merged exactly whatever the pieces."""

    totals: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)
    pairs: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    """Number, sum of x, sum of y, sum of x y."""

    def add(self, key: str, total: float, weight: float = 1.0) -> None:
        """Add a sum of values and how many (or how heavy) they were."""
        self.totals[key] = self.totals.get(key, 0.0) + total
        self.weights[key] = self.weights.get(key, 0.0) + weight

    def count(self, key: str, number: float) -> None:
        """Add to a number of which the sum counts."""
        self.counts[key] = self.counts.get(key, 0.0) + number

    def top(self, key: str, value: float) -> None:
        """Note a value of which the largest counts."""
        self.maxima[key] = max(value, self.maxima.get(key, value))

    def covary(self, key: str, x: float, y: float) -> None:
        """Note a pair of values of which the covariance counts."""
        self._add_pairs(key, (1.0, x, y, x * y))

    def merge(self, others: Iterable[Means]) -> None:
        """Add what others collected."""
        for other in others:
            for key, total in other.totals.items():
                self.add(key, total, other.weights[key])
            for key, number in other.counts.items():
                self.count(key, number)
            for key, value in other.maxima.items():
                self.top(key, value)
            for key, sums in other.pairs.items():
                self._add_pairs(key, sums)

    def over(self, processes: Processes) -> dict[str, float]:
        """Means, sums, maxima and covariances over all processes; a key whose weight is 0 is left out, since there is
        no mean."""
        merged = Means()
        merged.merge(processes.gather(self))
        return merged.result()

    def result(self) -> dict[str, float]:
        """Means, sums, maxima and covariances (over all pairs, not one less) collected here."""
        means = {key: total / self.weights[key] for key, total in self.totals.items() if self.weights[key]}
        covariances = {key: (xy - x * y / n) / n for key, (n, x, y, xy) in self.pairs.items()}
        return {**means, **self.counts, **self.maxima, **covariances}

    def _add_pairs(self, key: str, sums: tuple[float, float, float, float]) -> None:
        n, x, y, xy = self.pairs.get(key, (0.0, 0.0, 0.0, 0.0))
        self.pairs[key] = (n + sums[0], x + sums[1], y + sums[2], xy + sums[3])
