from __future__ import annotations

import math

import pytest
import torch

from mmturn.losses.sampled import at_sampled, difference, row_mean, turn_sums


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.int64, torch.float32),
    ],
)
def test_reading_widens_and_never_narrows(given: torch.dtype, read: torch.dtype) -> None:
    ones = torch.ones(1, 2, dtype=given)
    assert at_sampled(ones, torch.tensor([[1, 0]])).dtype == read
    assert difference(ones, ones, torch.ones(1, 2)).dtype == read


def test_what_is_not_sampled_reaches_neither_value_nor_gradient() -> None:
    values = torch.tensor([[1.0, math.nan, math.inf, 3.0]], requires_grad=True)
    mask = torch.tensor([[1, 0, 0, 1]])
    others = torch.tensor([[0.5, math.inf, math.nan, 1.0]], requires_grad=True)
    assert at_sampled(values, mask).tolist() == [[1.0, 0.0, 0.0, 3.0]]
    assert row_mean(values, mask).tolist() == [[2.0]]
    gap = difference(values, others, mask)
    assert gap.tolist() == [[0.5, 0.0, 0.0, 2.0]]
    gap.square().sum().backward()
    assert values.grad is not None and values.grad.tolist() == [[1.0, 0.0, 0.0, 4.0]]
    assert others.grad is None


def test_a_row_without_a_sampled_token_has_mean_0() -> None:
    assert row_mean(torch.full((1, 3), math.nan), torch.zeros(1, 3)).tolist() == [[0.0]]


def test_sums_over_turns() -> None:
    values = torch.tensor([[1.0, 2.0, math.nan, 4.0, 8.0], [16.0, 32.0, 64.0, math.inf, math.nan]])
    turn_index = torch.tensor([[0, 0, -1, 2, 2], [1, 0, 1, -1, 99]])
    sums, turn = turn_sums(values, turn_index.ge(0) & torch.isfinite(values), turn_index)
    assert sums.tolist() == [[3.0, 0.0, 12.0], [32.0, 80.0, 0.0]]
    assert turn.tolist() == [[0, 0, 0, 2, 2], [1, 0, 1, 0, 0]]


def test_a_sampled_token_needs_a_turn() -> None:
    with pytest.raises(ValueError, match="belongs to no turn"):
        turn_sums(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([[0, -1]]))
