"""The loss of a batch does not depend on how it is cut into micro-batches and ranks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmturn.batching.collate import Batch
from mmturn.losses.aggregate import Denominators, count
from mmturn.models.policy import TokenScores
from mmturn.training.microbatches import MicroBatch
from mmturn.training.objective import PolicyObjective
from mmturn.training.settings import CorrectionConfig, RlConfig

KINDS = get_type_hints(RlConfig)
LOSSES = list(itertools.product(*(get_args(KINDS[key]) for key in ("aggregation", "ratio", "surrogate"))))
ROWS = 7
"""Rows 1 and 2 are of one trajectory; row 4 has no sampled token."""
TRAJECTORIES = (0, 1, 1, 2, 3, 4, 5)
MASK = torch.tensor(
    [
        [0, 1, 1, 1, 0, 1, 1, 0],
        [0, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 1, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
    ]
)
TURNS = torch.where(
    MASK.bool(),
    torch.tensor(
        [
            [0, 0, 0, 0, 0, 1, 1, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 1, 1, 2, 0, 0, 0],
            [0, 0, 1, 1, 1, 2, 2, 2],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 1, 0, 2, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
        ]
    ),
    -1,
)
TOKENS = torch.tensor([5, 5, 5, 7, 0, 3, 1])
"""Of each row's trajectory, over all its rows."""
TURN_COUNTS = torch.tensor([2, 3, 3, 3, 0, 3, 1])
WHOLE = Denominators(tokens=21, sequences=5, turns=12)
SCALES = ((1, 1.0, 0.0), (2, 0.5, 1.0), (3, 0.5, 1.0), (4, 0.5, 1.0))
"""Seed, scale and shift of advantages and of old, sampler's and reference log-probs."""


@dataclass(frozen=True)
class Outcome:
    """What parts of a batch add up to."""

    loss: float
    gradient: Tensor
    """[ROWS, T] of the log-probs."""
    sums: dict[str, tuple[float, float]]
    maxima: dict[str, float]


