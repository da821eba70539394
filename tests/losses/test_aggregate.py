from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmturn.losses.aggregate import Aggregation, Denominators, aggregate, count, turn_counts
from tests.vectors import VECTORS

MODES: tuple[Aggregation, ...] = ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "constant_length")
TURN_MODES: tuple[Aggregation, ...] = ("turn_mean", "turn_mean_global")


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


def test_turn_vector() -> None:
    vector = VECTORS["mgrpo_aggregation"]
    loss, turn_index = torch.tensor(vector["inputs"]["loss"]), torch.tensor(vector["inputs"]["turn_id(-1=obs)"])
    mask = turn_index >= 0
    tokens, turns = turn_counts(mask, turn_index)
    assert tokens.tolist() == [[2, 2, 0, 0, 4, 4, 4, 4], [3, 3, 3, 0, 0, 0, 0, 0]] and turns.tolist() == [2, 1]
    counts = count(mask, turn_index)
    assert counts == Denominators(9, 2, 3)

    def call(values: Tensor, mode: Aggregation) -> float:
        return aggregate(values, mask, mode, counts, turn_tokens=tokens, trajectory_turns=turns).item()

    for key, mode in (
        ("traj_turn_token_mean", TURN_MODES[0]),
        ("turn_mean_global", TURN_MODES[1]),
        ("token_mean", MODES[0]),
    ):
        wanted = pytest.approx(vector["expected"][key], abs=1e-6)
        assert call(loss, mode) == wanted and call(loss + 100 * ~mask, mode) == wanted
        assert call(loss + 0.01 * torch.eye(2, 8), mode) != wanted


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


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=st.integers(1, 7), width=st.integers(1, 8), mode=st.sampled_from(TURN_MODES))
def test_turns_weigh_the_same_however_trajectories_are_cut_into_rows_and_micro_batches(
    data: Any, rows: int, width: int, mode: Aggregation
) -> None:
    """Each turn becomes a row of its own, as with a context that is rewritten each turn; rows are then shuffled."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    mask = torch.rand(rows, width, generator=generator) < 0.7
    turn_index = torch.randint(0, 2, (rows, width), generator=generator).cumsum(dim=1).masked_fill(~mask, -1)
    values = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    tokens, turns = turn_counts(mask, turn_index)
    counts = count(mask, turn_index)
    whole = values.clone().requires_grad_()
    total = aggregate(whole.square(), mask, mode, counts, turn_tokens=tokens, trajectory_turns=turns)
    total.backward()

    places = [(row, turn) for row in range(rows) for turn in range(width + 1)]
    order = [places[i] for i in torch.randperm(len(places), generator=generator).tolist()]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order)), max_size=3)) | {len(order)})
    pieces, loss = values.clone().requires_grad_(), 0.0
    for a, b in zip([0, *cuts], cuts, strict=False):
        index = torch.tensor([row for row, _ in order[a:b]])
        own = turn_index[index] == torch.tensor([turn for _, turn in order[a:b]])[:, None]
        share = aggregate(
            torch.where(own, pieces[index].square(), torch.nan),
            own,
            mode,
            counts,
            turn_tokens=torch.where(own, tokens[index], 0),
            trajectory_turns=turns[index],
        )
        share.backward()
        loss += share.item()
    assert loss == pytest.approx(total.item(), abs=1e-9)
    assert pieces.grad is not None and whole.grad is not None and torch.allclose(pieces.grad, whole.grad)


@pytest.mark.parametrize("mode", MODES + TURN_MODES)
def test_a_fully_masked_row_changes_nothing_where_it_is_not_counted(mode: Aggregation) -> None:
    turn_index = torch.tensor([[0, 0, -1, 1], [0, -1, -1, -1]])
    more = torch.cat([turn_index, torch.full((1, 4), -1)])
    values = torch.cat([torch.arange(8.0).view(2, 4), torch.full((1, 4), torch.nan)])

    def call(index: Tensor) -> float:
        mask = index >= 0
        tokens, turns = turn_counts(mask, index)
        counts = count(mask, index)
        return aggregate(
            values[: len(index)], mask, mode, counts, length=5.0, turn_tokens=tokens, trajectory_turns=turns
        ).item()

    assert call(more) == call(turn_index) != 0.0


def test_float64_stays() -> None:
    values, mask = torch.tensor([[1.0 + 1e-10, 1.0]], dtype=torch.float64), torch.ones(1, 2)
    tokens, turns = turn_counts(mask, torch.zeros(1, 2).long())
    for mode in MODES + TURN_MODES:
        counts = Denominators(2, 1, 1)
        value = aggregate(values - 1.0, mask, mode, counts, 2.0, turn_tokens=tokens, trajectory_turns=turns)
        assert value.dtype == torch.float64 and value.item() > 0.0


@pytest.mark.parametrize("mode", MODES + TURN_MODES)
def test_nothing_sampled_gives_zero_with_a_gradient_path(mode: Aggregation) -> None:
    values = torch.full((2, 3), float("nan"), requires_grad=True)
    mask, nowhere = torch.zeros(2, 3), torch.full((2, 3), -1)
    tokens, turns = turn_counts(mask, nowhere)
    counts = count(mask, nowhere)
    loss = aggregate(values, mask, mode, counts, length=4.0, turn_tokens=tokens, trajectory_turns=turns)
    loss.backward()
    assert loss.item() == 0.0 and values.grad is not None and not values.grad.any()


def test_bad_arguments() -> None:
    ones = torch.ones(1, 2)
    for length in (None, 0.0, -1.0):
        with pytest.raises(ValueError, match="positive length"):
            aggregate(ones, ones, "constant_length", count(ones), length=length)
    with pytest.raises(ValueError, match="turn_mean needs"):
        aggregate(ones, ones, "turn_mean", count(ones), turn_tokens=2 * ones)
    with pytest.raises(ValueError, match="turn_mean_global needs"):
        aggregate(ones, ones, "turn_mean_global", count(ones), turn_tokens=2 * ones)
    with pytest.raises(ValueError, match="unknown aggregation"):
        aggregate(ones, ones, "mean", count(ones))  # type: ignore[arg-type]
