"""Returns to go per turn, what may be taken off them without bias, and two common forms that are biased.

The estimate ``sum_i sum_k A[i][k] grad log pi(turn k of i) / G``, over G trajectories of one task that are
independent given it, is an unbiased policy gradient where ``A[i][k]`` is the return to go less a baseline that,
given trajectory i's history up to turn k, is independent of what i does from turn k on. Whether i has a turn k is
known from that history, so a turn it does not reach has no term; how many turns it will reach is not. Siblings that
share sampled turns with i, and groups kept or dropped by their rewards, break the independence.

Everything is ragged, [G][K_i]: trajectory i has K_i turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmturn.credit.outcome import dr_grpo, rloo
from mmturn.credit.returns import returns_to_go

Rows = Sequence[Sequence[float]]
"""[G][K_i] numbers per turn."""


def turn_returns(turn_rewards: Rows, outcomes: Sequence[float], gamma: float = 1.0) -> list[tuple[float, ...]]:
    """Each turn's own reward, those of later turns and the outcome, which comes with the last turn.

    ``turn_rewards`` [G][K_i], ``outcomes`` [G] -> [G][K_i]; a reward n turns later counts ``gamma**n``. Unbiased as
    advantages as they are (REINFORCE with reward to go), and noisy. Where ``gamma < 1``, see ``discount_turns``.
    """
    pairs = zip(turn_rewards, outcomes, strict=True)
    return [returns_to_go(_with_outcome(turns, outcome), gamma) for turns, outcome in pairs]


def minus_others(returns: Rows) -> list[tuple[float, ...]]:
    """Each turn's value less the mean of turn k over the other trajectories that have a turn k; less 0 where none has.

    [G][K_i] -> [G][K_i]. Unbiased on returns to go: which siblings have a turn k, how many, and what they return does
    not depend on trajectory i. Equal values give exactly 0. A turn that one trajectory alone reaches keeps its value;
    0 instead would weigh turn k by its chance of company.

    Source: RLOO (2402.14740), per turn. Differs: a lone value stays, where ``outcome.rloo`` gives 0.
    """
    return _per_turn(returns, lambda values: rloo(values) if len(values) > 1 else values)


def minus_values(returns: Rows, values: Rows) -> list[tuple[float, ...]]:
    """Each turn's return less a value of its history. Both [G][K_i] -> [G][K_i].

    Unbiased on returns to go if ``values[i][k]`` is a function of what came before turn k's first sampled token.
    Raises ValueError for other shapes.
    """
    return [tuple(r - v for r, v in zip(*pair, strict=True)) for pair in zip(returns, values, strict=True)]


def minus_mean(returns: Rows) -> list[tuple[float, ...]]:
    """Each turn's value less the mean of turn k over all trajectories that have a turn k, its own included.

    [G][K_i] -> [G][K_i]; a lone value gives 0. With m siblings at turn k this is ``m / (m + 1)`` times
    ``minus_others``, so on returns to go it is biased by a factor per turn: ``1 - (1 - (1 - p)**G) / (G p)`` where a
    trajectory has a turn k with chance p. That is ``(G - 1) / G`` for ``p = 1`` and less for turns that few reach.

    Source: Dr. GRPO (2503.20783), per turn.
    """
    return _per_turn(returns, dr_grpo)


def discount_turns(advantages: Rows, gamma: float) -> list[tuple[float, ...]]:
    """Turn k weighs ``gamma**k``: with it, the discounted forms have the gradient of the discounted return.

    [G][K_i] -> [G][K_i]. Without it, as is common, later turns weigh more than the discounted return gives them.
    Source: Bias in Natural Actor-Critic Algorithms (Thomas, ICML 2014).
    """
    return [tuple(gamma**k * a for k, a in enumerate(row)) for row in advantages]


def centred_then_accumulated(
    turn_rewards: Rows, outcomes: Sequence[float], gamma: float = 1.0
) -> list[tuple[float, ...]]:
    """Biased. Turn rewards less their turn's mean, outcomes less theirs, then summed from each turn on.

    Inputs as for ``returns_to_go`` -> [G][K_i]. A trajectory is charged a mean for each turn that it reaches, so its
    baseline depends on where it stops, which its actions decide. The centred rewards of a turn sum to 0 over those
    that reach it: stopping or going on is judged as if later turns earned nothing on average. The same two steps in
    the other order, ``minus_mean(turn_returns(...))``, only rescale turns.

    Source: per-turn statistics of MT-GRPO (2505.11821) with the accumulation of IGPO (2510.14967), no std.
    """
    return turn_returns(minus_mean(turn_rewards), dr_grpo(outcomes), gamma)


def _with_outcome(turns: Sequence[float], outcome: float) -> list[float]:
    return [*turns[:-1], turns[-1] + outcome] if turns else []


def _per_turn(rows: Rows, rule: Callable[[list[float]], Sequence[float]]) -> list[tuple[float, ...]]:
    """``rule`` applied to the values of turn k of all trajectories that have one, for each k."""
    result = [list(row) for row in rows]
    for k in range(max(map(len, rows), default=0)):
        members = [row for row in result if len(row) > k]
        for row, value in zip(members, rule([row[k] for row in members]), strict=True):
            row[k] = value
    return [tuple(row) for row in result]
