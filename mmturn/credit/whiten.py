"""Normalising within whatever belongs together: a group, a role, a task, or all tokens of a batch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from mmturn.credit.outcome import Single, Std, grpo, mean, spread, zero_variance
from mmturn.credit.returns import token_returns
from mmturn.credit.tokens import one_length, sampled, scatter


def normalise_by(
    keys: Sequence[Hashable], values: Sequence[float], std: Std = "unbiased", eps: float = 1e-8, single: Single = "zero"
) -> tuple[float, ...]:
    """``(value - mean) / (std + eps)`` within the values of the same key, in the order given.

    ``keys``, ``values`` [N] -> [N]; see ``outcome.grpo`` for equal values and lone ones. A value may be a
    trajectory's, a turn's or a token's. Raises ValueError.

    Source, by key: group, GRPO (2402.03300); role, PAG's RoleAdvNorm (2506.10406), over turns or tokens, unbiased;
    task, AgentRL's task advantage normalisation (2510.04206) eq. 1, over all loss tokens, population, eps 0.
    """
    one_length(keys=keys, values=values)
    members: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key, []).append(i)
    result = [0.0] * len(values)
    for positions in members.values():
        normalised = grpo([values[i] for i in positions], std, eps, single)
        for i, value in zip(positions, normalised, strict=True):
            result[i] = value
    return tuple(result)


def whiten(
    rows: Sequence[Sequence[float]], masks: Sequence[Sequence[float]], eps: float = 1e-8
) -> list[tuple[float, ...]]:
    """``(x - mean) / sqrt(var + eps)`` over all sampled tokens of a batch together, with the unbiased variance.

    ``rows``, ``masks`` [B][T_b], ragged or padded -> the same shape, 0 where the mask is 0, and 0 throughout where
    all sampled values are equal or there is only one. Raises ValueError.
    Source: verl/utils/torch_functional.py, masked_whiten. Differs: verl refuses a batch of one token.
    """
    one_length(rows=rows, masks=masks)
    positions = [sampled(mask, row=row) for row, mask in zip(rows, masks, strict=True)]
    values = [float(row[t]) for row, at in zip(rows, positions, strict=True) for t in at]
    if zero_variance(values):
        return [(0.0,) * len(row) for row in rows]
    centre, scale = mean(values), math.sqrt(spread(values, "unbiased") ** 2 + eps)
    return [
        scatter(at, [(row[t] - centre) / scale for t in at], len(row)) for row, at in zip(rows, positions, strict=True)
    ]


def reinforce_pp(
    token_rewards: Sequence[Sequence[float]], masks: Sequence[Sequence[float]], gamma: float = 1.0
) -> list[tuple[float, ...]]:
    """REINFORCE++: discounted returns over sampled tokens, whitened over the batch.

    ``token_rewards`` (a KL penalty included), ``masks`` [B][T_b] -> the same shape. Raises ValueError.
    Source: REINFORCE++ (2501.03262). Differs: see ``returns.token_returns``.
    """
    one_length(token_rewards=token_rewards, masks=masks)
    returns = [token_returns(row, mask, gamma) for row, mask in zip(token_rewards, masks, strict=True)]
    return whiten(returns, masks)


def reinforce_pp_baseline(
    scores: Sequence[float], groups: Sequence[Hashable], masks: Sequence[Sequence[float]]
) -> list[tuple[float, ...]]:
    """REINFORCE++-baseline: scores minus their group's mean, copied to the tokens and whitened over the batch.

    ``scores``, ``groups`` [B], ``masks`` [B][T_b] -> [B][T_b]. A long trajectory weighs more in the statistics.
    Raises ValueError.
    Source: REINFORCE++ (2501.03262); verl/trainer/ppo/core_algos.py. Differs: the score of a group of one is centred
    to 0, where verl keeps it.
    """
    one_length(scores=scores, groups=groups, masks=masks)
    centred = normalise_by(groups, scores, std="none")
    return whiten([[value] * len(mask) for value, mask in zip(centred, masks, strict=True)], masks)
