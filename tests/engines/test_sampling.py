"""Drawing tokens: the right distribution, and nothing that cannot be drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mmturn.engines import sampling
from mmturn.engines.sampling import RowSampler, Warp
from mmturn.types import Sampling

NONE = torch.empty(0, dtype=torch.long)


def how_of(temperature, top_p=None):
    samplings = [Sampling(1, t, p) for t, p in zip(temperature, top_p or [1.0] * len(temperature), strict=True)]
    return Warp.of(samplings, torch.device("cpu"))


def warp(logits, temperature, banned):
    """Log-probs of all tokens."""
    how = how_of(temperature.tolist())
    scores = sampling.warp(logits.clone(), how, banned)
    return torch.stack(
        [scores.logprobs(torch.full((len(logits),), token)) for token in range(logits.shape[1])], 1
    ).float()


def draw(logprobs, uniform, temperature, top_p):
    how = how_of(temperature.tolist(), top_p.tolist())
    plain = Warp(None, how.greedy, how.top_p)
    return sampling.draw(sampling.warp(logprobs.clone(), plain, NONE), uniform, plain)


def drawn(logprobs, uniform, temperature=1.0, top_p=1.0):
    rows = len(uniform)
    return draw(
        logprobs.expand(rows, -1),
        torch.as_tensor(uniform, dtype=torch.float64),
        torch.full((rows,), temperature),
        torch.full((rows,), top_p),
    )


@pytest.mark.parametrize(("temperature", "seed"), [(1.0, 0), (0.5, 1), (2.5, 2)])
def test_draws_follow_the_softmax(temperature, seed):
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(seed)) * 2
    logprobs = warp(logits, torch.tensor([temperature]), NONE)
    assert torch.allclose(logprobs, (logits / temperature).log_softmax(-1), atol=1e-6)
    tokens = drawn(logprobs, RowSampler(seed, 20_000).numbers, temperature)
    expected = logprobs[0].double().exp().numpy()
    counts = np.bincount(tokens.numpy(), minlength=12)
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-3


def test_banned_ids_are_never_drawn_however_hot():
    logits = torch.zeros(1, 6)
    logits[0, [1, 5]] = 50.0
    logprobs = warp(logits, torch.tensor([5.0]), torch.tensor([1, 5]))
    assert torch.isinf(logprobs[0, [1, 5]]).all() and math.isclose(float(logprobs.exp().sum()), 1.0, abs_tol=1e-6)
    tokens = drawn(logprobs, RowSampler(3, 5_000).numbers, 5.0)
    assert set(tokens.tolist()) == {0, 2, 3, 4}


@pytest.mark.parametrize("number", [0.0, 5e-324, 0.5, 1 - 2**-53])
def test_the_edges_of_the_unit_interval_draw_only_what_can_be_drawn(number):
    for seed in range(50):
        logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(seed)) * 4
        banned = torch.tensor([0, 1, 20, 38, 39])
        token = int(drawn(warp(logits, torch.tensor([1.0]), banned), [number])[0])
        assert token not in banned.tolist()


def test_a_number_carried_past_the_total_falls_on_a_token_that_can_be_drawn():
    logprobs = torch.tensor([[math.log(0.5), math.log(0.5), -math.inf]])
    assert int(drawn(logprobs, [1.0])[0]) in (0, 1)


def test_one_sure_token_is_always_drawn():
    logprobs = torch.tensor([[-math.inf, 0.0, -math.inf]])
    assert drawn(logprobs, [0.0, 0.3, 1 - 2**-53]).tolist() == [1, 1, 1]


def test_greedy_takes_the_most_likely_and_reports_its_log_prob_at_temperature_1():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    logprobs = warp(logits, torch.tensor([0.0]), NONE)
    assert torch.allclose(logprobs, logits.log_softmax(-1))
    assert drawn(logprobs, [0.0, 0.99], temperature=0.0).tolist() == [1, 1]


def test_top_p_keeps_the_smallest_set_that_holds_the_mass():
    logprobs = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    numbers = RowSampler(0, 4_000).numbers
    assert set(drawn(logprobs, numbers, top_p=0.45).tolist()) == {1}
    assert set(drawn(logprobs, numbers, top_p=0.6).tolist()) == {1, 3}
    assert set(drawn(logprobs, numbers, top_p=1.0).tolist()) == {0, 1, 2, 3}
    assert set(drawn(logprobs, numbers, top_p=1e-9).tolist()) == {1}
    counts = np.bincount(drawn(logprobs, numbers, top_p=0.6).numpy(), minlength=4)
    assert stats.chisquare(counts[[1, 3]], np.array([2, 1]) / 3 * len(numbers)).pvalue > 1e-3


def test_rows_with_their_own_temperature_and_nucleus_do_not_disturb_each_other():
    logits = torch.randn(3, 30, generator=torch.Generator().manual_seed(5))
    temperature, top_p = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, 0.4])
    numbers = torch.tensor([0.7, 0.2, 0.9], dtype=torch.float64)
    together = draw(warp(logits, temperature, NONE), numbers, temperature, top_p)
    for row in range(3):
        alone = draw(warp(logits[[row]], temperature[[row]], NONE), numbers[[row]], temperature[[row]], top_p[[row]])
        assert int(alone[0]) == int(together[row])


def test_a_forced_token_stands_in_for_the_drawn_one():
    sampler = RowSampler(7, 3, {1: 5})
    assert [sampler.take(step, 2) for step in range(3)] == [2, 5, 2]
    assert np.array_equal(sampler.numbers, RowSampler(7, 3).numbers), "what is drawn elsewhere does not change"


def test_a_request_has_its_own_stream_of_numbers():
    assert np.array_equal(RowSampler(7, 8).numbers[:5], RowSampler(7, 5).numbers), "a longer limit changes nothing"
    assert not np.array_equal(RowSampler(7, 5).numbers, RowSampler(8, 5).numbers)
    assert RowSampler(2**63 - 1, 3).numbers.max() < 1


@pytest.mark.parametrize("size", [1, 7, 1023, 1024, 1025, 5000, 300_001])
def test_blocks_give_what_one_long_sum_gives(size):
    """Against plain inversion in float64; a number within rounding of a boundary may fall on either side."""
    dice = torch.Generator().manual_seed(size)
    rows = 6
    logits = torch.randn(rows, size, generator=dice) * 3
    banned = torch.arange(0, size, 5)[1:]
    uniform = torch.rand(rows, generator=dice, dtype=torch.float64)
    how = how_of([1.0, 0.7, 2.0, 0.0, 1.0, 1.3])
    scores = sampling.warp(logits.clone(), how, banned)
    found = sampling.draw(scores, uniform, how)
    scale = torch.tensor([1.0, 0.7, 2.0, 1.0, 1.0, 1.3])[:, None]
    exact = (logits / scale).index_fill(1, banned, -math.inf).double().log_softmax(-1)
    assert torch.allclose(scores.logprobs(found), exact.gather(1, found[:, None]).squeeze(1), atol=1e-5)
    total = exact.exp().cumsum(-1)
    for row in range(rows):
        token = int(found[row])
        if row == 3:
            assert token == int(exact[row].argmax())
            continue
        low = float(total[row, token - 1]) if token else 0.0
        assert low - 1e-6 <= float(uniform[row]) <= float(total[row, token]) + 1e-6
        assert token not in banned.tolist()


def test_logits_that_are_not_finite_give_log_probs_that_are_not():
    logits = torch.randn(3, 2000)
    logits[1, 1500] = math.nan
    logits[2, 3] = math.inf
    how = how_of([1.0, 1.0, 1.0])
    scores = sampling.warp(logits, how, NONE)
    found = sampling.draw(scores, torch.full((3,), 0.5, dtype=torch.float64), how)
    assert [math.isfinite(value) for value in scores.logprobs(found).tolist()] == [True, False, False]
    assert ((found >= 0) & (found < 2000)).all()
