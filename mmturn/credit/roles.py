"""Turns that play roles: attempts, verifications of them, revisions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from mmturn.credit.returns import returns_to_go
from mmturn.credit.tokens import finite, one_length


def pag_rewards(rewards: Sequence[float], previous: Sequence[float | None], alpha: float) -> tuple[float, ...]:
    """Rewards with a bonus for a better revision: ``r + alpha (r - r of the attempt before)``.

    ``rewards`` [N] per turn; ``previous`` [N]: the attempt's reward that a turn revises, None where it revises none
    -> [N]. Raises ValueError.
    Source: PAG (2506.10406) section 3.2. Differs: the value of ``alpha`` is not verified (``unverified.UNVERIFIED``),
    so there is no default.
    """
    one_length(rewards=rewards, previous=previous)
    finite("previous", [value for value in previous if value is not None])
    return tuple(
        reward if before is None else reward + alpha * (reward - before)
        for reward, before in zip(finite("rewards", rewards), previous, strict=True)
    )


def pag_returns(
    trajectories: Sequence[Hashable], rewards: Sequence[float], gamma_turn: float = 0.0
) -> tuple[float, ...]:
    """Returns per turn, discounted within each trajectory.

    ``trajectories`` [N] of each turn, whose turns come in order; ``rewards`` [N] -> [N]. Raises ValueError.
    Source: PAG (2506.10406) section 3.2: turn-independent optimisation is ``gamma_turn = 0``, nothing flows back.
    """
    one_length(trajectories=trajectories, rewards=rewards)
    result = [0.0] * len(rewards)
    for trajectory in dict.fromkeys(trajectories):
        turns = [i for i, other in enumerate(trajectories) if other == trajectory]
        for i, value in zip(turns, returns_to_go([rewards[i] for i in turns], gamma_turn), strict=True):
            result[i] = value
    return tuple(result)


def generation_rewards(
    pass_rates: Sequence[float | None], absolute: float = 0.0, improvement: float = 1.0
) -> tuple[float | None, ...]:
    """Rewards of generating turns: ``absolute * rate + improvement * (rate - rate of the generation before)``.

    ``pass_rates`` [K], None at verifying turns -> [K], None there. The first generation earns its rate. ValueError.
    Source: ReVeal (2506.11442), TAPO, with ``absolute = 0`` and ``improvement = 1``.
    """
    finite("pass_rates", [rate for rate in pass_rates if rate is not None])
    rewards: list[float | None] = []
    before: float | None = None
    for rate in pass_rates:
        if rate is None:
            rewards.append(None)
            continue
        rewards.append(rate if before is None else absolute * rate + improvement * (rate - before))
        before = rate
    return tuple(rewards)


def tapo_returns(generation: Sequence[float | None], verification: Sequence[float | None]) -> tuple[float, ...]:
    """Returns per turn: a turn's own reward, and for a verifying turn also that of the generation right after it.

    ``generation``, ``verification`` [K]: rewards, each turn having exactly one of the two -> [K]. The outcome comes
    on top, at every token alike (token return with gamma = lambda = 1). Raises ValueError.
    Source: ReVeal (2506.11442), TAPO.
    """
    size = one_length(generation=generation, verification=verification)
    returns = []
    for k in range(size):
        own = [reward for reward in (generation[k], verification[k]) if reward is not None]
        if len(own) != 1:
            raise ValueError(f"turn {k} needs a generation or a verification reward, not {'both' if own else 'none'}")
        following = generation[k + 1] if verification[k] is not None and k + 1 < size else None
        returns.append(own[0] + (following or 0.0))
    return tuple(finite("returns", returns))
