"""Losses of critics that learn from stored data: over utterances (ArCHer) and over tokens (ILQL, Monte Carlo).

Critics come in twos, on the last axis: of two estimates of a value, the smaller is used, since the larger is more
often too high.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmturn.losses.sampled import at_sampled, wide


def squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """``(predictions - targets)^2``, element by element; the targets get no gradient."""
    return (wide(predictions) - wide(targets.detach())).square()


def td_targets(rewards: Tensor, next_values: Tensor, gamma: float, done: Tensor | None = None) -> Tensor:
    """``r + gamma V(s')``, detached; with ``done``, V(s') counts as 0 where it is 1. Shapes broadcast."""
    follow = wide(next_values.detach())
    if done is not None:
        # where, and not times 0: there may be no value at all after the end
        follow = torch.where(done.bool(), 0.0, follow)
    return wide(rewards.detach()) + gamma * follow


def archer_critic_loss(q: Tensor, v: Tensor, q_targets: Tensor, v_targets: Tensor) -> Tensor:
    """Squared errors of two Q, summed and averaged over [N, 2] utterances, and those of two V over [M, 2] states.

    ``q``: Q of the stored action. ``q_targets``: ``td_targets`` of the target network's two V of the next state.
    ``v_targets``: the target network's two Q of an action freshly sampled at the same state. Each of the two learns
    from its own target; none of a kind count 0. Scalar.

    Source: ArCHer (2402.19446), as in its code (archer/trainer.py), where each term is averaged over the batch.
    Differs: V may be learned at other states than Q, or at fewer.
    """
    pairs = ((q, q_targets), (v, v_targets))
    return torch.stack([squared_error(*pair).sum() / max(pair[0].shape[:-1].numel(), 1) for pair in pairs]).sum()


def archer_advantage(q: Tensor, v: Tensor) -> Tensor:
    """``min Q - min V`` over the last axis, [N, 2] each -> [N], detached: of an action freshly sampled, for the loss
    ``policy.pg_surrogate``. Source: ArCHer (2402.19446)."""
    return wide(q.detach()).amin(dim=-1) - wide(v.detach()).amin(dim=-1)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move each parameter and buffer of ``target`` the share ``tau`` of the way to that of ``source``, in place, in the
    target's precision; 1 copies.

    Source: ArCHer (2402.19446) with tau 0.1. Raises ValueError for a share out of 0..1 or modules that do not match.
    """
    if not 0 <= tau <= 1:
        raise ValueError(f"wanted 0 <= tau <= 1, got {tau}")
    olds, news = ([*module.parameters(), *module.buffers()] for module in (target, source))
    for old, new in zip(olds, news, strict=True):
        old.lerp_(new.to(old.dtype), tau)


def next_sampled(values: Tensor, final: Tensor, mask: Tensor) -> Tensor:
    """The value at the next sampled token of the row, [B, T]; ``final`` [B] after the last one; 0 where the mask is 0.

    The state after an action is where the policy acts next: observations between two turns are skipped. ``final`` is
    0 where the trajectory ended, and the value of its last state where it was cut off.
    """
    length = values.shape[1]
    place = torch.arange(length, device=values.device).where(mask.bool(), length)
    beyond = nn.functional.pad(place[:, 1:], (0, 1), value=length)
    following = beyond.flip(1).cummin(dim=1).values.flip(1)
    return at_sampled(torch.cat([at_sampled(values, mask), wide(final)[:, None]], dim=1).gather(1, following), mask)


def expectile_loss(values: Tensor, target_q: Tensor, tau: float) -> Tensor:
    """``w 0.5 (min Q - V)^2``, w = tau where ``min Q >= V`` and 1 - tau elsewhere.

    ``values`` [...], ``target_q`` [..., 2] (detached) -> [...]. With tau above 0.5, V leans to the better actions of
    the data. Source: IQL (2110.06169) eq. 5, ILQL (2206.11871).
    """
    target, values = wide(target_q.detach()).amin(dim=-1), wide(values)
    weight = torch.where(target >= values.detach(), tau, 1.0 - tau)
    return weight * 0.5 * squared_error(values, target)


def ilql_loss(
    q: Tensor,
    target_q: Tensor,
    q_logprobs: Tensor,
    values: Tensor,
    next_values: Tensor,
    rewards: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    tau: float,
    cql_weight: float,
) -> Tensor:
    """ILQL at each sampled token, [B, T], 0 where the mask is 0; its mean over tokens is the loss.

    ``sum_j 0.5 (Q_j - (r + gamma V'))^2 + expectile_loss(V, target Q) - cql_weight sum_j q_logprobs_j``

    ``q``, ``target_q`` [B, T, 2]: Q of the token in the data, of the critic and of its slow copy. ``q_logprobs``
    [B, T, 2]: that token's log-softmax among the Q of all tokens, whose negative is the cross-entropy that keeps Q low
    outside the data. ``values``, ``rewards`` [B, T]; ``next_values`` [B, T]: ``next_sampled``. Masked positions are
    never read.

    Source: ILQL (2206.11871), as in LMRL-Gym (2311.18232, ilql/base_interface.py).
    """
    both = mask[..., None]
    targets = td_targets(at_sampled(rewards, mask), at_sampled(next_values, mask), gamma)
    q_loss = 0.5 * squared_error(at_sampled(q, both), targets[..., None]).sum(dim=-1)
    v_loss = expectile_loss(at_sampled(values, mask), at_sampled(target_q, both), tau)
    cql = -at_sampled(q_logprobs, both).sum(dim=-1)
    return at_sampled(q_loss + v_loss + cql_weight * cql, mask)


def mc_loss(q: Tensor, q_logprobs: Tensor, returns: Tensor, mask: Tensor, cql_weight: float) -> Tensor:
    """``0.5 (Q - G)^2 - cql_weight q_logprobs`` at each sampled token, [B, T], 0 where the mask is 0.

    ``returns`` [B, T]: the discounted rewards from the token on, detached; ``q``, ``q_logprobs`` [B, T]: as for
    ``ilql_loss``, of one Q. Masked positions are never read.

    Source: LMRL-Gym (2311.18232, mc_returns/base_interface.py).
    """
    error = squared_error(at_sampled(q, mask), at_sampled(returns, mask))
    return at_sampled(0.5 * error - cql_weight * at_sampled(q_logprobs, mask), mask)
