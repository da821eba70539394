"""Reference vectors of losses put to the package: one adapter per vector id.

An adapter knows the names of inputs, parameters and results, and which functions answer them; never a value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mmturn.losses.aggregate import Denominators, aggregate, count, turn_counts
from mmturn.losses.correction import (
    batch_normalised,
    masked,
    mismatch,
    rollout_ratio,
    sequence_ratio,
    truncated,
    weight_total,
)
from mmturn.losses.critics import archer_advantage, expectile_loss, squared_error, td_targets
from mmturn.losses.kl import kl
from mmturn.losses.policy import cispo_surrogate, clip_ratio, clip_surrogate, ratios
from mmturn.losses.preference import m_dpo_loss, m_kto_loss, summed_log_ratio
from mmturn.losses.sampled import row_mean
from mmturn.losses.value import clipped_value_loss

Inputs = Mapping[str, Any]
Adapter = Callable[[Inputs, Inputs, Collection[str]], dict[str, Any]]
"""(inputs, params, keys asked for) -> results by key, as plain numbers and lists; it may answer more than is asked."""


def tis(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """Weights for the gap between sampler and trainer, and its report."""
    old, rollout, mask = (_float64(inputs[key]) for key in ("logp_train_old", "logp_rollout", "mask"))
    cap, floor = params["C"], params["C_low"]
    ratio = rollout_ratio(old, rollout, mask)
    weights = truncated(ratio, cap)
    product = sequence_ratio(old, rollout, mask)
    metrics = mismatch(old, rollout, mask, weights).metrics()
    return {
        "ratio": ratio.tolist(),
        "token_tis": weights.tolist(),
        "token_mask_gtC": masked(ratio, cap).tolist(),
        "two_sided_mask": masked(ratio, cap, floor).tolist(),
        "seq_ratio": product.tolist(),
        "seq_tis": truncated(product, cap).tolist(),
        "seq_geo_ratio": sequence_ratio(old, rollout, mask, geometric=True).tolist(),
        "token_tis_batchnorm": batch_normalised(weights, *weight_total(weights, mask)).tolist(),
        "ess_token": metrics["mismatch/ess"],
        "kl_k1": metrics["mismatch/k1"],
        "kl_k3": metrics["mismatch/k3"],
    }


def clip_higher(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """The clipped surrogate for advantages of 1 and -1."""
    ratio = _float64([inputs["ratio"]])
    low, high = params["eps_low"], params["eps_high"]

    def losses(advantage: float, clip_high: float) -> list[float]:
        advantages, ones = torch.full_like(ratio, advantage), torch.ones_like(ratio)
        return clip_surrogate(ratio, advantages, ones, low, clip_high, params["c"]).per_token[0].tolist()

    return {
        "loss_adv_plus1": losses(1.0, high),
        "loss_adv_minus1": losses(-1.0, high),
        f"loss_adv_plus1_sym{low}".replace(".", ""): losses(1.0, low),
    }


def loss_aggregation(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """One number from losses per token; where the key says so, rows without a sampled token count too."""
    loss, mask = _float64(inputs["loss"]), _float64(inputs["mask"])
    length, rows, counts = int(params["Lmax"]), len(loss), count(mask)
    every = Denominators(counts.tokens, rows)
    one = Denominators(counts.tokens, 1)
    return {
        "token-mean": aggregate(loss, mask, "token_mean", counts).item(),
        "seq-mean-token-mean": aggregate(loss, mask, "seq_mean_token_mean", counts).item(),
        "seq-mean-token-sum": aggregate(loss, mask, "seq_mean_token_sum", counts).item(),
        "seq-mean-token-sum_incl_masked_seq": aggregate(loss, mask, "seq_mean_token_sum", every).item(),
        f"dr_grpo_const(Lmax={length}, /N={rows})": aggregate(loss, mask, "constant_length", every, length).item(),
        f"verl seq-mean-token-sum-norm(Lmax={length}, no /N)": aggregate(
            loss, mask, "constant_length", one, length
        ).item(),
    }


def mgrpo_aggregation(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """Means over turns, and means of these."""
    loss, turn_index = _float64(inputs["loss"]), torch.tensor(inputs["turn_id(-1=obs)"], dtype=torch.int64)
    mask = turn_index >= 0
    counts = count(mask, turn_index)
    turn_tokens, turns = turn_counts(mask, turn_index)

    def turn_mean(row: int, turn: int) -> float:
        own = turn_index[row : row + 1] == turn
        return aggregate(loss[row : row + 1], own, "token_mean", count(own)).item()

    return {
        "turn_means": [
            [turn_mean(row, turn) for turn in sorted(set(indices.tolist()) - {-1})]
            for row, indices in enumerate(turn_index)
        ],
        "traj_turn_token_mean": aggregate(
            loss, mask, "turn_mean", counts, turn_tokens=turn_tokens, trajectory_turns=turns
        ).item(),
        "turn_mean_global": aggregate(loss, mask, "turn_mean_global", counts, turn_tokens=turn_tokens).item(),
        "token_mean": aggregate(loss, mask, "token_mean", counts).item(),
    }


def gspo(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """The clipped surrogate of ratios over sequences. The token ratios are asked for at every position."""
    new, old, mask = (_float64(inputs[key]) for key in ("logp_new", "logp_old", "mask"))
    low, high = params["eps_low"], params["eps_high"]
    advantages = _float64(inputs["adv"])[:, None].expand_as(new)
    ratio = ratios(new, old, mask, "sequence")
    loss = clip_surrogate(ratio, advantages, mask, low, high, dual_clip=None).per_token
    return {
        "s": row_mean(ratio, mask)[:, 0].tolist(),
        "s_clipped": row_mean(clip_ratio(ratio, low, high), mask)[:, 0].tolist(),
        "seq_loss": row_mean(loss, mask)[:, 0].tolist(),
        "loss": aggregate(loss, mask, "seq_mean_token_mean", count(mask)).item(),
        "token_ratios": ratios(new, old, torch.ones_like(mask)).tolist(),
    }


def cispo(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """The surrogate that clips a token's weight."""
    ratio, new, advantages = (_float64([inputs[key]]) for key in ("ratio", "logp_new", "adv"))
    low, high = params["eps_low"], params["eps_high"]
    loss = cispo_surrogate(ratio, new, advantages, torch.ones_like(new), low, high)
    return {"weight_sg": clip_ratio(ratio, low, high)[0].tolist(), "loss": loss.per_token[0].tolist()}


