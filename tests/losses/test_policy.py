from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from mmturn.losses.aggregate import aggregate, count, turn_counts
from mmturn.losses.policy import (
    PolicyLoss,
    RatioUnit,
    cispo_surrogate,
    clip_surrogate,
    clipped_policy_loss,
    log_ratio,
    pg_surrogate,
    ratios,
)
from tests.vectors import VECTORS


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
        target, moved = torch.tensor(wanted[key], dtype=torch.float64), [r * 1.01 for r in ratio]
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


def test_float64_stays() -> None:
    new = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    old, mask = new - torch.tensor([[1e-10, 0.0]], dtype=torch.float64), torch.ones(1, 2)
    assert log_ratio(new, old, mask)[0, 0].item() == pytest.approx(1e-10, rel=1e-5)
    assert log_ratio(new.float(), old.float(), mask)[0, 0].item() == 0.0
    for unit in ("token", "sequence", "turn"):
        ratio = ratios(new, old, mask, unit, torch.zeros(1, 2).long())  # type: ignore[arg-type]
        assert ratio.dtype == torch.float64 and ratio[0, 0] > 1.0
        assert clip_surrogate(ratio, mask, mask).per_token.dtype == torch.float64


@pytest.mark.parametrize(
    ("low", "high", "dual"), [(-0.1, 0.2, 3.0), (1.1, 0.2, 3.0), (0.2, -0.1, 3.0), (0.2, 0.2, 1.0)]
)
def test_impossible_ranges_are_refused(low: float, high: float, dual: float) -> None:
    with pytest.raises(ValueError, match="clip_low"):
        losses([1.0], 1.0, low, high, dual)


def gspo(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float) -> PolicyLoss:
    return clip_surrogate(ratios(new, old, mask, "sequence"), advantages, mask, low, high, dual_clip=None)


def test_gspo_vector() -> None:
    vector = VECTORS["gspo"]
    new, old, mask = (torch.tensor(vector["inputs"][key]).double() for key in ("logp_new", "logp_old", "mask"))
    advantages = torch.tensor(vector["inputs"]["adv"]).double()[:, None].expand_as(new)
    low, high = vector["params"]["eps_low"], vector["params"]["eps_high"]

    def loss(moved: Tensor) -> float:
        out = gspo(moved, old, advantages, mask, low, high).per_token
        return aggregate(out, mask, "seq_mean_token_mean", count(mask)).item()

    assert ratios(new, old, mask, "sequence")[:, 0].tolist() == pytest.approx(vector["expected"]["s"], abs=1e-6)
    assert loss(new) == pytest.approx(vector["expected"]["loss"], abs=1e-6)
    assert loss(new + 0.01 * torch.tensor([[0.0], [1.0]])) != pytest.approx(vector["expected"]["loss"], abs=1e-6)
    assert gspo(new, old, advantages, mask, low, high).sums["policy/clip_fraction_high"] == 3


def test_cispo_vector() -> None:
    vector = VECTORS["cispo"]
    ratio, new, advantages = (torch.tensor([vector["inputs"][key]]).double() for key in ("ratio", "logp_new", "adv"))
    low, high = vector["params"]["eps_low"], vector["params"]["eps_high"]
    new.requires_grad_()

    def out(moved: Tensor) -> PolicyLoss:
        return cispo_surrogate(moved, new, advantages, torch.ones_like(new), low, high)

    wanted = pytest.approx(vector["expected"]["loss"], abs=1e-6)
    assert out(ratio).per_token[0].tolist() == wanted and out(ratio * 1.01).per_token[0].tolist() != wanted
    out(ratio).per_token.sum().backward()
    assert new.grad is not None and (-new.grad)[0].tolist() == pytest.approx(vector["expected"]["weight_sg"], abs=1e-6)
    assert out(ratio).sums["policy/clip_fraction_high"] == 3 and out(ratio).sums["policy/clip_fraction_low"] == 0
    bounded = cispo_surrogate(ratio, new, advantages, torch.ones_like(new), 0.2, high)
    assert bounded.per_token[0, 0].item() == pytest.approx(-0.8 * vector["inputs"]["logp_new"][0])
    assert bounded.sums["policy/clip_fraction_low"] == 2


def batch(rows: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """New and old log-probs, advantages equal within a row, a mask and turns, in float64; NaN where nothing is read."""
    generator = torch.Generator().manual_seed(seed)
    new = -3 * torch.rand(rows, width, generator=generator, dtype=torch.float64)
    old = new + 0.4 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    advantages = torch.randn(rows, 1, generator=generator, dtype=torch.float64).expand(rows, width).clone()
    mask = torch.rand(rows, width, generator=generator) < 0.7
    turns = torch.randint(0, 3, (rows, width), generator=generator).cumsum(dim=1).masked_fill(~mask, -1)
    old[~mask], advantages[~mask] = math.nan, math.inf
    return new, old, advantages, mask, turns


UNITS: tuple[RatioUnit, ...] = ("token", "sequence", "turn")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 4), width=st.integers(1, 7), unit=st.sampled_from(UNITS))
def test_masked_positions_reach_no_value_and_no_gradient(seed: int, rows: int, width: int, unit: RatioUnit) -> None:
    new, old, advantages, mask, turns = batch(rows, width, seed)
    poisoned = torch.where(mask, new, math.nan).requires_grad_()
    turns = turns.masked_fill(~mask, 10**6)
    ratio = ratios(poisoned, old, mask, unit, turns)
    assert (ratio[~mask] == 1).all()
    for out in (
        clip_surrogate(ratio, advantages, mask),
        clip_surrogate(torch.where(mask, ratio, math.nan), advantages, mask),
        cispo_surrogate(torch.where(mask, ratio, math.nan), poisoned, advantages, mask),
        pg_surrogate(poisoned, advantages, mask),
    ):
        (gradient,) = torch.autograd.grad(out.per_token.sum(), poisoned, retain_graph=True)
        assert torch.isfinite(out.per_token).all() and torch.isfinite(gradient).all()
        assert not out.per_token[~mask].any() and not gradient[~mask].any()
        assert all(torch.isfinite(value) for value in out.sums.values())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), width=st.integers(1, 7))
