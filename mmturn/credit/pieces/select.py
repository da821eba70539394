"""Select: which trajectories of a batch [N], and which of their turns [K], are trained on.

Statistics come first: what is left out here still counts in the means of its group. A piece sees the advantages that
came of them, per turn, and answers with one bool per trajectory or one per turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mmturn.credit import select as rules
from mmturn.credit.graded import Graded, by_group, flat
from mmturn.credit.signals import needs
from mmturn.errors import DataError

Kept = bool | tuple[bool, ...]
Advantages = Sequence[Sequence[float]]
"""[N][K] per turn; of tokens, 0 exactly where all of a turn's are."""


def finished(batch: Sequence[Graded], advantages: Advantages) -> list[Kept]:
    """Only trajectories that no limit ended: overlong filtering, SUPO (2510.06727)."""
    return [graded.status == "terminated" for graded in batch]


def with_signal(batch: Sequence[Graded], advantages: Advantages) -> list[Kept]:
    """Only groups of which some trajectory has an advantage other than 0: the others would dilute the denominators."""
    taught = {g.group for g, row in zip(batch, advantages, strict=True) if any(row)}
    return [g.group in taught for g in batch]


def nonzero(batch: Sequence[Graded], advantages: Advantages) -> list[Kept]:
    """Only turns whose advantage is not 0: SPIRAL (2506.24119), and with it draws at a baseline of 0."""
    return [tuple(value != 0 for value in row) for row in advantages]


def mixed(batch: Sequence[Graded], advantages: Advantages, *, correct: str = "answer") -> list[Kept]:
    """Only groups with some but not all trajectories correct (the rubric's term above 0): DAPO. With
    ``rl.refill_rounds`` others are sampled in place of the rest. See ``select.dynamic_sampling``."""
    groups: dict[str, list[float]] = {}
    for graded in batch:
        groups.setdefault(graded.group, []).append(_term(graded, correct))
    kept = set(rules.dynamic_sampling(groups))
    return [graded.group in kept for graded in batch]


def solved(batch: Sequence[Graded], advantages: Advantages, *, correct: str = "answer") -> list[Kept]:
    """Only groups of which some trajectory is correct (the rubric's term above 0): ActiveVLN (2509.12618)."""
    found = {graded.group for graded in batch if _term(graded, correct) > 0}
    return [graded.group in found for graded in batch]


def top_spread(
    batch: Sequence[Graded],
    advantages: Advantages,
    *,
    keep: float = 0.25,
    std: Literal["unbiased", "population"] = "unbiased",
) -> list[Kept]:
    """Only the groups whose rewards spread most: StarPO-S, VAGEN. See ``select.top_spread``."""
    groups: dict[str, list[float]] = {}
    for graded in batch:
        groups.setdefault(graded.group, []).append(graded.total)
    names = list(groups)
    kept = {names[p] for p in rules.top_spread(list(groups.values()), keep, std)}
    return [graded.group in kept for graded in batch]


def no_void_turns(batch: Sequence[Graded], advantages: Advantages) -> list[Kept]:
    """Only trajectories whose every turn had an action: SimpleTIR. See ``select.without_void_turns``."""
    return list(rules.without_void_turns([[not acted for acted in graded.acted] for graded in batch]))


@needs("entropies")
def high_entropy(batch: Sequence[Graded], advantages: Advantages, *, quantile: float = 0.2) -> list[Kept]:
    """Only turns whose mean token entropy reaches the ``quantile`` of their group's: DART. See
    ``select.high_entropy_steps``."""

    def rule(group: list[Graded]) -> list[Kept]:
        steps = [[sum(turn) / max(len(turn), 1) for turn in _entropies(graded)] for graded in group]
        kept = iter(rules.high_entropy_steps(flat(steps), quantile))
        return [tuple(next(kept) for _ in row) for row in steps]

    return by_group(batch, rule)


def fresh(batch: Sequence[Graded], advantages: Advantages, *, max_lag: int) -> list[Kept]:
    """Only trajectories no turn of which is more than ``max_lag`` updates older than the newest of the batch. See
    ``select.fresh_enough``."""
    newest = max((version for graded in batch for version in graded.versions), default=0)
    return list(rules.fresh_enough([graded.versions for graded in batch], newest, max_lag))


def _term(graded: Graded, name: str) -> float:
    if name not in graded.values:
        known = ", ".join(graded.values) or "none"
        raise DataError(f"trajectory {graded.id}: the rubric has no term {name!r} (terms: {known})")
    return graded.values[name]


def _entropies(graded: Graded) -> tuple[tuple[float, ...], ...]:
    if graded.signals.entropies is None:
        raise DataError(f"trajectory {graded.id}: the policy's entropies are not known; this selection needs them")
    return graded.signals.entropies
