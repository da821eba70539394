from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmturn.losses.correction import (
    Mismatch,
    RatioLevel,
    batch_normalised,
    masked,
    mismatch,
    rollout_ratio,
    sequence_ratio,
    truncated,
    weight_total,
)
from mmturn.losses.policy import clipped_policy_loss
from tests.vectors import VECTORS

LEVELS: tuple[RatioLevel, ...] = ("token", "sequence", "geometric")


def results(old: Tensor, rollout: Tensor, mask: Tensor, cap: float, floor: float) -> dict[str, Tensor]:
    ratio = rollout_ratio(old, rollout, mask)
    weights = truncated(ratio, cap)
    metrics = mismatch(old, rollout, mask, weights).metrics()
    return {
        "ratio": ratio,
        "token_tis": weights,
        "token_mask_gtC": masked(ratio, cap),
        "two_sided_mask": masked(ratio, cap, floor),
        "seq_ratio": sequence_ratio(old, rollout, mask),
        "seq_tis": truncated(sequence_ratio(old, rollout, mask), cap),
        "seq_geo_ratio": sequence_ratio(old, rollout, mask, geometric=True),
        "token_tis_batchnorm": batch_normalised(weights, *weight_total(weights, mask)),
        "ess_token": torch.tensor(metrics["mismatch/ess"]),
        "kl_k1": torch.tensor(metrics["mismatch/k1"]),
        "kl_k3": torch.tensor(metrics["mismatch/k3"]),
    }


def test_vector() -> None:
    vector = VECTORS["tis"]
    old, rollout, mask = (torch.tensor(vector["inputs"][key]) for key in ("logp_train_old", "logp_rollout", "mask"))
    cap, floor = vector["params"]["C"], vector["params"]["C_low"]
    got = results(old, rollout, mask, cap, floor)
    moved = results(old + 0.05 * torch.eye(2, 4), rollout, mask, cap, floor)
    unread = results(old + 100 * (1 - mask), rollout / mask, mask, cap, floor)
    assert set(got) == set(vector["expected"])
    for key, value in vector["expected"].items():
        wanted = torch.tensor(value)
        assert torch.allclose(got[key], wanted, rtol=0, atol=2e-6), key
        assert not torch.allclose(moved[key], wanted, rtol=0, atol=2e-6), key
        assert torch.equal(unread[key], got[key]), key


def batch(data: Any, rows: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    old = -3 * torch.rand(rows, width, generator=generator, dtype=torch.float64)
    rollout = old + 0.5 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, width, generator=generator) < 0.6
    return torch.where(mask, old, math.nan), torch.where(mask, rollout, math.inf), mask


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=st.integers(1, 5), width=st.integers(1, 6), level=st.sampled_from(LEVELS))
def test_no_bound_leaves_the_ratio(data: Any, rows: int, width: int, level: RatioLevel) -> None:
    old, rollout, mask = batch(data, rows, width)
    ratio = rollout_ratio(old, rollout, mask, level)
    assert torch.isfinite(ratio).all() and not ratio[~mask].any()
    assert torch.equal(truncated(ratio, math.inf), ratio) and torch.equal(masked(ratio, math.inf), ratio)
    for row in range(rows):
        gap = (old - rollout)[row][mask[row]]
        if len(gap):
            wanted = {"token": gap, "sequence": gap.sum().expand_as(gap), "geometric": gap.mean().expand_as(gap)}
            assert torch.allclose(ratio[row][mask[row]], wanted[level].exp())


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=st.integers(1, 6), width=st.integers(1, 6), level=st.sampled_from(LEVELS))
def test_parts_add_up_to_the_whole(data: Any, rows: int, width: int, level: RatioLevel) -> None:
    old, rollout, mask = batch(data, rows, width)
    weights = truncated(rollout_ratio(old, rollout, mask, level), 1.5)
    whole, (total, number) = mismatch(old, rollout, mask, weights), weight_total(weights, mask, level)
    cut = data.draw(st.integers(1, rows))
    parts: list[Mismatch] = []
    sums, numbers = torch.zeros(()), torch.zeros(())
    for part in (slice(0, cut), slice(cut, rows)):
        if len(old[part]):
            parts.append(mismatch(old[part], rollout[part], mask[part], weights[part]))
            share = weight_total(weights[part], mask[part], level)
            sums, numbers = sums + share[0], numbers + share[1]
    joined = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    assert joined.metrics() == pytest.approx(whole.metrics())
    normalised = batch_normalised(weights, total, number)
    assert torch.allclose(batch_normalised(weights, sums, numbers), normalised)
    if number:
        mean, count = weight_total(normalised, mask, level)
        assert (mean / count).item() == pytest.approx(1.0) or not weights.any()


def test_rows_and_not_tokens_are_averaged_where_rows_share_a_weight() -> None:
    weights, mask = torch.tensor([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert [float(part) for part in weight_total(weights, mask, "sequence")] == [4.0, 2.0]
    assert [float(part) for part in weight_total(weights, mask, "token")] == [6.0, 4.0]
    assert batch_normalised(0 * weights, torch.zeros(()), torch.tensor(4)).tolist() == (0 * weights).tolist()


def test_weights_get_no_gradient_and_multiply_the_clipped_loss() -> None:
    new = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    old = torch.tensor([[-1.5, -1.0]], requires_grad=True)
    rollout = torch.tensor([[-2.5, -1.0]], requires_grad=True)
    mask = torch.ones(1, 2)
    for level in LEVELS:
        weight = truncated(rollout_ratio(old, rollout, mask, level), 2.0)
        assert not weight.requires_grad
    weight = truncated(rollout_ratio(old, rollout, mask), 2.0)
    loss = clipped_policy_loss(new, old, mask, mask).per_token * weight
    loss.sum().backward()
    assert loss.tolist() == [[pytest.approx(-2.56), -1.0]]
    assert new.grad is not None and new.grad.tolist() == [[0.0, -1.0]]
    assert old.grad is None and rollout.grad is None
    assert not any(getattr(mismatch(old, rollout, mask), name).requires_grad for name in Mismatch.__slots__)


def test_the_report_of_equal_and_of_far_engines() -> None:
    old, mask = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[1, 1, 0]])
    same = mismatch(old, old, mask).metrics()
    assert same == {
        "mismatch/gap": 0.0,
        "mismatch/k1": 0.0,
        "mismatch/k3": 0.0,
        "mismatch/max_ratio": 1.0,
        "mismatch/ess": 2.0,
        "mismatch/ess_share": 1.0,
    }
    far = mismatch(old, torch.tensor([[-1.0, -500.0, math.nan]]), mask).metrics()
    assert all(math.isfinite(value) for value in far.values()) and far["mismatch/gap"] == 10.0
    assert mismatch(old, old + 1, mask).metrics()["mismatch/max_ratio"] == pytest.approx(math.exp(-1.0))
    assert mismatch(old, old, torch.zeros(1, 3)).metrics() == {}
    assert mismatch(old, old, mask, torch.zeros(1, 3)).metrics()["mismatch/ess"] == 0.0
    assert sequence_ratio(old, old + math.nan, torch.zeros(1, 3)).tolist() == [1.0]


def test_bad_arguments() -> None:
    ones = torch.ones(1, 2)
    with pytest.raises(ValueError, match="token, sequence or geometric"):
        rollout_ratio(ones, ones, ones, "row")  # type: ignore[arg-type]
    for cap in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="above 0"):
            truncated(ones, cap)
    for cap, floor in ((2.0, 2.0), (2.0, -0.1), (math.nan, 0.0)):
        with pytest.raises(ValueError, match="floor < cap"):
            masked(ones, cap, floor)