def kl_estimators(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """The three estimators of the KL divergence."""
    new, reference = _float64([inputs["logp"]]), _float64([inputs["logp_ref"]])
    ones = torch.ones_like(new)
    return {
        "k1": kl(new, reference, ones, "k1")[0].tolist(),
        "k2": kl(new, reference, ones, "k2")[0].tolist(),
        "k3": kl(new, reference, ones, "k3")[0].tolist(),
    }


def value_clip(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """The clipped loss of a value head."""
    new, old, returns = (_float64([inputs[key]]) for key in ("v_new", "v_old", "return"))
    ones = torch.ones_like(new)
    loss = clipped_value_loss(new, old, returns, ones, params["clip"]).per_token
    return {"per_token": loss[0].tolist(), "mean": aggregate(loss, ones, "token_mean", count(ones)).item()}


def m_dpo(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """The loss of one pair. The key of the known mistake is not answered."""
    chosen, rejected = (
        summed_log_ratio(*(_float64([inputs[side][key]]) for key in ("logp", "ref", "mask"))) for side in ("w", "l")
    )
    loss = m_dpo_loss(chosen, rejected, params["eta"])
    return {"dw": chosen.item(), "dl": rejected.item(), "loss": loss.item()}


def m_kto(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """The loss of labelled trajectories."""
    loss = m_kto_loss(
        _float64(inputs["u"]),
        torch.tensor(inputs["label"]),
        inputs["z0"],
        params["lambda_plus"],
        params["lambda_minus"],
        params["scale"],
    )
    return {"loss": loss.tolist()}


def archer_targets(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """Targets, errors and advantage of the double critic over utterances."""
    reward, done, following, target_q, q, v = (
        _float64(inputs[key]) for key in ("reward", "done", "V_targ_next", "Q_targ_pi", "q", "v")
    )
    targets = td_targets(reward, following, params["gamma"], done)
    return {
        "q_target": targets.tolist(),
        "q_loss": squared_error(q, targets).tolist(),
        "v_loss": squared_error(v, target_q).tolist(),
        "adv_min_q_minus_min_v": archer_advantage(target_q, v).item(),
    }


def ilql(inputs: Inputs, params: Inputs, keys: Collection[str]) -> dict[str, Any]:
    """Errors of the double critic over tokens."""
    reward, following, q, target_q, v = (_float64(inputs[key]) for key in ("r", "v_next", "q", "target_q", "v"))
    targets = td_targets(reward, following, params["gamma"])
    return {
        "q_loss": (0.5 * squared_error(q, targets)).tolist(),
        "v_loss": expectile_loss(v, target_q, params["tau"]).item(),
    }


def _float64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


ADAPTERS: dict[str, Adapter] = {
    "tis": tis,
    "clip_higher": clip_higher,
    "loss_aggregation": loss_aggregation,
    "mgrpo_aggregation": mgrpo_aggregation,
    "gspo": gspo,
    "cispo": cispo,
    "kl": kl_estimators,
    "value_clip": value_clip,
    "m_dpo": m_dpo,
    "m_kto": m_kto,
    "archer_targets": archer_targets,
    "ilql": ilql,
}
"""By vector id."""
