from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.gain import gold_logprob, igpo, information_gains
from tests.vectors import VECTORS

VECTOR = VECTORS["igpo"]
ROLLOUTS = VECTOR["inputs"]["gt_token_logprobs_per_prefix"]
F1 = VECTOR["inputs"]["final_f1"]
EPS = VECTOR["params"]["eps"]
LOGPROBS = st.lists(st.lists(st.integers(-32, 0).map(lambda n: n / 8), min_size=1, max_size=3), min_size=1, max_size=4)


def same(got: Any, wanted: Any) -> bool:
    pairs = list(zip(got, wanted, strict=True))
    return all(len(a) == len(b) and tuple(a) == pytest.approx(tuple(b), abs=1e-6) for a, b in pairs)


def test_gains_vector() -> None:
    wanted = VECTOR["expected"]
    assert same([[math.exp(gold_logprob(tokens)) for tokens in one] for one in ROLLOUTS], wanted["P"])
    assert same([information_gains(one) for one in ROLLOUTS], wanted["ig_prob"])
    assert same([information_gains(one, "logprob") for one in ROLLOUTS], wanted["ig_logprob"])
    assert not same([information_gains([[-2.0, -1.1, -3.0], *one[1:]]) for one in ROLLOUTS], wanted["ig_prob"])


@pytest.mark.parametrize("key", [key for key in VECTOR["expected"] if key.startswith("adv_")])
def test_advantages_vector(key: str) -> None:
    _, form, pool, gamma = key.split("_")
    kind: Any = form
    gains = [information_gains(one, kind) for one in ROLLOUTS]

    def advantages(pooled: Any = pool, last: list[float] = F1, discount: float = float(gamma[1:])) -> Any:
        return igpo(gains, last, discount, pooled, EPS)

    wanted = VECTOR["expected"][key]
    assert same(advantages(), wanted)
    assert not same(advantages("joint" if pool == "separate" else "separate"), wanted)
    assert not same(advantages(last=[1.0, 0.01, 0.4]), wanted)
    assert not same(advantages(discount=0.8), wanted)


def test_a_gain_of_exactly_0_is_still_a_turn() -> None:
    assert [len(row) for row in igpo([[0.0, 0.5], [0.1, 0.0]], [1.0, 0.0])] == [3, 3]


def test_odd_groups_and_refusals() -> None:
    assert igpo([], []) == [] and igpo([[]], [0.7]) == [(0.0,)]
    assert igpo([[0.1], [0.1]], [1.0, 1.0]) == [(0.0, 0.0), (0.0, 0.0)]
    assert information_gains([[-1.0]]) == ()
    for call, part in (
        (lambda: gold_logprob([]), "without tokens"),
        (lambda: information_gains([[-1.0], [float("nan")]]), r"token_logprobs\[0\] is not finite"),
        (lambda: igpo([[0.1]], []), "lengths differ: gains 1, outcomes 0"),
        (lambda: igpo([[float("inf")]], [0.0]), "turn rewards"),
        (lambda: igpo([[0.1]], [0.0], gamma=2.0), "gamma"),
    ):
        with pytest.raises(ValueError, match=part):
            call()


@given(LOGPROBS)
def test_gains_telescope(prefixes: list[list[float]]) -> None:
    ends = math.exp(gold_logprob(prefixes[-1])), math.exp(gold_logprob(prefixes[0]))
    assert sum(information_gains(prefixes)) == pytest.approx(ends[0] - ends[1], abs=1e-12)
    logs = gold_logprob(prefixes[-1]) - gold_logprob(prefixes[0])
    assert sum(information_gains(prefixes, "logprob")) == pytest.approx(logs, abs=1e-12)


GROUPS = st.lists(st.lists(st.integers(-8, 8).map(lambda n: n / 8), max_size=3), min_size=1, max_size=6)


@given(GROUPS, st.sampled_from(["joint", "separate"]), st.randoms())
def test_permutation_shift_and_scale(gains: list[list[float]], pool: Any, random: Any) -> None:
    outcomes = [(i % 3) / 2 for i in range(len(gains))]
    straight = igpo(gains, outcomes, 0.9, pool)
    order = list(range(len(gains)))
    random.shuffle(order)
    permuted = igpo([gains[i] for i in order], [outcomes[i] for i in order], 0.9, pool)
    assert same(permuted, [straight[i] for i in order])
    # far from the 1e-8 inside the square root, one affine map of the whole pool changes nothing
    moved = igpo([[8 * g + 3 for g in row] for row in gains], [8 * o + 3 for o in outcomes], 0.9, pool)
    assert all(a == pytest.approx(b, abs=1e-4) for a, b in zip(moved, straight, strict=True))
    if pool == "separate":
        apart = igpo([[2 * g - 5 for g in row] for row in gains], outcomes, 0.9, pool)
        assert all(a == pytest.approx(b, abs=1e-4) for a, b in zip(apart, straight, strict=True))
    assert sum(map(sum, igpo(gains, outcomes, 0.0, pool))) == pytest.approx(0.0, abs=1e-6)