def test_units_of_one_token_have_the_token_ratio(seed: int, width: int) -> None:
    new, old, _, _, _ = batch(1, width, seed)
    old = torch.where(torch.isfinite(old), old, new)
    mask = torch.ones_like(new)
    wanted = ratios(new, old, mask)
    assert torch.allclose(ratios(new, old, mask, "turn", torch.arange(width)[None]), wanted)
    assert torch.allclose(ratios(new.T, old.T, mask.T, "sequence"), wanted.T)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 4), width=st.integers(2, 7))
def test_a_turn_is_a_sequence_of_its_own(seed: int, rows: int, width: int) -> None:
    new, old, _, mask, turns = batch(rows, width, seed)
    ratio = ratios(new, old, mask, "turn", turns)
    for turn in range(int(turns.max()) + 1):
        own = turns == turn
        assert torch.allclose(ratio[own], ratios(new, old, own, "sequence")[own])
    one = ratios(new, old, mask, "turn", turns.clamp(max=0))
    assert torch.allclose(one, ratios(new, old, mask, "sequence"))


@pytest.mark.parametrize("unit", ["sequence", "turn"])
def test_the_form_per_token_has_the_gradient_of_the_mean(unit: RatioUnit) -> None:
    """Against the surrogate of the geometric means themselves, differentiated as they stand."""
    new, old, advantages, mask, turns = batch(4, 6, 3)
    new.requires_grad_()
    loss = clip_surrogate(ratios(new, old, mask, unit, turns), advantages, mask, 0.1, 0.1, None).per_token
    tokens, turn_number = turn_counts(mask, turns)
    mode = "seq_mean_token_mean" if unit == "sequence" else "turn_mean"
    value = aggregate(loss, mask, mode, count(mask), turn_tokens=tokens, trajectory_turns=turn_number)
    (got,) = torch.autograd.grad(value, new)

    plain = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        units = [mask[row]] if unit == "sequence" else [turns[row] == turn for turn in set(turns[row].tolist()) - {-1}]
        for own in units:
            s, a = (new[row][own] - old[row][own]).mean().exp(), advantages[row][own][0]
            plain = plain + torch.maximum(-a * s, -a * s.clamp(0.9, 1.1)) / len(units)
    (wanted,) = torch.autograd.grad(plain / count(mask).sequences, new)
    assert value.item() == pytest.approx(plain.item() / count(mask).sequences)
    assert torch.allclose(got, wanted) and wanted.any()


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_finite_differences(seed: int) -> None:
    new, old, advantages, mask, _ = batch(2, 4, seed)
    ratio = ratios(new, old, mask)
    new.requires_grad_()
    assert gradcheck(lambda x: clipped_policy_loss(x, old, advantages, mask, 0.2, 0.28, 1.5).per_token, new)
    assert gradcheck(lambda x: cispo_surrogate(ratio, x, advantages, mask, 0.2, 0.2).per_token, new)
    assert gradcheck(lambda x: pg_surrogate(x, advantages, mask).per_token, new)
    # summed, since the form per token moves the gradient between tokens of a row, not the row's
    assert gradcheck(lambda x: gspo(x, old, advantages, mask, 0.1, 0.1).per_token.sum(), new)


def test_only_new_logprobs_get_a_gradient() -> None:
    new, old, advantages, _, _ = batch(2, 4, 0)
    mask, turns = torch.ones(2, 4), torch.zeros(2, 4).long()
    old, advantages = new.clone().requires_grad_(), torch.ones_like(new).requires_grad_()
    new.requires_grad_()
    for unit in UNITS:
        ratio = ratios(new, old, mask, unit, turns)
        for out in (clip_surrogate(ratio, advantages, mask), cispo_surrogate(ratio, new, advantages, mask)):
            out.per_token.sum().backward()
            assert old.grad is None and advantages.grad is None
            assert new.grad is not None and torch.allclose(new.grad, torch.full_like(new, -1.0))
            assert not any(value.requires_grad for value in out.sums.values())
            new.grad = None
    pg_surrogate(new, advantages, mask).per_token.sum().backward()
    assert advantages.grad is None and new.grad is not None and (new.grad == -1).all()


def test_means_are_cut_above_10() -> None:
    new, old, mask = torch.tensor([[0.0, -1.0]]), torch.tensor([[-500.0, -1.0]]), torch.ones(1, 2)
    for unit in ("sequence", "turn"):
        ratio = ratios(new, old, mask, unit, torch.zeros(1, 2).long())  # type: ignore[arg-type]
        assert ratio.tolist() == [[pytest.approx(math.exp(10.0))] * 2]
    assert ratios(old, new, mask, "sequence").tolist() == [[0.0, 0.0]]


def test_bad_arguments() -> None:
    ones = torch.ones(1, 2)
    with pytest.raises(ValueError, match="needs turn_index"):
        ratios(ones, ones, ones, "turn")
    with pytest.raises(ValueError, match="token, sequence or turn"):
        ratios(ones, ones, ones, "row")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clip_low"):
        cispo_surrogate(ones, ones, ones, ones, clip_low=-1.0)
