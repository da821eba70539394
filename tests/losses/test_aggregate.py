from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmturn.losses.aggregate import Aggregation, Denominators, aggregate, count

VECTORS = {
    v["id"]: v for v in json.loads((Path(__file__).parents[1] / "golden" / "rl_vectors.json").read_text())["vectors"]
}
MODES: tuple[Aggregation, ...] = ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "constant_length")


@pytest.mark.parametrize(
    ("key", "mode", "sequences"),
    [
        ("token-mean", "token_mean", None),
        ("seq-mean-token-mean", "seq_mean_token_mean", None),
        ("seq-mean-token-sum", "seq_mean_token_sum", None),
        ("seq-mean-token-sum_incl_masked_seq", "seq_mean_token_sum", 3),
        ("dr_grpo_const(Lmax=6, /N=3)", "constant_length", 3),
        ("verl seq-mean-token-sum-norm(Lmax=6, no /N)", "constant_length", 1),
    ],
)
def test_vectors(key: str, mode: Aggregation, sequences: int | None) -> None:
    vector = VECTORS["loss_aggregation"]
    loss, mask = torch.tensor(vector["inputs"]["loss"]), torch.tensor(vector["inputs"]["mask"])
    counts = count(mask)
    assert counts == Denominators(8, 2)
    if sequences is not None:
        counts = Denominators(counts.tokens, sequences)

    def call(values: Tensor) -> float:
        return aggregate(values, mask, mode, counts, length=vector["params"]["Lmax"]).item()

    assert call(loss) == pytest.approx(vector["expected"][key], abs=1e-6)
    assert call(loss + 0.01 * torch.eye(3, 6)) != pytest.approx(vector["expected"][key], abs=1e-6)
    assert call(loss + 100 * (1 - mask)) == pytest.approx(vector["expected"][key], abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=st.integers(1, 7), width=st.integers(1, 6), mode=st.sampled_from(MODES))
def test_any_cut_into_micro_batches_and_ranks_gives_the_same_gradient(
    data: Any, rows: int, width: int, mode: Aggregation
) -> None:
    seed = data.draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(rows, width, generator=generator) < 0.6).float()
    values = torch.randn(rows, width, generator=generator)
    whole = values.clone().requires_grad_()
    counts = count(mask)
    total = aggregate(whole.square(), mask, mode, counts, length=5.0)
    total.backward()
    assert whole.grad is not None

    order = torch.randperm(rows, generator=generator)
    cuts = sorted(data.draw(st.sets(st.integers(1, rows), max_size=3)) | {rows})
    parts = [order[a:b] for a, b in zip([0, *cuts], cuts, strict=False) if b > a]
    summed = Denominators(0, 0)
    for part in parts:
        summed = summed + count(mask[part])
    assert summed == counts
    pieces, loss = values.clone().requires_grad_(), 0.0
    for part in parts:  # each part padded further, as another micro-batch would be
        padding = torch.zeros(len(part), 2)
        tokens = torch.cat([pieces[part].square(), padding], dim=1)
        share = aggregate(tokens, torch.cat([mask[part], padding], dim=1), mode, summed, length=5.0)
        share.backward()
        loss += share.item()
    assert loss == pytest.approx(total.item(), abs=1e-5)
    assert pieces.grad is not None and torch.allclose(pieces.grad, whole.grad, atol=1e-6)


def test_a_trajectory_in_several_rows_weighs_like_one_in_one_row() -> None:
    whole, mask = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 0.0, 0.0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    wanted = aggregate(whole, mask, "seq_mean_token_mean", count(mask))
    split = torch.tensor([[1.0, 0.0, 0.0], [2.0, 3.0, 4.0], [5.0, 6.0, 0.0]])
    split_mask = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0]])
    tokens = torch.tensor([4, 4, 2])
    got = aggregate(split, split_mask, "seq_mean_token_mean", Denominators(6, 2), trajectory_tokens=tokens)
    assert got.item() == pytest.approx(wanted.item())
    assert aggregate(split, split_mask, "seq_mean_token_mean", Denominators(6, 2)).item() != pytest.approx(
        wanted.item()
    )


@pytest.mark.parametrize("mode", MODES)
def test_nothing_sampled_gives_zero_with_a_gradient_path(mode: Aggregation) -> None:
    values = torch.full((2, 3), float("nan"), requires_grad=True)
    mask = torch.zeros(2, 3)
    loss = aggregate(values, mask, mode, count(mask), length=4.0)
    loss.backward()
    assert loss.item() == 0.0 and values.grad is not None and not values.grad.any()


def test_bad_arguments() -> None:
    ones = torch.ones(1, 2)
    for length in (None, 0.0, -1.0):
        with pytest.raises(ValueError, match="positive length"):
            aggregate(ones, ones, "constant_length", count(ones), length=length)
    with pytest.raises(ValueError, match="unknown aggregation"):
        aggregate(ones, ones, "mean", count(ones))  # type: ignore[arg-type]
