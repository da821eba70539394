"""Rewards -> returns, over tokens or turns."""

from __future__ import annotations

from collections.abc import Sequence

from mmturn.credit.tokens import discount, finite, sampled, scatter


def returns_to_go(rewards: Sequence[float], gamma: float) -> tuple[float, ...]:
    """What is still to come at each step: ``sum over k >= t of gamma^(k-t) rewards[k]``.

    ``rewards`` [K] of turns, or [T] of tokens -> the same shape. Raises ValueError.
    Source: LMRL-Gym (2311.18232), Monte-Carlo returns.
    """
    discount("gamma", gamma)
    total, result = 0.0, []
    for reward in reversed(finite("rewards", rewards)):
        total = reward + gamma * total
        result.append(total)
    return tuple(reversed(result))


def token_returns(rewards: Sequence[float], mask: Sequence[float], gamma: float) -> tuple[float, ...]:
    """Return-to-go over sampled tokens alone: an observation passes a return on and costs no discount.

    ``rewards`` [T], read where ``mask`` [T] is 1 -> [T], 0 elsewhere. Raises ValueError.
    Source: REINFORCE++ (2501.03262). Differs from verl (verl/trainer/ppo/core_algos.py), which multiplies the running
    return by the mask, so that nothing before an observation earns anything.
    """
    positions = sampled(mask, rewards=rewards)
    return scatter(positions, returns_to_go([rewards[t] for t in positions], gamma), len(mask))
