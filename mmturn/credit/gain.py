"""IGPO: how much each turn raises the probability of the gold answer.

Source of all: Information Gain-based Policy Optimization (2510.14967) and its repository: scrl/llm_agent/generation.py,
verl/utils/reward_score/info_gain.py and, for the two pools, verl/trainer/ppo/core_algos.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from mmturn.credit.outcome import mean, spread, zero_variance
from mmturn.credit.returns import returns_to_go
from mmturn.credit.tokens import finite, one_length

Gain = Literal["prob", "logprob"]
"""Difference of probabilities (the paper) or of mean log-probs (the repository's script of February 2026)."""
Pool = Literal["joint", "separate"]
"""Gains and outcomes normalised together, or each among themselves (the repository's default)."""


def gold_logprob(token_logprobs: Sequence[float]) -> float:
    """Mean log-prob of the gold answer's tokens [N] after one prefix; ``exp`` of it is the probability ``P``.

    Raises ValueError for a gold answer without tokens.
    """
    if not token_logprobs:
        raise ValueError("a gold answer without tokens has no log-prob")
    return mean(finite("token_logprobs", token_logprobs))


def information_gains(prefixes: Sequence[Sequence[float]], gain: Gain = "prob") -> tuple[float, ...]:
    """What each turn but the last adds: ``P[t] - P[t-1]``, or the same of log-probs.

    ``prefixes`` [K][N]: log-probs of the gold tokens before turn 0 and after each observation -> [K-1] for turns
    0..K-2; turn K-1 answers and earns the outcome. Probabilities telescope: the gains sum to ``P[-1] - P[0]``.
    Raises ValueError.
    """
    levels = [gold_logprob(tokens) for tokens in prefixes]
    if gain == "prob":
        levels = [math.exp(level) for level in levels]
    return tuple(after - before for before, after in pairwise(levels))


def igpo(
    gains: Sequence[Sequence[float]],
    outcomes: Sequence[float],
    gamma: float = 1.0,
    pool: Pool = "separate",
    eps: float = 1e-6,
) -> list[tuple[float, ...]]:
    """Advantages per turn: turn rewards normalised over the group first, then summed up from each turn on.

    ``gains`` [G][K_i - 1] (ragged), ``outcomes`` [G], the reward of each last turn -> [G][K_i] with
    ``A[t] = sum over k >= t of gamma^(k-t) n[k]``, ``n = (r - mean) / (sqrt(var + 1e-8) + eps)``, population
    variance over all turn rewards of a pool. A pool of equal rewards gives exact zeros. Raises ValueError.

    Differs: turns are given, where the repository takes the tokens of non-zero reward, and so merges a turn that
    gains exactly 0 with the next.
    """
    one_length(gains=gains, outcomes=outcomes)
    sizes = [len(row) for row in gains]
    flat = [value for row in gains for value in row]
    if pool == "joint":
        both = _normalise([*flat, *outcomes], eps)
        gained, answered = both[: len(flat)], both[len(flat) :]
    else:
        gained, answered = _normalise(flat, eps), _normalise(outcomes, eps)
    result, start = [], 0
    for size, last in zip(sizes, answered, strict=True):
        result.append(returns_to_go([*gained[start : start + size], last], gamma))
        start += size
    return result


def _normalise(values: Sequence[float], eps: float) -> list[float]:
    numbers = finite("turn rewards", values)
    if zero_variance(numbers):
        return [0.0] * len(numbers)
    centre, scale = mean(numbers), math.sqrt(spread(numbers, "population") ** 2 + 1e-8) + eps
    return [(number - centre) / scale for number in numbers]
