"""What a critic learns: advantage plus value as credit made them, or returns without any critic."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmturn.credit.graded import Graded, Signals, cut, example_graded, flat
from mmturn.credit.method import Assigned, Method, MethodConfig
from mmturn.credit.returns import returns_to_go
from mmturn.schema import build


def valued(values: list[list[float]], turns: list[float], outcome: float = 0.0, final: float = 0.0) -> Graded:
    counts = tuple(len(turn) for turn in values)
    signals = Signals(values=tuple(map(tuple, values)), final_value=final)
    return replace(example_graded(0, outcome, turns), tokens=counts, signals=signals)


def assigned(graded: Graded, **boxes: Any) -> Assigned:
    return Method(build(MethodConfig, {"normalise": [], **boxes})).assign([graded])[0]


BASIC = valued([[0.1, 0.2, 0.3, 0.4, 0.5], [0.6, 0.7, 0.8, 0.9, 1.0]], [1.0, 1.0])
"""The reference vector bilevel_gae_basic."""


def test_targets_are_those_of_the_reference_vectors() -> None:
    lesson = assigned(BASIC, credit={"name": "bilevel_gae"}).lesson
    assert lesson is not None and lesson.values == BASIC.signals.values
    assert flat(lesson.targets) == pytest.approx([1.95] * 5 + [1.0] * 5)
    other = valued([[0.1, 0.2, 0.3, 0.4, 0.6], [0.6, 0.7, 0.8, 0.9, 1.0]], [1.0, 1.0])
    found = assigned(other, credit={"name": "bilevel_gae", "lam": 0.5}).lesson
    assert found is not None and flat(found.targets) != pytest.approx([1.95] * 5 + [1.0] * 5), "the values count"
    turns = valued([[0.5, 9.0], [0.6, 9.0], [0.7, 9.0]], [0.1, 0.0, 0.0], 1.0)
    lesson = assigned(turns, credit={"name": "turn_gae", "gamma": 0.99, "lam": 0.95}).lesson
    assert lesson is not None
    assert [turn[0] for turn in lesson.targets] == pytest.approx([1.04682857, 0.97515, 1.0], abs=1e-6)
    assert all(turn[0] == turn[1] for turn in lesson.targets), "a turn's target is that of all its tokens"


def test_a_turns_target_adds_the_value_that_credit_took_off() -> None:
    graded = valued([[0.5, 2.0], [0.25, 3.0]], [0.0, 1.0])
    for anchor, at in (("first", 0), ("last", 1)):
        found = assigned(graded, credit={"name": "turn_gae", "gamma": 1.0, "lam": 1.0, "anchor": anchor})
        assert found.lesson is not None and graded.signals.values is not None
        base = [turn[at] for turn in graded.signals.values]
        assert [turn[0] for turn in found.lesson.targets] == pytest.approx(
            [worth + value for worth, value in zip(found.raw, base, strict=True)]  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("credit", ["gae", "bilevel_gae", "turn_gae"])
@given(st.randoms(use_true_random=False))
def test_monte_carlo_returns_know_of_no_critic(credit: str, dice: random.Random) -> None:
    counts = [dice.randint(1, 4) for _ in range(dice.randint(1, 4))]
    rewards = [dice.uniform(-1, 1) for _ in counts]
    two = [
        valued([[dice.uniform(-1, 1) for _ in range(n)] for n in counts], rewards, 0.5, dice.random()) for _ in range(2)
    ]
    settings = {"name": credit, "gamma": 0.9, "lam": 0.3}
    first, second = (assigned(graded, credit=settings).lesson for graded in two)
    assert first is not None and second is not None
    assert flat(first.returns) == pytest.approx(flat(second.returns))
    stream = [*rewards[:-1], rewards[-1] + 0.5]
    if credit == "gae":
        tokens = flat([[0.0] * (n - 1) + [reward] for n, reward in zip(counts, stream, strict=True)])
        assert flat(first.returns) == pytest.approx(returns_to_go(tokens, 0.9))
    if credit == "turn_gae":
        assert [turn[0] for turn in first.returns] == pytest.approx(returns_to_go(stream, 0.9))


def test_with_lambda_one_and_an_end_both_targets_agree() -> None:
    lesson = assigned(BASIC, credit={"name": "gae", "gamma": 0.9}).lesson
    assert lesson is not None and flat(lesson.targets) == pytest.approx(flat(lesson.returns))
    cut_off = replace(BASIC, signals=replace(BASIC.signals, final_value=2.0))
    lesson = assigned(cut_off, credit={"name": "gae", "gamma": 0.9}).lesson
    assert lesson is not None and flat(lesson.targets) != pytest.approx(flat(lesson.returns)), "a limit is bootstrapped"


def test_credit_that_is_a_return_is_the_target_as_it_is() -> None:
    """ReVeal: the critic is taken off afterwards."""
    graded = replace(BASIC, seats=("policy", "verifier"), outcome=6.0)
    found = assigned(graded, credit={"name": "tapo"}, normalise=[{"name": "less_values"}])
    assert found.lesson is not None and found.lesson.targets == found.lesson.returns
    assert found.lesson.targets == ((7.0,) * 5, (7.0,) * 5)
    assert found.advantages[0] == pytest.approx((6.9, 6.8, 6.7, 6.6, 6.5))


def test_normalising_and_selecting_change_no_lesson() -> None:
    plain = assigned(BASIC, credit={"name": "gae"})
    normalised = assigned(BASIC, credit={"name": "gae"}, normalise=[{"name": "whiten"}], select=[{"name": "finished"}])
    assert normalised.advantages != plain.advantages and normalised.lesson == plain.lesson


def test_there_is_no_lesson_without_values() -> None:
    bare = replace(BASIC, signals=Signals())
    assert assigned(bare, credit={"name": "returns"}).lesson is None
    assert assigned(BASIC, credit={"name": "total"}).lesson is not None
    empty = assigned(valued([], []), credit={"name": "gae"}).lesson
    assert empty is not None and empty.values == empty.targets == empty.returns == ()


def test_where_credit_reads_values_is_known() -> None:
    def anchor(**credit: Any) -> str | None:
        return Method(build(MethodConfig, {"credit": credit})).value_anchor

    assert anchor(name="turn_gae") == "first" and anchor(name="turn_gae", anchor="last") == "last"
    assert anchor(name="gae") is None and anchor(name="total") is None


def test_roles_are_whitened_over_tokens_where_worths_are_per_token() -> None:
    """PAG: GAE that stops at the turn (gamma_turn 0), then each role's tokens by themselves."""
    graded = replace(BASIC, seats=("policy", "verifier"))
    found = assigned(graded, credit={"name": "bilevel_gae", "gamma_turn": 0.0}, normalise=[{"name": "by_role"}])
    for turn in found.advantages:
        assert isinstance(turn, tuple) and len(turn) == 5
        assert sum(turn) == pytest.approx(0.0, abs=1e-9)
        assert sum(x * x for x in turn) / 4 == pytest.approx(1.0, abs=1e-6)
    raw = cut(flat(found.raw), (5, 5))  # type: ignore[arg-type]
    assert raw[0] == pytest.approx((0.9, 0.8, 0.7, 0.6, 0.5)), "nothing flows back from the second turn"
