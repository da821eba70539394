"""Generalised advantage estimation over tokens, over turns, and over both.

No function whitens its advantages; ``whiten.whiten`` does, over a batch. ``bootstrap`` is the value after the last
step: 0 where the policy ended the trajectory, a critic's value where a limit did.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmturn.credit.tokens import discount, finite, one_length, sampled, scatter


def gae(
    rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float, bootstrap: float = 0.0
) -> tuple[float, ...]:
    """Advantages of consecutive steps: ``A[t] = d[t] + gamma lam A[t+1]`` with ``d[t] = r[t] + gamma V[t+1] - V[t]``.

    ``rewards``, ``values`` [K] of turns -> [K]; with one value per turn this is turn-level GAE. Raises ValueError.
    Source: GAE (1506.02438) eq. 16; over turns: VAGEN, vagen/custom_advantage/no_concat_gae.py.
    """
    one_length(rewards=rewards, values=values)
    discount("gamma", gamma)
    discount("lam", lam)
    later, result = 0.0, []
    (following,) = finite("bootstrap", [bootstrap])
    for reward, value in zip(reversed(finite("rewards", rewards)), reversed(finite("values", values)), strict=True):
        later = reward + gamma * following - value + gamma * lam * later
        following = value
        result.append(later)
    return tuple(reversed(result))


def length_lam(length: int, alpha: float) -> float:
    """Lambda of a response of ``length`` sampled tokens, ``1 - 1 / (alpha length)``, at least 0. Raises ValueError.

    Source: VAPO's length-adaptive GAE, as UI-TARS-2 (2509.02544) uses it, alpha 0.05. Differs: the length is that of
    all sampled tokens of a trajectory, and short ones get 0 where the formula would be negative.
    """
    if alpha <= 0 or length < 1:
        raise ValueError(f"wanted alpha > 0 and length >= 1, got {alpha} and {length}")
    return max(1.0 - 1.0 / (alpha * length), 0.0)


def token_gae(
    rewards: Sequence[float],
    values: Sequence[float],
    mask: Sequence[float],
    gamma: float,
    lam: float,
    bootstrap: float = 0.0,
) -> tuple[float, ...]:
    """GAE in which the step after a sampled token is the next sampled token, whatever observation lies between.

    All [T] -> [T], 0 where the mask is 0. Raises ValueError.
    Source: verl/trainer/ppo/core_algos.py, compute_gae_advantage_return.
    """
    at = sampled(mask, rewards=rewards, values=values)
    steps = gae([rewards[t] for t in at], [values[t] for t in at], gamma, lam, bootstrap)
    return scatter(at, steps, len(mask))


def bilevel_gae(
    rewards: Sequence[float],
    values: Sequence[float],
    mask: Sequence[float],
    turn_ends: Sequence[int],
    gamma: float,
    lam: float,
    gamma_turn: float,
    bootstrap: float = 0.0,
) -> tuple[float, ...]:
    """GAE over turns with ``gamma_turn``, then inside each turn over its tokens with ``gamma``.

    All [T] but ``turn_ends`` [K]: positions of each turn's last sampled token -> [T], 0 where the mask is 0. A turn's
    reward and value sit on its last token, whose advantage is the turn's; inside the turn the reward there is
    advantage plus value. A reward elsewhere credits tokens of its own turn only. Raises ValueError, also where the
    last sampled token ends no turn.

    Source: RAGEN's ragen/trainer/core_algos.py, compute_bi_level_gae_advantage_return; VAGEN; Video-MTR (2508.20478)
    section 3.3. Differs: turn ends are given, where RAGEN takes the tokens of non-zero reward, and so loses every
    turn whose reward is 0.
    """
    at = sampled(mask, rewards=rewards, values=values)
    ends = list(turn_ends)
    if ends != sorted(set(ends)) or not set(ends) <= set(at) or ends[-1:] != at[-1:]:
        raise ValueError(f"turn_ends must rise over sampled positions up to the last, {at[-1:]}; got {ends}")
    turns = gae([rewards[end] for end in ends], [values[end] for end in ends], gamma_turn, lam, bootstrap)
    of_end = dict(zip(ends, turns, strict=True))
    advantages: list[float] = []
    turn: list[int] = []
    for t in at:
        turn.append(t)
        if t in of_end:
            inner = [*(rewards[s] for s in turn[:-1]), of_end[t] + values[t]]
            advantages += gae(inner, [values[s] for s in turn], gamma, lam)
            turn = []
    return scatter(at, advantages, len(mask))


def value_targets(
    advantages: Sequence[float], values: Sequence[float], mask: Sequence[float] | None = None
) -> tuple[float, ...]:
    """What a critic regresses to, ``advantage + value``, before any whitening.

    ``advantages``, ``values`` [T] -> [T], 0 where ``mask`` [T] is 0 (None: all count, as with turns). ValueError.
    """
    at = sampled([1] * len(values) if mask is None else mask, advantages=advantages, values=values)
    return scatter(at, [advantages[t] + values[t] for t in at], len(values))
