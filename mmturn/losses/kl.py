"""Estimators of the KL divergence from a reference policy, per sampled token."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmturn.losses.sampled import at_sampled, difference

KlEstimator = Literal["k1", "k2", "k3"]
"""k1: log-ratio; k2: half its square; k3: ratio - 1 - log-ratio."""


def kl(
    logprobs: Tensor,
    reference: Tensor,
    mask: Tensor,
    estimator: KlEstimator = "k3",
    clamp_difference: float | None = None,
    clamp_value: float | None = None,
) -> Tensor:
    """Estimate of ``KL(policy || reference)`` at each sampled token, [B, T] float32 or wider, 0 where the mask is 0.

    With ``d = logprobs - reference``: k1 = d, k2 = d**2 / 2, k3 = exp(-d) - 1 + d. The reference gets no gradient.
    k1 and k3 estimate the value without bias; used as a loss, k2 alone has the gradient of the KL on average (that
    of k1 averages to zero). ``clamp_difference`` cuts d and ``clamp_value`` the result to +- that (verl: 20 and 10).

    Source: Schulman, Approximating KL Divergence (2020). Raises ValueError for an unknown estimator.
    """
    ahead = difference(logprobs, reference, mask)
    if clamp_difference is not None:
        ahead = ahead.clamp(-clamp_difference, clamp_difference)
    if estimator == "k1":
        value = ahead
    elif estimator == "k2":
        value = 0.5 * ahead.square()
    elif estimator == "k3":
        value = (-ahead).exp() - 1.0 + ahead
    else:
        raise ValueError(f"KL estimator must be k1, k2 or k3, got {estimator!r}")
    if clamp_value is not None:
        value = value.clamp(-clamp_value, clamp_value)
    return at_sampled(value, mask)
