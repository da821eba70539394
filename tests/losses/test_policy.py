from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmturn.losses.policy import clipped_policy_loss, log_ratio

VECTORS = {
    v["id"]: v for v in json.loads((Path(__file__).parents[1] / "golden" / "rl_vectors.json").read_text())["vectors"]
}


def losses(ratio: list[float], advantage: float, low: float, high: float, dual: float | None) -> Tensor:
    logprobs = torch.tensor([ratio], dtype=torch.float64).log()
    zeros, ones = torch.zeros_like(logprobs), torch.ones_like(logprobs)
    return clipped_policy_loss(logprobs, zeros, advantage * ones, ones, low, high, dual).per_token[0]


def test_clip_higher_vector() -> None:
    vector = VECTORS["clip_higher"]
    ratio, p, wanted = vector["inputs"]["ratio"], vector["params"], vector["expected"]
    low, high, dual = p["eps_low"], p["eps_high"], p["c"]
    for advantage, top, key in (
        (1.0, high, "loss_adv_plus1"),
        (-1.0, high, "loss_adv_minus1"),
        (1.0, low, "loss_adv_plus1_sym02"),
    ):
        target, moved = torch.tensor(wanted[key]), [r * 1.01 for r in ratio]
        assert torch.allclose(losses(ratio, advantage, low, top, dual), target, rtol=0, atol=1e-6)
        assert not torch.allclose(losses(moved, advantage, low, top, dual), target, rtol=0, atol=1e-6)
        assert not torch.allclose(losses(ratio, advantage * 1.01, low, top, dual), target, rtol=0, atol=1e-6)
    assert losses(ratio, -1.0, low, high, None)[-1] == pytest.approx(4.0)


def test_masked_positions_are_never_read() -> None:
    new = torch.tensor([[-1.0, math.nan, math.inf, -2.0]], requires_grad=True)
    old = torch.tensor([[-1.0, -math.inf, math.nan, -1.5]])
    advantages = torch.tensor([[1.0, math.nan, 5.0, -1.0]])
    mask = torch.tensor([[1, 0, 0, 1]])
    out = clipped_policy_loss(new, old, advantages, mask)
    assert torch.isfinite(out.per_token).all() and out.per_token[0, 1:3].tolist() == [0.0, 0.0]
    out.per_token.sum().backward()
    assert new.grad is not None and torch.isfinite(new.grad).all() and new.grad[0, 1:3].tolist() == [0.0, 0.0]
    assert all(torch.isfinite(value) for value in out.sums.values())


def test_gradient_is_the_policy_gradient_on_policy_and_zero_when_clipped() -> None:
    old = torch.tensor([[-1.0, -2.0, -1.0, -1.0]])
    new = (old + torch.tensor([[0.0, 0.0, 1.0, -1.0]])).requires_grad_()
    advantages = torch.tensor([[2.0, -3.0, 1.0, -1.0]], requires_grad=True)
    out = clipped_policy_loss(new, old, advantages, torch.ones(1, 4))
    out.per_token.sum().backward()
    assert new.grad is not None and new.grad[0].tolist() == [-2.0, 3.0, 0.0, 0.0]
    assert advantages.grad is None
    assert out.sums["policy/clip_fraction_high"] == 1 and out.sums["policy/clip_fraction_low"] == 1
    assert out.sums["policy/clip_fraction_dual"] == 0


def test_dual_clip_is_counted_and_stops_the_gradient() -> None:
    old = torch.tensor([[-3.0]])
    new = torch.tensor([[-0.1]], requires_grad=True)
    out = clipped_policy_loss(new, old, torch.tensor([[-1.0]]), torch.ones(1, 1), dual_clip=3.0)
    out.per_token.sum().backward()
    assert out.per_token.item() == 3.0 and out.sums["policy/clip_fraction_dual"] == 1
    assert new.grad is not None and new.grad.item() == 0.0


def test_ratios_stay_finite_and_half_precision_is_widened() -> None:
    new, old, mask = torch.tensor([[0.0, -500.0]]), torch.tensor([[-500.0, 0.0]]), torch.ones(1, 2)
    assert log_ratio(new, old, mask).tolist() == [[20.0, -20.0]]
    out = clipped_policy_loss(new.bfloat16(), old.bfloat16(), -torch.ones(1, 2).bfloat16(), mask, dual_clip=None)
    assert out.per_token.dtype == torch.float32 and torch.isfinite(out.per_token).all()


@pytest.mark.parametrize(
    ("low", "high", "dual"), [(-0.1, 0.2, 3.0), (1.1, 0.2, 3.0), (0.2, -0.1, 3.0), (0.2, 0.2, 1.0)]
)
def test_impossible_ranges_are_refused(low: float, high: float, dual: float) -> None:
    with pytest.raises(ValueError, match="clip_low"):
        losses([1.0], 1.0, low, high, dual)
