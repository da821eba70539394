"""Losses over pairs or labels of whole trajectories.

Each starts from one number per trajectory, a sum (or, for ORPO, a mean) over the sampled tokens of all its turns;
observations never count. Of a trajectory that is spread over several rows, the caller adds the sums of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmturn.losses.sampled import difference, wide

CERTAIN = -1e-6
"""Mean log-probs are cut here before odds are taken, which are infinite at 0."""


def summed_log_ratio(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """``sum(logprobs - reference)`` over the sampled tokens of each row: [B, T] each -> [B]. The reference gets no
    gradient, and masked positions are never read."""
    return difference(logprobs, reference, mask).sum(dim=1)


def m_dpo_loss(chosen: Tensor, rejected: Tensor, eta: float, margin: Tensor | float = 0.0) -> Tensor:
    """``-log sigmoid(eta (chosen - rejected) - margin)`` of each pair, [N].

    ``chosen``, ``rejected`` [N]: ``summed_log_ratio`` of the two trajectories. ``margin`` (a number or [N], detached):
    how far the pair has to lie apart. It is 0 in DPO, and in M-DPO where an environment answers the same action with
    the same observation; where it does not, the margin stands for the difference in expected value that chance made.

    Source: DPO (2305.18290) eq. 7; M-DPO: Building Math Agents with Multi-Turn Iterative Preference Learning
    (2409.02392) eq. 13. Differs: the value differences of stochastic environments are the caller's, as the margin.
    """
    return -F.logsigmoid(eta * (wide(chosen) - wide(rejected)) - _fixed(margin))


def reference_point(utilities: Tensor) -> Tensor:
    """``max(0, mean)`` of the utilities of a batch, [N] -> a detached scalar: the z0 of ``m_kto_loss``.

    Over trajectories that the current policy sampled, the mean of eta times the summed log-ratio estimates eta times
    the KL divergence to the reference. Take it over the whole batch: it does not add up over micro-batches.

    Source: KTO (2402.01306). Differs: KTO takes the mean over completions paired with another prompt.
    """
    return wide(utilities.detach()).mean().clamp(min=0.0)


def m_kto_loss(
    utilities: Tensor,
    desirable: Tensor,
    z0: Tensor | float,
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
    scale: float = 1.0,
) -> Tensor:
    """``w (1 - sigmoid(scale (u - z0)))`` where desirable, ``w (1 - sigmoid(scale (z0 - u)))`` where not: [N].

    ``utilities`` [N]: eta times ``summed_log_ratio``. ``desirable`` [N]: true or 1 for good trajectories. ``z0``: the
    utility that counts as neutral, detached.

    Source: M-KTO (2409.02392) eq. 15. Differs: as printed, eta multiplies again inside the sigmoid; here ``scale``
    does, and is 1.
    """
    good, ahead = desirable.bool(), scale * (wide(utilities) - _fixed(z0))
    wrong = 1.0 - torch.sigmoid(torch.where(good, ahead, -ahead))
    return torch.where(good, weight_desirable, weight_undesirable) * wrong


def mah_dpo_loss(chosen: Tensor, rejected: Tensor, head: Tensor, head_pairs: Tensor, beta: float = 0.1) -> Tensor:
    """The share of some pairs in the mean over heads of each head's mean DPO loss; shares sum to the loss.

    ``chosen``, ``rejected`` [N]: ``summed_log_ratio`` under the head that the pair belongs to, ``head`` [N].
    ``head_pairs`` [H]: pairs of each head in the whole batch; heads without a pair do not count.

    Source: MAH-DPO (2510.01167), as in its code (mahdpo_trainers.py). Differs: denominators of the whole batch, where
    the code averages over micro-batches.
    """
    heads = (head_pairs > 0).sum().clamp(min=1)
    return (m_dpo_loss(chosen, rejected, beta) / head_pairs[head]).sum() / heads


def orpo_loss(chosen: Tensor, rejected: Tensor, weight: float = 0.1, margin: Tensor | float = 0.0) -> Tensor:
    """``-chosen - weight log sigmoid(log odds(chosen) - log odds(rejected) - margin)`` of each pair, [N].

    ``chosen``, ``rejected`` [N]: mean log-prob over the sampled tokens of the two trajectories (no reference policy);
    the odds of a mean log-prob l are ``exp(l) / (1 - exp(l))``.

    Source: ORPO (2403.07691) eq. 6 and 7, margin 0. RoseRAG (2502.10993) trains pairs of ``widest_pair`` with it,
    according to third parties; its own text is unverified. Differs: mean log-probs are cut at -1e-6; a margin.
    """
    gap = _log_odds(chosen) - _log_odds(rejected) - _fixed(margin)
    return -wide(chosen) - weight * F.logsigmoid(gap)


def widest_pair(chosen: Sequence[float], rejected: Sequence[float], against: bool = True) -> tuple[int, int]:
    """Which candidates make the pair with the largest gap in likelihood: indices into the two.

    Inputs: mean log-probs of correct and of wrong candidates under the policy. ``against``: the gap is the lead of
    the wrong one, so that the pair is what the policy gets most wrong (the least likely correct candidate, the most
    likely wrong one); else the lead of the correct one. The first of equals counts. Raises ValueError where either
    is empty.

    Source: the selection of RoseRAG (2502.10993) according to third parties; its own text is unverified.
    """
    sign = 1.0 if against else -1.0
    return (
        min(range(len(chosen)), key=lambda index: sign * chosen[index]),
        max(range(len(rejected)), key=lambda index: sign * rejected[index]),
    )


def _log_odds(mean_logprob: Tensor) -> Tensor:
    below = wide(mean_logprob).clamp(max=CERTAIN)
    return below - (-below.expm1()).log()


def _fixed(number: Tensor | float) -> Tensor | float:
    return wide(number.detach()) if isinstance(number, Tensor) else number
