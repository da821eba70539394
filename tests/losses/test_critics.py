from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from mmturn.losses.critics import (
    archer_advantage,
    archer_critic_loss,
    expectile_loss,
    ilql_loss,
    mc_loss,
    next_sampled,
    polyak_update,
    squared_error,
    td_targets,
)
from tests.vectors import VECTORS


def inputs(name: str) -> dict[str, Tensor]:
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in VECTORS[name]["inputs"].items()}


def test_archer_vector() -> None:
    given, wanted, gamma = inputs("archer_targets"), VECTORS["archer_targets"]["expected"], 0.95

    def check(shift: float) -> list[bool]:
        q, v, target_q = given["q"] + shift, given["v"] - shift, given["Q_targ_pi"] + 2 * shift
        targets = td_targets(given["reward"], given["V_targ_next"] + shift, gamma, given["done"])
        return [
            targets.tolist() == pytest.approx(wanted["q_target"], abs=1e-6),
            squared_error(q, targets).tolist() == pytest.approx(wanted["q_loss"], abs=1e-6),
            squared_error(v, target_q).tolist() == pytest.approx(wanted["v_loss"], abs=1e-6),
            archer_advantage(target_q, v).item() == pytest.approx(wanted["adv_min_q_minus_min_v"], abs=1e-6),
            archer_critic_loss(q, v, targets, target_q).item()
            == pytest.approx(sum(wanted["q_loss"]) + sum(wanted["v_loss"]), abs=1e-6),
        ]

    assert VECTORS["archer_targets"]["params"] == {"gamma": gamma}
    assert all(check(0.0)) and not any(check(0.01))


def test_nothing_follows_the_end() -> None:
    targets = td_targets(
        torch.tensor([1.0, 1.0])[:, None],
        torch.tensor([[2.0, 4.0], [math.nan, 4.0]]),
        0.5,
        torch.tensor([0, 1])[:, None],
    )
    assert targets.tolist() == [[2.0, 3.0], [1.0, 1.0]]


def test_ilql_vector() -> None:
    given, params, wanted = inputs("ilql"), VECTORS["ilql"]["params"], VECTORS["ilql"]["expected"]

    def q_loss(shift: float) -> list[float]:
        targets = td_targets(given["r"], given["v_next"], params["gamma"])
        return (0.5 * squared_error(given["q"] + shift, targets)).tolist()

    def v_loss(shift: float) -> float:
        return expectile_loss(given["v"] + shift, given["target_q"], params["tau"]).item()

    assert q_loss(0.0) == pytest.approx(wanted["q_loss"], abs=1e-6) != q_loss(0.01)
    assert v_loss(0.0) == pytest.approx(wanted["v_loss"], abs=1e-6) != v_loss(0.01)


def test_expectile_weights_both_sides() -> None:
    values, target_q = torch.tensor([0.0, 2.0, 1.0]), torch.tensor([[1.0, 3.0], [5.0, 1.0], [1.0, 1.0]])
    assert expectile_loss(values, target_q, 0.7).tolist() == pytest.approx([0.35, 0.15, 0.0])


