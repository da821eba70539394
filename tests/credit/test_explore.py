"""Bonuses that depend on how often others looked again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmturn.credit.curiosity import curiosity_bonus, exploration_stage
from mmturn.credit.graded import Graded, example_batch
from mmturn.credit.method import Method, MethodConfig
from mmturn.credit.pieces.explore import Exploration, curiosity
from mmturn.errors import ConfigError, DataError


def graded(index: int, calls: tuple[float, ...], group: str = "g") -> Graded:
    count = len(calls)
    return Graded(
        id=f"{group}/{index}", group=group, index=index, task=group, meta={}, status="terminated", outcome=1.0,
        turns=(0.0,) * count, tokens=(2,) * count, seats=("policy",) * count, versions=(0,) * count,
        acted=(True,) * count, per_turn={"tool_calls": calls},
    )  # fmt: skip


def test_curiosity_in_the_papers_numbers() -> None:
    bonuses = curiosity_bonus([1, 0, 0, 0, 0, 0, 0, 0])
    assert bonuses == pytest.approx((0.0875, *[0.0] * 7))
    assert curiosity_bonus([3, 0, 0, 0, 0, 0, 0, 0])[0] == pytest.approx(0.0875 - 0.1)
    assert curiosity_bonus([1, 1, 1, 0])[0] == 0.0  # the rate is high enough
    with pytest.raises(ValueError, match="without"):
        curiosity_bonus([])


def test_curiosity_goes_by_group() -> None:
    lonely = [graded(i, (float(i == 0), 0.0), "a") for i in range(8)]
    busy = [graded(i, (1.0, 1.0), "b") for i in range(8)]
    method = Method(MethodConfig(shape=({"name": "curiosity"},), normalise=()))
    found = method.assign([*busy, *lonely])
    assert found[8].raw == pytest.approx(1.0875)
    assert found[9].raw == pytest.approx(1.0)
    assert found[0].raw == pytest.approx(1.0 - 0.05)
    assert curiosity(lonely, alpha=1.0)[0].outcome == pytest.approx(1.175)


def test_exploration_has_stages() -> None:
    assert [exploration_stage(rate, (0.1, 0.5)) for rate in (0.0, 0.09, 0.1, 0.49, 0.5, 1.0)] == [
        0,
        0,
        1,
        1,
        None,
        None,
    ]
    none = [graded(i, (0.0, 0.0)) for i in range(19)]
    box = Exploration()
    assert box([*none, graded(19, (1.0, 0.0))])[-1].turns == (1.0, 0.0)  # one of twenty
    assert box([*none[:3], graded(19, (2.0, 0.0))])[-1].turns == (1.0, 0.0)  # one of four, two calls
    assert box([none[0], graded(19, (1.0, 0.0))])[-1].turns == (0.0, 0.0)  # one of two


def test_exploration_is_switched_off_for_good_and_remembers_it() -> None:
    few, many = [graded(i, (float(i == 0),)) for i in range(4)], [graded(i, (1.0,)) for i in range(4)]
    box = Exploration(patience=2)
    box(many)
    assert box(few)[0].turns == (0.5,)  # one batch above is not enough, and the count begins anew
    box(many)
    stored = box.state()
    box(many)
    assert box(few)[0].turns == (0.0,)
    again = Exploration(patience=2)
    again.load_state(stored)
    again(many)
    assert again(few)[0].turns == (0.0,)
    method = Method(MethodConfig(shape=({"name": "exploration", "patience": 1},)))
    method.assign(many)
    assert method.state() == {"shape0": {"above": 1}}
    other = Method(MethodConfig(shape=({"name": "exploration", "patience": 1},), normalise=()))
    other.load_state(method.state())
    assert other.assign(few)[0].raw == 1.0


def test_bad_settings_and_missing_terms_are_named() -> None:
    with pytest.raises(ConfigError, match="rising"):
        Method(MethodConfig(shape=({"name": "exploration", "rates": [0.5, 0.1]},)))
    bare = replace(graded(0, (1.0,)), per_turn={})
    for box in (curiosity, Exploration()):
        with pytest.raises(DataError, match="tool_calls"):
            box([bare])


def test_a_box_over_the_batch_gives_back_the_same_trajectories(tmp_path: Path) -> None:
    (tmp_path / "boxes.py").write_text(
        "from mmturn.credit.scope import over\n"
        "@over('batch')\ndef lossy(batch):\n    return batch[1:]\n"
        "@over('group')\ndef same(group):\n    return group\n"
    )
    with pytest.raises(DataError, match="other trajectories"):
        Method(MethodConfig(shape=({"name": f"{tmp_path}/boxes.py:lossy"},)), allow_code=True).assign(example_batch())
    plain, same = Method(), Method(MethodConfig(shape=({"name": f"{tmp_path}/boxes.py:same"},)), allow_code=True)
    assert same.assign(example_batch()) == plain.assign(example_batch())