def drawn(seed: int) -> Tensor:
    return torch.randn(MASK.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcome(config: RlConfig, parts: Sequence[Sequence[int]], whole: Denominators | None = WHOLE) -> Outcome:
    """Of the batch cut into rows ``parts``, each as long as its longest row; ``whole`` None: each counts itself."""
    new = (-1 + 0.4 * drawn(0)).requires_grad_()
    entropy = new.exp() + 1
    total, sums, maxima = torch.zeros((), dtype=torch.float64), {}, {}
    for part in parts:
        rows = torch.tensor(part)
        end = int(MASK[rows].sum(0).nonzero().max()) + 1 if MASK[rows].any() else 1
        own = (rows, slice(end))
        mask, turns = MASK[own], TURNS[own]
        advantages, old, rollout, reference = (
            mask * (scale * drawn(seed) - shift)[own] for seed, scale, shift in SCALES
        )
        batch = Batch(
            input_ids=mask, attention_mask=mask, position_ids=mask, loss_mask=mask, turn_index=turns,
            old_logprobs=rollout, advantages=advantages, views=(), patches=mask, grids=mask, image_index=(),
            num_tokens=(), trajectory_ids=(),
        )  # fmt: skip
        signals = {"old": old, "reference": reference, "trajectory_tokens": TOKENS[rows]}
        piece = MicroBatch(batch, {**signals, "trajectory_turns": TURN_COUNTS[rows]})
        objective = PolicyObjective(config, whole or count(mask, turns), True)
        found = objective(TokenScores(new[own], entropy[own]), piece)
        total = total + found.value
        for key, pair in found.sums.items():
            sums[key] = tuple(a + float(b) for a, b in zip(sums.get(key, (0.0, 0.0)), pair, strict=True))
        for key, value in found.maxima.items():
            maxima[key] = max(maxima.get(key, 0.0), float(value))
    return Outcome(float(total.detach()), torch.autograd.grad(total, new)[0], sums, maxima)


def same(one: Outcome, other: Outcome) -> bool:
    return (
        one.loss == pytest.approx(other.loss, abs=1e-6)
        and torch.allclose(one.gradient, other.gradient, rtol=0, atol=1e-6)
        and one.sums == {key: pytest.approx(pair, abs=1e-6) for key, pair in other.sums.items()}
        and one.maxima == pytest.approx(other.maxima, abs=1e-6)
    )


def config(aggregation: str, ratio: str, surrogate: str) -> RlConfig:
    return RlConfig(
        aggregation=aggregation, ratio=ratio, surrogate=surrogate, constant_length=9, kl_coef=0.1, entropy_coef=0.05,
        old_logprobs="recompute", correction=CorrectionConfig("truncate", "sequence", 1.5),
    )  # type: ignore[arg-type]  # fmt: skip


def test_the_made_up_batch_counts_as_said() -> None:
    tokens = [int(MASK[[t == own for t in TRAJECTORIES]].sum()) for own in TRAJECTORIES]
    assert tokens == TOKENS.tolist()
    turns = [{int(t) for t in TURNS[[t == own for t in TRAJECTORIES]].flatten() if t >= 0} for own in TRAJECTORIES]
    assert [len(found) for found in turns] == TURN_COUNTS.tolist()
    first = [TRAJECTORIES.index(own) for own in sorted(set(TRAJECTORIES))]
    sampled = int((TOKENS[first] > 0).sum())
    assert Denominators(int(TOKENS[first].sum()), sampled, int(TURN_COUNTS[first].sum())) == WHOLE


@pytest.mark.parametrize(("aggregation", "ratio", "surrogate"), LOSSES, ids="-".join)
def test_micro_batches_and_ranks_add_up(aggregation: str, ratio: str, surrogate: str) -> None:
    made = config(aggregation, ratio, surrogate)
    whole = outcome(made, [range(ROWS)])
    assert whole.gradient[MASK.bool()].abs().max() > 0 and not whole.gradient[~MASK.bool()].any()
    assert same(outcome(made, [[row] for row in range(ROWS)]), whole)
    ranks = ([[6, 0], [1]], [[5, 2, 4], [3]])
    assert same(outcome(made, [part for rank in ranks for part in rank]), whole)


@given(order=st.permutations(range(ROWS)), ends=st.sets(st.integers(1, ROWS - 1)), loss=st.sampled_from(LOSSES))
@settings(max_examples=60, deadline=None)
def test_any_cut_in_any_order(order: list[int], ends: set[int], loss: tuple[str, str, str]) -> None:
    edges = [0, *sorted(ends), ROWS]
    parts = [order[start:end] for start, end in itertools.pairwise(edges)]
    assert same(outcome(config(*loss), parts), outcome(config(*loss), [range(ROWS)]))


@pytest.mark.parametrize("aggregation", get_args(KINDS["aggregation"]))
def test_with_denominators_of_their_own_parts_do_not_add_up(aggregation: str) -> None:
    made = config(aggregation, "token", "clip")
    assert not same(outcome(made, [[0, 1, 2], [3, 4, 5, 6]], None), outcome(made, [range(ROWS)]))


@pytest.mark.parametrize("aggregation", ["seq_mean_token_mean", "turn_mean"])
def test_a_row_counts_as_part_of_its_trajectory(aggregation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(aggregation, "token", "clip")
    before = outcome(made, [range(ROWS)])
    monkeypatch.setitem(globals(), "TOKENS", MASK.sum(1))
    monkeypatch.setitem(globals(), "TURN_COUNTS", torch.tensor([2, 1, 2, 3, 0, 3, 1]))
    assert not same(outcome(made, [range(ROWS)]), before)


def test_denominators_of_ranks_add_up() -> None:
    whole = [row for row in range(ROWS) if row not in (1, 2)]
    parts = [count(MASK[[row]], TURNS[[row]]) for row in whole]
    assert reduce(add, parts) == count(MASK[whole], TURNS[whole]) == Denominators(tokens=16, sequences=4, turns=9)
