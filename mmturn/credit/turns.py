"""Rewards per turn and per trajectory -> advantages per turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.credit.outcome import Single, Std, grpo
from mmturn.credit.tokens import one_length, sampled, scatter


@dataclass(frozen=True, slots=True)
class TwoTurn:
    """Advantages of one trajectory under MT-GRPO as published."""

    before: float
    """For tokens sampled before the first observation of a tool."""
    after: float
    """For tokens sampled after it."""


def mt_grpo_two_turn(
    turn_rewards: Sequence[float],
    outcome_rewards: Sequence[float],
    used_tool: Sequence[bool],
    coef: float = 1.0,
    std: Std = "unbiased",
    eps: float = 1e-4,
) -> list[TwoTurn]:
    """MT-GRPO for a tool call and an answer: the two rewards are normalised apart.

    All inputs [G]. Tokens before the first observation get ``outcome + coef * turn``, later ones ``outcome``; a
    trajectory without a tool result gets the advantage of the summed reward throughout.

    Source: Reinforcing Multi-Turn Reasoning in LLM Agents via Turn-Level Credit Assignment (2505.11821), as in its
    code (mt_grpo_env_trainer.py). Differs: the loss mask is never used as the attention mask.
    """
    one_length(turn_rewards=turn_rewards, outcome_rewards=outcome_rewards, used_tool=used_tool)
    turn, outcome = grpo(turn_rewards, std, eps), grpo(outcome_rewards, std, eps)
    both = grpo([t + o for t, o in zip(turn_rewards, outcome_rewards, strict=True)], std, eps)
    return [
        TwoTurn(outcome[i] + coef * turn[i], outcome[i]) if used else TwoTurn(both[i], both[i])
        for i, used in enumerate(used_tool)
    ]


def over_tokens(pair: TwoTurn, mask: Sequence[float], first_result: int | None) -> tuple[float, ...]:
    """A trajectory's two advantages over its tokens, as ``mask`` [T] -> [T], 0 where the mask is 0.

    ``first_result``: position of the first token of a tool's result; None where there is none. Raises ValueError.
    """
    at = sampled(mask)
    before = len(mask) if first_result is None else first_result
    return scatter(at, [pair.before if t < before else pair.after for t in at], len(mask))


def mt_grpo(
    turn_rewards: Sequence[Sequence[float]],
    outcome_rewards: Sequence[float],
    coef: float = 1.0,
    std: Std = "unbiased",
    eps: float = 1e-6,
    single: Single = "zero",
) -> list[tuple[float, ...]]:
    """MT-GRPO for any number of turns: ``A[i][k] = outcome[i] + coef * turn[i][k]``.

    ``turn_rewards`` [G][K_i] (ragged), ``outcome_rewards`` [G] -> [G][K_i]. Turn k is normalised over the
    trajectories that have a turn k, and is 0 where fewer than two do; a turn's reward credits that turn alone.

    Source: our generalisation of 2505.11821, which defines two turns. Differs: no separate rule for trajectories
    without a tool call; they take part in turn 0 like the others.
    """
    outcome = grpo(outcome_rewards, std, eps, single)
    advantages = [[value] * len(turns) for value, turns in zip(outcome, turn_rewards, strict=True)]
    for k in range(max(map(len, turn_rewards), default=0)):
        members = [i for i, turns in enumerate(turn_rewards) if len(turns) > k]
        for i, value in zip(members, grpo([turn_rewards[i][k] for i in members], std, eps), strict=True):
            advantages[i][k] += coef * value
    return [tuple(row) for row in advantages]
