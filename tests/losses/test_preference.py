from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from mmturn.losses.preference import (
    m_dpo_loss,
    m_kto_loss,
    mah_dpo_loss,
    orpo_loss,
    reference_point,
    summed_log_ratio,
    widest_pair,
)
from tests.vectors import VECTORS


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_m_dpo_vector() -> None:
    vector = VECTORS["m_dpo"]
    eta, wanted = vector["params"]["eta"], vector["expected"]

    def side(name: str, observed: bool = False, shift: float = 0.0) -> Tensor:
        logp, reference, mask = (torch.tensor([vector["inputs"][name][key]]) for key in ("logp", "ref", "mask"))
        return summed_log_ratio(logp + shift, reference, torch.ones_like(mask) if observed else mask)

    assert side("w").item() == pytest.approx(wanted["dw"], abs=1e-6)
    assert side("l").item() == pytest.approx(wanted["dl"], abs=1e-6)
    assert m_dpo_loss(side("w"), side("l"), eta).item() == pytest.approx(wanted["loss"], abs=1e-6)
    assert m_dpo_loss(side("w", shift=0.01), side("l"), eta).item() != pytest.approx(wanted["loss"], abs=1e-6)
    wrong = m_dpo_loss(side("w", observed=True), side("l", observed=True), eta).item()
    assert wrong == pytest.approx(wanted["WRONG_loss_unmasked_obs"], abs=1e-6)
    assert wrong != pytest.approx(wanted["loss"], abs=1e-6)


def test_observations_reach_neither_sum_nor_gradient() -> None:
    logprobs = torch.tensor([[-1.0, math.nan, -2.0]], requires_grad=True)
    reference = torch.tensor([[-2.0, math.inf, -2.0]], requires_grad=True)
    total = summed_log_ratio(logprobs, reference, torch.tensor([[1, 0, 1]]))
    total.sum().backward()
    assert total.tolist() == [1.0] and reference.grad is None
    assert logprobs.grad is not None and logprobs.grad.tolist() == [[1.0, 0.0, 1.0]]


def test_the_margin_shifts_the_pair_and_gets_no_gradient() -> None:
    chosen, rejected = random(2, 5)
    margin = (0.1 * chosen).requires_grad_()
    shifted = m_dpo_loss(chosen, rejected, 0.5, margin)
    assert torch.allclose(shifted, m_dpo_loss(chosen - margin.detach() / 0.5, rejected, 0.5))
    assert (m_dpo_loss(chosen, rejected, 0.5, 1.0) > m_dpo_loss(chosen, rejected, 0.5)).all()
    assert not shifted.requires_grad


def test_m_kto_vector() -> None:
    vector = VECTORS["m_kto"]
    u, label, p = torch.tensor(vector["inputs"]["u"]), torch.tensor(vector["inputs"]["label"]), vector["params"]
    z0, wanted = vector["inputs"]["z0"], pytest.approx(vector["expected"]["loss"], abs=1e-6)

    def call(utilities: Tensor, zero: float | Tensor, desirable: Tensor = label) -> list[float]:
        return m_kto_loss(utilities, desirable, zero, p["lambda_plus"], p["lambda_minus"], p["scale"]).tolist()

    assert call(u, z0) == wanted and call(u, torch.tensor(z0)) == wanted
    assert call(u + 0.01, z0) != wanted and call(u, z0 + 0.01) != wanted and call(u, z0, 1 - label) != wanted


def test_m_kto_weights_and_scale() -> None:
    u, label = torch.tensor([1.0, 1.0]), torch.tensor([True, False])
    good, bad = m_kto_loss(u, label, 0.0, 2.0, 3.0, scale=0.5).tolist()
    sigmoid = 1 / (1 + math.exp(-0.5))
    assert good == pytest.approx(2 * (1 - sigmoid)) and bad == pytest.approx(3 * sigmoid)


def test_the_reference_point_is_detached_and_not_negative() -> None:
    u = torch.tensor([0.5, 1.0], requires_grad=True)
    assert reference_point(u).item() == 0.75 and not reference_point(u).requires_grad
    assert reference_point(-u).item() == 0.0
    z0 = torch.tensor(0.3, requires_grad=True)
    m_kto_loss(u, torch.tensor([1, 0]), z0).sum().backward()
    assert z0.grad is None and u.grad is not None and u.grad[0] < 0 < u.grad[1]


@settings(max_examples=30, deadline=None)
@given(data=st.data(), pairs=st.integers(1, 8))
def test_mah_dpo_is_the_mean_over_heads_however_pairs_are_cut(data: Any, pairs: int) -> None:
    chosen, rejected = random(2, pairs, seed=data.draw(st.integers(0, 2**31)))
    head = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=pairs, max_size=pairs)))
    head_pairs = head.bincount(minlength=4)
    losses = m_dpo_loss(chosen, rejected, 0.1)
    wanted = torch.stack([losses[head == h].mean() for h in set(head.tolist())]).mean()
    cut = data.draw(st.integers(0, pairs))
    shares = [
        mah_dpo_loss(chosen[part], rejected[part], head[part], head_pairs)
        for part in (slice(0, cut), slice(cut, pairs))
    ]
    assert (shares[0] + shares[1]).item() == pytest.approx(wanted.item())


def test_orpo() -> None:
    chosen, rejected = torch.tensor([-0.5, -3.0], dtype=torch.float64), torch.tensor([-2.0, -0.1], dtype=torch.float64)

    def log_odds(logprob: float) -> float:
        return math.log(math.exp(logprob) / (1 - math.exp(logprob)))

    for margin in (0.0, 0.7):
        wanted = [
            -w + 0.2 * math.log1p(math.exp(-(log_odds(w) - log_odds(lose) - margin)))
            for w, lose in zip(chosen.tolist(), rejected.tolist(), strict=True)
        ]
        assert orpo_loss(chosen, rejected, 0.2, margin).tolist() == pytest.approx(wanted)
    certain = torch.zeros(1, requires_grad=True)
    loss = orpo_loss(certain, torch.full((1,), -1e4))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and certain.grad is not None and torch.isfinite(certain.grad).all()


def test_the_widest_pair() -> None:
    correct, wrong = [-1.0, -3.0, -2.0, -3.0], [-4.0, -0.5, -0.5]
    assert widest_pair(correct, wrong) == (1, 1)
    assert widest_pair(correct, wrong, against=False) == (0, 0)
    gaps = {(i, j): wrong[j] - correct[i] for i in range(4) for j in range(3)}
    assert gaps[widest_pair(correct, wrong)] == max(gaps.values())
    assert gaps[widest_pair(correct, wrong, against=False)] == min(gaps.values())
    with pytest.raises(ValueError):
        widest_pair([], wrong)


def test_gradients_are_those_of_finite_differences() -> None:
    chosen, rejected = random(2, 4).requires_grad_().unbind()
    head, head_pairs = torch.tensor([0, 1, 1, 3]), torch.tensor([1, 2, 0, 1])
    assert gradcheck(lambda w, v: m_dpo_loss(w, v, 0.7, 0.2), (chosen, rejected))
    assert gradcheck(lambda w, v: mah_dpo_loss(w, v, head, head_pairs), (chosen, rejected))
    assert gradcheck(lambda w, v: orpo_loss(-w.exp(), -v.exp(), 0.3, 0.1), (chosen, rejected))
    assert gradcheck(lambda u: m_kto_loss(u, torch.tensor([1, 0, 1, 0]), 0.1, 1.0, 2.0, 0.5), (chosen,))
