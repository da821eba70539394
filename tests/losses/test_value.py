from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from mmturn.losses.value import anchors, clipped_value_loss, return_fit
from tests.vectors import VECTORS


def test_vector() -> None:
    vector = VECTORS["value_clip"]
    new, old, returns = (torch.tensor([vector["inputs"][key]]) for key in ("v_new", "v_old", "return"))
    mask, clip = torch.ones_like(new), vector["params"]["clip"]
    wanted = torch.tensor(vector["expected"]["per_token"])

    def call(values: Tensor, before: Tensor) -> Tensor:
        return clipped_value_loss(values, before, returns, mask, clip).per_token[0]

    assert torch.allclose(call(new, old), wanted, rtol=0, atol=1e-6)
    assert call(new, old).mean().item() == pytest.approx(vector["expected"]["mean"], abs=1e-6)
    assert not torch.allclose(call(new + 0.01, old), wanted, rtol=0, atol=1e-6)
    assert not torch.allclose(call(new, old + 0.01), wanted, rtol=0, atol=1e-6)


def test_masked_positions_are_never_read_and_targets_get_no_gradient() -> None:
    values = torch.tensor([[0.9, math.nan, -0.4]], requires_grad=True)
    old = torch.tensor([[0.5, math.inf, 0.1]], requires_grad=True)
    returns = torch.tensor([[1.0, math.nan, 0.0]], requires_grad=True)
    mask = torch.tensor([[1, 0, 1]])
    out = clipped_value_loss(values, old, returns, mask, 0.2)
    out.per_token.sum().backward()
    assert out.per_token[0, 1] == 0 and torch.isfinite(out.per_token).all()
    assert values.grad is not None and values.grad[0].tolist() == [0.0, 0.0, pytest.approx(-0.4)]
    assert old.grad is None and returns.grad is None
    assert out.sums["value/mean"].item() == pytest.approx(0.5) and out.sums["value/clip_fraction"] == 1


def test_no_clip_is_half_the_squared_error() -> None:
    values, returns, mask = torch.tensor([[0.9, -3.0]]), torch.tensor([[1.0, 2.0]]), torch.ones(1, 2)
    out = clipped_value_loss(values, torch.zeros(1, 2), returns, mask, math.inf)
    assert torch.equal(out.per_token, 0.5 * (values - returns).square()) and out.sums["value/clip_fraction"] == 0
    with pytest.raises(ValueError, match="clip >= 0"):
        clipped_value_loss(values, values, returns, mask, -0.1)


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    values, old, returns = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 5, generator=generator) < 0.7
    values.requires_grad_()
    assert gradcheck(lambda x: clipped_value_loss(x, old, returns, mask, 0.3).per_token, values)


def test_explained_variance() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 4.0, math.nan]]), torch.tensor([[1, 1, 1, 0]])
    assert return_fit(returns, returns, mask).explained_variance() == 1.0
    assert return_fit(returns + 7, returns, mask).explained_variance() == pytest.approx(1.0)
    assert return_fit(torch.zeros(1, 4), returns, mask).explained_variance() == pytest.approx(0.0)
    assert return_fit(-returns, returns, mask).explained_variance() == pytest.approx(-3.0)
    same = torch.full((1, 4), 0.1)
    assert return_fit(returns, same, mask).explained_variance() is None
    assert return_fit(returns, returns, torch.zeros(1, 4)).explained_variance() is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(2, 6), cut=st.integers(1, 5))
def test_the_fit_of_parts_adds_up(seed: int, rows: int, cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values, returns = torch.randn(2, rows, 4, generator=generator)
    mask = torch.rand(rows, 4, generator=generator) < 0.8
    mask[0, :3] = True
    parts = [
        return_fit(values[p], returns[p], mask[p]) for p in (slice(0, min(cut, rows)), slice(min(cut, rows), rows))
    ]
    total = (parts[0] + parts[1]).explained_variance()
    chosen, wanted = values[mask].double(), returns[mask].double()
    assert total == pytest.approx((1 - (wanted - chosen).var(correction=0) / wanted.var(correction=0)).item())


TURNS = torch.tensor([[-1, 0, 0, -1, 1, 1, 1, -1], [2, 2, -1, 2, -1, 3, -1, -1], [0, 1, 2, -1, -1, -1, -1, -1]])
SAMPLED = (TURNS >= 0).long()


def test_anchors_are_the_first_or_last_token_of_each_turn() -> None:
    assert anchors(SAMPLED, TURNS) is SAMPLED
    first = [[0, 1, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]]
    last = [[0, 0, 1, 0, 0, 0, 1, 0], [0, 0, 0, 1, 0, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]]
    assert anchors(SAMPLED, TURNS, "first").tolist() == first
    assert anchors(SAMPLED, TURNS, "last").tolist() == last


def test_a_turn_that_is_not_trained_on_has_no_anchor() -> None:
    mask = SAMPLED * (TURNS != 0)
    assert anchors(mask, TURNS, "first").tolist()[0] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert not anchors(torch.zeros_like(SAMPLED), TURNS, "last").any()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_each_turn_has_one_anchor(lengths: list[int], dice: random.Random) -> None:
    row = [turn for turn, length in enumerate(lengths) for turn in [turn] * length + [-1] * dice.randint(0, 2)] or [-1]
    turns = torch.tensor([row])
    mask = (turns >= 0).long()
    for at in ("first", "last"):
        found = turns[anchors(mask, turns, at).bool()].tolist()  # type: ignore[arg-type]
        assert found == [turn for turn, length in enumerate(lengths) if length]
