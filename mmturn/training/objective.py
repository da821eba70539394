"""The loss of one micro-batch of reinforcement learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmturn.losses.aggregate import Denominators, aggregate, turn_counts
from mmturn.losses.correction import masked, mismatch, rollout_ratio, truncated
from mmturn.losses.kl import kl
from mmturn.losses.policy import PolicyLoss, cispo_surrogate, clip_surrogate, pg_surrogate, ratios
from mmturn.training.microbatches import MicroBatch
from mmturn.training.settings import CorrectionConfig, RlConfig
from mmturn.training.updater import Loss

if TYPE_CHECKING:
    from mmturn.models.policy import TokenScores

_MOMENTS = ("weight", "weight_squared")
_CLIPPED = tuple(f"policy/clip_fraction_{side}" for side in ("low", "high"))


@dataclass(frozen=True, slots=True)
class PolicyObjective:
    """The policy loss that the config names, with a KL and an entropy term where it has them."""

    config: RlConfig
    denominators: Denominators
    """Of all micro-batches and processes of the optimizer step."""
    at_rollout_weights: bool
    """Whether the weights are still those that sampled: only then is the gap between the sampler's log-probs and the
    new ones meaningful. Log-probs that were recomputed before the first step are compared at any step."""

    def __call__(self, scores: TokenScores, piece: MicroBatch) -> Loss:
        config, batch = self.config, piece.batch
        new, mask, rollout = scores.logprobs, batch.loss_mask, batch.old_logprobs
        old = new.detach() if config.old_logprobs == "detached" else piece.signals.get("old", rollout)
        policy = self._policy(new, old, piece)
        per_token, sums, maxima, weight = policy.per_token, dict(policy.sums), {}, None
        if config.correction.form != "off":
            weight = correction_weight(config.correction, old, rollout, mask)
            per_token = per_token * weight
            sums["policy/importance_weight"] = _total(weight, mask)
        if config.kl_coef:
            distance = kl(new, piece.signals["reference"], mask, config.kl_estimator)
            per_token = per_token + config.kl_coef * distance
            sums["policy/kl_reference"] = _total(distance, mask)
        if config.entropy_coef:
            per_token = per_token - config.entropy_coef * scores.entropy
        sums["policy/clip_fraction"] = sum((sums.get(key, mask.new_zeros(())) for key in _CLIPPED), mask.new_zeros(()))
        sums["policy/kl"] = kl(old, new, mask, "k3").detach().sum()
        sums["policy/entropy"] = _total(scores.entropy, mask)
        found = {key: (total.detach(), mask.sum()) for key, total in sums.items()}
        if self.at_rollout_weights or config.old_logprobs == "recompute":
            same = mask * piece.signals["present"] if "present" in piece.signals else mask
            gap = mismatch(old if config.old_logprobs == "recompute" else new, rollout, same, weight)
            found |= {f"mismatch/{name}": (getattr(gap, name), same.sum()) for name in ("gap", "k1", "k3", *_MOMENTS)}
            maxima["mismatch/max_ratio"] = gap.max_log_ratio.exp()
        return Loss(self._aggregated(per_token, piece), found, maxima)

    def _policy(self, new: Tensor, old: Tensor, piece: MicroBatch) -> PolicyLoss:
        config, batch = self.config, piece.batch
        advantages, mask = batch.advantages, batch.loss_mask
        if config.surrogate == "pg":
            return pg_surrogate(new, advantages, mask)
        ratio = ratios(new, old, mask, config.ratio, batch.turn_index)
        if config.surrogate == "cispo":
            return cispo_surrogate(ratio, new, advantages, mask, config.clip_low, config.clip_high)
        return clip_surrogate(ratio, advantages, mask, config.clip_low, config.clip_high, config.dual_clip or None)

    def _aggregated(self, per_token: Tensor, piece: MicroBatch) -> Tensor:
        config, mask, signals = self.config, piece.batch.loss_mask, piece.signals
        length = config.constant_length if config.aggregation == "constant_length" else None
        by_turn = config.aggregation in ("turn_mean", "turn_mean_global")
        turn_tokens = turn_counts(mask, piece.batch.turn_index)[0] if by_turn else None
        return aggregate(
            per_token, mask, config.aggregation, self.denominators, length,
            signals.get("trajectory_tokens"), turn_tokens, signals.get("trajectory_turns"),
        )  # fmt: skip


def with_sample_size(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of an optimizer step, with ``mismatch/ess_share`` in place of the moments of its weights: their effective
    sample size (sum w)^2 / sum w^2 over the number of tokens. Without a correction, weights are the token ratios."""
    found = dict(metrics)
    mean, square = (found.pop(f"mismatch/{name}", None) for name in _MOMENTS)
    if mean is not None and square is not None:
        found["mismatch/ess_share"] = mean * mean / square if square else 0.0
    return found


def correction_weight(config: CorrectionConfig, old: Tensor, rollout: Tensor, mask: Tensor) -> Tensor:
    """[B, T] importance weights of old log-probs of the trainer over those of the sampler, detached."""
    ratio = rollout_ratio(old, rollout, mask, config.level)
    return truncated(ratio, config.cap) if config.form == "truncate" else masked(ratio, config.cap, config.floor)


def _total(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.bool(), values.detach(), 0.0).sum()