def test_the_next_state_is_the_next_sampled_token() -> None:
    values = torch.tensor([[1.0, 2.0, math.nan, 4.0, math.nan], [math.inf, 2.0, math.nan, math.nan, 5.0]])
    values = torch.cat([values, torch.full((1, 5), math.nan)])
    mask = torch.isfinite(values)
    final = torch.tensor([9.0, 0.0, 7.0])
    assert next_sampled(values, final, mask).tolist() == [
        [2.0, 4.0, 0.0, 9.0, 0.0],
        [0.0, 5.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]


class Tokens:
    """A batch for token critics in float64, with NaN and infinity wherever nothing is sampled."""

    def __init__(self, rows: int = 2, width: int = 5, vocabulary: int = 6) -> None:
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.mask = torch.rand(rows, width, generator=generator) < 0.6
        self.logits = draw(rows, width, 2, vocabulary)
        self.tokens = torch.randint(0, vocabulary, (rows, width), generator=generator)
        self.target_q = self.poison(draw(rows, width, 2), math.nan)
        self.values = self.poison(draw(rows, width), math.inf)
        self.rewards = self.poison(draw(rows, width), math.nan)
        self.final = draw(rows)

    def poison(self, values: Tensor, by: float) -> Tensor:
        hidden = ~self.mask.view(*self.mask.shape, *[1] * (values.dim() - 2))
        return values.masked_fill(hidden, by)

    def ilql(self, logits: Tensor, values: Tensor) -> Tensor:
        places = self.tokens[..., None, None].expand(*self.tokens.shape, 2, 1)
        q = self.poison(logits.gather(-1, places)[..., 0], math.nan)
        logprobs = self.poison(logits.log_softmax(-1).gather(-1, places)[..., 0], math.nan)
        following = next_sampled(values, self.final, self.mask)
        return ilql_loss(
            q, self.target_q, logprobs, values, following, self.rewards, self.mask, gamma=0.9, tau=0.7, cql_weight=0.1
        )


def test_ilql_over_tokens_against_a_loop() -> None:
    batch = Tokens()
    got = batch.ilql(batch.logits, batch.values)
    assert not got[~batch.mask].any()
    for row in range(2):
        places = batch.mask[row].nonzero()[:, 0].tolist()
        for at, after in zip(places, [*places[1:], None], strict=True):
            v_next = batch.final[row] if after is None else batch.values[row, after]
            q = batch.logits[row, at, :, batch.tokens[row, at]]
            target, v = batch.target_q[row, at].min(), batch.values[row, at]
            wanted = 0.5 * (q - (batch.rewards[row, at] + 0.9 * v_next)).square().sum()
            wanted = wanted + (0.7 if target >= v else 0.3) * 0.5 * (v - target) ** 2
            ce = F.cross_entropy(batch.logits[row, at], batch.tokens[row, at].expand(2), reduction="sum")
            assert got[row, at].item() == pytest.approx((wanted + 0.1 * ce).item())


def test_ilql_targets_get_no_gradient_and_masked_positions_none() -> None:
    batch = Tokens()
    values = batch.values.clone().requires_grad_()
    logits, batch.target_q = batch.logits.clone().requires_grad_(), batch.target_q.requires_grad_()
    batch.final = batch.final.requires_grad_()
    batch.ilql(logits, values).sum().backward()
    assert batch.target_q.grad is None and batch.final.grad is None
    assert values.grad is not None and logits.grad is not None
    for gradient in (values.grad, logits.grad):
        assert torch.isfinite(gradient).all() and not gradient[~batch.mask].any() and gradient[batch.mask].any()
    # only the expectile term moves V: as the next state's value it is a target
    alone = values.detach()[batch.mask].requires_grad_()
    expectile_loss(alone, batch.target_q.detach()[batch.mask], 0.7).sum().backward()
    assert torch.equal(values.grad[batch.mask], alone.grad)


def test_monte_carlo_regression() -> None:
    q = torch.tensor([[0.5, math.nan]], requires_grad=True)
    logprobs = torch.tensor([[-2.0, math.inf]], requires_grad=True)
    returns = torch.tensor([[1.5, math.nan]], requires_grad=True)
    loss = mc_loss(q, logprobs, returns, torch.tensor([[1, 0]]), 0.1)
    loss.sum().backward()
    assert loss.tolist() == [[pytest.approx(0.5 + 0.2), 0.0]]
    assert q.grad is not None and q.grad.tolist() == [[-1.0, 0.0]] and returns.grad is None
    assert logprobs.grad is not None and logprobs.grad[0].tolist() == pytest.approx([-0.1, 0.0])


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    q, v, targets, more = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    q.requires_grad_()
    v.requires_grad_()
    assert gradcheck(lambda x, y: archer_critic_loss(x, y, targets, more), (q, v))
    assert gradcheck(lambda x: expectile_loss(x[:, 0], targets, 0.8), v)
    assert gradcheck(lambda x, y: mc_loss(x, y, targets, torch.tensor([[1, 0]]).expand(3, 2), 0.3), (q, v))
    assert not archer_advantage(q, v).requires_grad


def test_polyak_update() -> None:
    target, source = nn.Linear(3, 2), nn.Linear(3, 2)
    before = [p.detach().clone() for p in target.parameters()]
    polyak_update(target, source, 0.1)
    for old, new, now in zip(before, source.parameters(), target.parameters(), strict=True):
        assert torch.allclose(now, 0.9 * old + 0.1 * new) and now.requires_grad
    polyak_update(target, source, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    with pytest.raises(ValueError, match="tau"):
        polyak_update(target, source, 1.5)
    with pytest.raises(ValueError):
        polyak_update(target, nn.Linear(3, 2, bias=False), 0.5)
