"""Shape boxes that see more than one trajectory: bonuses that depend on how often others looked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmturn.credit.curiosity import curiosity_bonus, exploration_stage
from mmturn.credit.graded import Graded, term_of
from mmturn.credit.scope import over
from mmturn.types import Json


@over("group")
def curiosity(
    group: Sequence[Graded],
    *,
    calls: str = "tool_calls",
    least_rate: float = 0.3,
    alpha: float = 0.5,
    beta: float = 0.05,
    free: int = 1,
) -> list[Graded]:
    """Pixel Reasoner: trajectories that looked earn more where few of their group did, and less for many calls.
    ``calls`` names the rubric's term that counts them per turn. See ``curiosity.curiosity_bonus``."""
    counts = [round(sum(term_of(graded, calls))) for graded in group]
    bonuses = curiosity_bonus(counts, least_rate, alpha, beta, free)
    return [replace(g, outcome=g.outcome + bonus) for g, bonus in zip(group, bonuses, strict=True)]


@over("batch")
class Exploration:
    """Video-MTR: each call earns a bonus, whatever it showed, as long as few trajectories of a batch have one. It is
    switched off for good after ``patience`` batches in a row above the highest rate. See
    ``curiosity.exploration_stage``."""

    def __init__(
        self,
        *,
        calls: str = "tool_calls",
        rates: tuple[float, ...] = (0.1, 0.5),
        bonuses: tuple[float, ...] = (1.0, 0.5),
        patience: int = 3,
    ) -> None:
        if len(rates) != len(bonuses) or list(rates) != sorted(rates) or not rates or patience < 1:
            raise ValueError(
                f"exploration needs rising rates, a bonus for each, and patience above 0, got {rates}, {bonuses}"
            )
        self._calls, self._rates, self._bonuses, self._patience = calls, rates, bonuses, patience
        self._above = 0

    def __call__(self, batch: Sequence[Graded]) -> list[Graded]:
        """The batch with its bonuses."""
        if self._above >= self._patience or not batch:
            return list(batch)
        counts = [term_of(graded, self._calls) for graded in batch]
        stage = exploration_stage(sum(any(each) for each in counts) / len(batch), self._rates)
        self._above = self._above + 1 if stage is None else 0
        if stage is None:
            return list(batch)
        bonus = self._bonuses[stage]
        return [
            replace(g, turns=tuple(reward + bonus * count for reward, count in zip(g.turns, each, strict=True)))
            for g, each in zip(batch, counts, strict=True)
        ]

    def state(self) -> dict[str, Json]:
        """How many batches in a row were above."""
        return {"above": self._above}

    def load_state(self, state: Mapping[str, Json]) -> None:
        """Go on from there."""
        self._above = int(state.get("above", 0))
