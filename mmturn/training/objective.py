"""The loss of one micro-batch of reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmturn.losses.aggregate import Denominators, aggregate
from mmturn.losses.kl import kl
from mmturn.losses.policy import clipped_policy_loss, log_ratio
from mmturn.training.microbatches import MicroBatch
from mmturn.training.settings import RlConfig
from mmturn.training.updater import Loss

if TYPE_CHECKING:
    from mmturn.models.policy import TokenScores


@dataclass(frozen=True, slots=True)
class PolicyObjective:
    """Clipped policy loss, with a KL term where the config has one."""

    config: RlConfig
    denominators: Denominators
    """Of all micro-batches and processes of the optimizer step."""
    at_rollout_weights: bool
    """Whether the weights are still those that sampled: only then is the gap to the sampler's log-probs meaningful."""

    def __call__(self, scores: TokenScores, piece: MicroBatch) -> Loss:
        config, batch = self.config, piece.batch
        new, mask = scores.logprobs, batch.loss_mask
        old = new.detach() if config.old_logprobs == "detached" else piece.signals.get("old", batch.old_logprobs)
        policy = clipped_policy_loss(
            new, old, batch.advantages, mask, config.clip_low, config.clip_high, config.dual_clip or None
        )
        per_token, tokens = policy.per_token, mask.sum()
        sums = dict(policy.sums)
        if config.importance_cap:
            weight = log_ratio(old, batch.old_logprobs, mask).exp().clamp(max=config.importance_cap)
            per_token = per_token * weight
            sums["policy/importance_weight"] = _total(weight, mask)
        if config.kl_coef:
            distance = kl(new, piece.signals["reference"], mask, config.kl_estimator)
            per_token = per_token + config.kl_coef * distance
            sums["policy/kl_reference"] = _total(distance, mask)
        sums["policy/clip_fraction"] = sums["policy/clip_fraction_low"] + sums["policy/clip_fraction_high"]
        sums["policy/kl"] = kl(old, new, mask, "k3").detach().sum()
        sums["policy/entropy"] = _total(scores.entropy, mask)
        maxima = {}
        if self.at_rollout_weights:
            gap = log_ratio(new.detach(), batch.old_logprobs, mask)
            sums["policy/logprob_gap"] = gap.abs().sum()
            sums["policy/logprob_gap_k3"] = kl(batch.old_logprobs, new.detach(), mask, "k3").sum()
            maxima["policy/logprob_gap_max"] = gap.abs().max()
        length = config.constant_length if config.aggregation == "constant_length" else None
        value = aggregate(
            per_token, mask, config.aggregation, self.denominators, length, piece.signals.get("trajectory_tokens")
        )
        return Loss(value, {key: (total.detach(), tokens) for key, total in sums.items()}, maxima)


def _total(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.bool(), values.detach(), 0.0).sum()
