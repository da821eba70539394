"""Every form of credit against the exact policy gradient of an enumerated world."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmturn.credit.outcome import dr_grpo, rloo
from mmturn.credit.togo import Rows, discount_turns, minus_mean, minus_others, minus_values, turn_returns
from mmturn.losses.aggregate import Aggregation, aggregate, count
from mmturn.losses.policy import clipped_policy_loss
from mmturn.testing.two_turn_world import (
    ANSWER,
    PATHS,
    STATE_OF,
    Group,
    Rule,
    TwoTurnWorld,
    forms,
    per_own_token,
    per_token,
    per_trajectory,
    per_turn_reached,
    row,
    streams,
    table,
    to_go,
)

FIRST, SECOND = slice(0, 3), slice(3, 7)
"""Components of the logits of the first and of the second turn."""
EXACT = 1e-10
UNBIASED = ("return to go", "to go, less others", "to go, less value", "RLOO")
RESCALED = ("Dr. GRPO", "MT-GRPO two-turn, no std")
BIASED = {
    "to go, less mean": 0.985,
    "to go, less others / reached": 0.99,
    "GRPO": 0.985,
    "MT-GRPO two-turn": 0.83,
    "MT-GRPO, no std": 0.74,
    "MT-GRPO": 0.72,
    "centred, then summed": 0.75,
    "normalised, then summed": 0.40,
    "RLOO, token_mean": 0.998,
    "RLOO, seq_mean_token_mean": 0.95,
}
"""Forms that point elsewhere, with a cosine to the true gradient that they stay below."""
DOC = Path(__file__).resolve().parents[2] / "docs" / "turn-credit.md"

sizes = pytest.mark.parametrize("world", [TwoTurnWorld(2), TwoTurnWorld(3)], ids=["pairs", "threes"])

RLOO = row({"name": "total"}, {"name": "leave_one_out"})


def mean(world: TwoTurnWorld, name: str) -> Tensor:
    return world.expected(forms(world)[name]).mean


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) < EXACT


def going_on(world: TwoTurnWorld) -> float:
    """Chance of a second turn."""
    return 1.0 - world.chances()[0]


@sizes
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased(world: TwoTurnWorld, name: str) -> None:
    assert close(mean(world, name), world.gradient())
    # the comparison sees a reward that the estimate lacks
    paths = (*PATHS[:-1], replace(PATHS[-1], outcome=0.01))
    assert not close(mean(world, name), replace(world, paths=paths).gradient())


@sizes
@pytest.mark.parametrize("name", RESCALED)
def test_rescaled_by_the_share_of_the_others(world: TwoTurnWorld, name: str) -> None:
    share = (world.group_size - 1) / world.group_size
    assert close(mean(world, name), share * world.gradient())


@pytest.mark.parametrize("name", BIASED)
def test_biased(name: str) -> None:
    """In direction, so that no learning rate mends it."""
    world = TwoTurnWorld(3)
    found, true = mean(world, name), world.gradient()
    assert cosine(found, true) < BIASED[name]
    scale = found @ true / (true @ true)
    assert float((found - scale * true).norm() / true.norm()) > 0.05


def test_every_form_has_its_verdict_here_and_in_the_doc() -> None:
    verdicts = {
        **dict.fromkeys(UNBIASED, "no"),
        **dict.fromkeys(RESCALED, "by a factor"),
        **dict.fromkeys(BIASED, "yes"),
    }
    assert verdicts.keys() == forms(TwoTurnWorld()).keys()
    text = DOC.read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `(.+?)` \| (no|by a factor|yes) \|", text, re.M)) == verdicts
    assert table(TwoTurnWorld()) in text


@sizes
def test_accumulating_centred_turns_flips_a_sign(world: TwoTurnWorld) -> None:
    """Looking pays more than answering at once, and the biased forms teach to answer at once."""
    assert float(world.gradient()[ANSWER]) < -0.05
    assert float(mean(world, "centred, then summed")[ANSWER]) > 0.015
    assert float(mean(world, "normalised, then summed")[ANSWER]) > 0.1
    assert float(mean(world, "MT-GRPO, no std")[ANSWER]) > 0.015


@sizes
def test_centred_turns_give_no_reason_to_reach_them(world: TwoTurnWorld) -> None:
    """The decision to stop is judged as if second turns had no reward of their own."""
    bare = tuple(replace(p, turns=(*p.turns[:1], 0.0)[: len(p.turns)]) for p in PATHS)
    share = (world.group_size - 1) / world.group_size
    wanted = share * replace(world, paths=bare).gradient()[ANSWER]
    assert float(mean(world, "centred, then summed")[ANSWER] - wanted) == pytest.approx(0.0, abs=EXACT)
    # MT-GRPO credits a turn's reward to that turn alone: all first choices are judged like that
    assert close(mean(world, "MT-GRPO, no std")[FIRST], share * replace(world, paths=bare).gradient()[FIRST])


@sizes
def test_accumulated_baselines_charge_for_turns_reached(world: TwoTurnWorld) -> None:
    """Leave-one-out does not mend it: the bias is minus the expected baseline times the gradient of going on."""

    def accumulated(group: Group) -> Rows:
        turns, outcomes = streams(group)
        return turn_returns(minus_others(turns), rloo(outcomes))

    bias = world.expected(per_trajectory(accumulated)).mean - world.gradient()
    reach = going_on(world)
    second = sum(c * p.turns[1] for c, p in zip(world.chances(), PATHS, strict=True) if len(p.turns) > 1) / reach
    baseline = second * (1.0 - (1.0 - reach) ** (world.group_size - 1))
    reaching = tuple(replace(p, turns=(0.0,) * len(p.turns), outcome=float(len(p.turns) > 1)) for p in PATHS)
    assert close(bias, -baseline * replace(world, paths=reaching).gradient())
    assert float(bias[ANSWER]) > 0.05


@sizes
def test_factors_of_turns_that_not_all_reach(world: TwoTurnWorld) -> None:
    """A weight that depends on how many reach a turn rescales turns unequally; the factors are known."""
    size, p, true = world.group_size, going_on(world), world.gradient()

    def lone_zero(group: Group) -> Rows:
        lone = sum(len(path.turns) > 1 for path in group) == 1
        return [[a * (k == 0 or not lone) for k, a in enumerate(row)] for row in minus_others(to_go(group))]

    cases: list[tuple[Rule, float, float]] = [
        (per_trajectory(lambda g: minus_mean(to_go(g))), (size - 1) / size, 1 - (1 - (1 - p) ** size) / (size * p)),
        (per_turn_reached(lambda g: minus_others(to_go(g))), 1.0, (1 - (1 - p) ** size) / p),
        (per_trajectory(lone_zero), 1.0, 1 - (1 - p) ** (size - 1)),
    ]
    for rule, first, second in cases:
        found = world.expected(rule).mean
        assert close(found[FIRST], first * true[FIRST]) and close(found[SECOND], second * true[SECOND])
        assert abs(first - second) > 0.1


def test_any_value_of_the_prefix_and_no_value_of_the_action() -> None:
    world = TwoTurnWorld(2)

    def less(values: dict[int, float], key: tuple[int, ...]) -> Tensor:
        baselines = lambda g: [[values[key[c]] for c in path.choices] for path in g]  # noqa: E731
        return world.expected(per_trajectory(lambda g: minus_values(to_go(g), baselines(g)))).mean

    assert close(less({0: 1.3, 1: -0.4, 2: 2.0}, STATE_OF), world.gradient())
    of_choices = dict(enumerate((0.8, 1.1, 0.9, 1.4, 0.2, 1.4, 0.5)))
    assert cosine(less(of_choices, tuple(range(7))), world.gradient()) < 0.9


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_discount(gamma: float) -> None:
    """A discounted return to go needs turn k weighed by gamma**k to have the gradient of the discounted return."""
    world = TwoTurnWorld(2)
    true = world.gradient(gamma)
    rule: Rule = lambda g: minus_others(to_go(g, gamma))  # noqa: E731
    assert close(world.expected(per_trajectory(lambda g: discount_turns(rule(g), gamma))).mean, true)
    found = world.expected(per_trajectory(rule)).mean
    assert close(found[FIRST], true[FIRST]) and close(gamma * found[SECOND], true[SECOND])
    assert cosine(found, true) < 0.9999


def test_a_standard_deviation_only_rescales_two_valued_returns() -> None:
    """Within a task. The factor is another where success is rarer, which is a bias between tasks."""
    paths = tuple(replace(p, turns=(0.0,) * len(p.turns), outcome=float(i in (1, 3))) for i, p in enumerate(PATHS))
    factors = []
    for logits in (TwoTurnWorld().logits, (2.0, 0.2, -0.3, 0.5, -0.1, -0.2, 0.1)):
        world = TwoTurnWorld(4, paths, logits)
        found, true = world.expected(per_trajectory(row({"name": "total"}, {"name": "group"}))).mean, world.gradient()
        factors.append(float(found.norm() / true.norm()))
        assert close(found, factors[-1] * true)
    assert factors[1] - factors[0] > 0.04


def test_token_mean_fades_with_the_batch_and_the_mean_per_trajectory_does_not() -> None:
    angles: dict[str, list[float]] = {"RLOO, token_mean": [], "RLOO, seq_mean_token_mean": []}
    for size in (2, 3, 4):
        world = TwoTurnWorld(size)
        for name, found in angles.items():
            found.append(math.acos(cosine(mean(world, name), world.gradient())))
    shared, own = angles.values()
    assert shared[0] > shared[1] + 0.01 > shared[2] + 0.02
    assert own == pytest.approx([own[0]] * 3, abs=1e-6)
    # where all trajectories are equally long, neither is biased
    paths = tuple(replace(p, tokens=(6,) if len(p.tokens) == 1 else (4, 2)) for p in PATHS)
    world = TwoTurnWorld(2, paths)
    assert all(close(mean(world, name), world.gradient()) for name in angles)


WEIGHTS: list[tuple[Aggregation, Callable[[Rule], Rule]]] = [
    ("constant_length", per_trajectory),
    ("token_mean", per_token),
    ("seq_mean_token_mean", per_own_token),
]


@pytest.mark.parametrize(("mode", "weighing"), WEIGHTS)
def test_the_weights_are_those_of_the_loss(mode: Aggregation, weighing: Callable[[Rule], Rule]) -> None:
    """At ratio 1, minus the gradient of the clipped, aggregated loss by a token's log-prob is its turn's weight."""
    group = [PATHS[0], PATHS[1], PATHS[4]]
    rows = RLOO(group)
    mask, advantages, wanted = (torch.zeros(3, 8) for _ in range(3))
    for i, (path, values, weights) in enumerate(zip(group, rows, weighing(RLOO)(group), strict=True)):
        turn = [k for k, n in enumerate(path.tokens) for _ in range(n)]
        mask[i, : len(turn)] = 1.0
        advantages[i, : len(turn)] = torch.tensor([values[k] for k in turn])
        wanted[i, : len(turn)] = torch.tensor([weights[k] for k in turn])
    logprobs = torch.full((3, 8), -1.0, requires_grad=True)
    loss = clipped_policy_loss(logprobs, logprobs.detach(), advantages, mask).per_token
    aggregate(loss, mask, mode, count(mask), length=1.0).backward()
    torch.testing.assert_close(logprobs.grad, -wanted, rtol=0, atol=1e-6)
    assert not torch.allclose(logprobs.grad, -1.01 * wanted, rtol=0, atol=1e-6)


def test_outcomes_alone() -> None:
    """Without turn rewards Dr. GRPO still is exact up to its factor, and a mean per turn still is not."""
    world = TwoTurnWorld(3, tuple(replace(p, turns=(0.0,) * len(p.turns)) for p in PATHS))
    broadcast: Rule = lambda g: [(a,) * len(p.turns) for a, p in zip(dr_grpo(streams(g)[1]), g, strict=True)]  # noqa: E731
    assert close(world.expected(per_trajectory(broadcast)).mean, 2 / 3 * world.gradient())
    assert cosine(mean(world, "to go, less mean"), world.gradient()) < 0.99
