"""Each trap: a history that springs it, one that does not, said once and again after recovery."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import pytest

from mmturn.jobs.explain import setting_docs
from mmturn.recipe import Recipe
from mmturn.registry import REWARDS, SELECTS, SHAPES
from mmturn.training import traps
from mmturn.training.traps import RULES, STRETCH, WINDOW, History, Traps

HEALTHY = {
    "rollout/tool_use": 0.9, "rollout/useful_crop": 0.5, "rollout/zero_variance_groups": 0.3, "reward/answer": 0.6,
    "reward/total": 0.6, "rollout/reward_std": 0.4, "rollout/entropy": 0.8, "mismatch/gap": 0.001,
    "mismatch/ess_share": 0.999, "rollout/truncated": 0.1, "rollout/cut_by_length": 0.05, "rollout/void_turns": 0.02,
    "rollout/turn_tokens": 40.0, "rollout/version_lag": 0.0, "policy/kl": 0.001, "policy/kl_reference": 0.02,
    "policy/grad_norm": 1.0,
}  # fmt: skip


def steady(number: int = WINDOW, **changes: float) -> list[dict[str, float]]:
    return [{**HEALTHY, **{key.replace("__", "/"): value for key, value in changes.items()}}] * number


def sloping(number: int = WINDOW, **ends: tuple[float, float]) -> list[dict[str, float]]:
    """Metrics that go from one value to another in equal steps."""
    spots = [k / (number - 1) for k in range(number)]
    return [
        {**HEALTHY, **{key.replace("__", "/"): a + (b - a) * spot for key, (a, b) in ends.items()}} for spot in spots
    ]


def said(lines: Sequence[dict[str, float]], tools: bool = True) -> list[tuple[int, str]]:
    watch = Traps(tools)
    return [(update, found) for update, line in enumerate(lines, 1) for found in watch.note(update, line)]


FALLING = {"rollout__reward_std": (0.4, 0.05), "rollout__entropy": (0.8, 0.1)}
CASES: dict[str, tuple[list[dict[str, float]], list[dict[str, float]], str]] = {
    "no_tools": (steady(rollout__tool_use=0.0), steady(rollout__tool_use=0.1), "tools hardly fire: 0 %"),
    "useless_crops": (steady(rollout__useful_crop=0.01), steady(rollout__useful_crop=0.1), "1.0 % of them contain"),
    "flat_groups": (
        steady(rollout__zero_variance_groups=0.9), steady(rollout__zero_variance_groups=0.7), "90 % all advantages"
    ),
    "saturated": (
        steady(reward__answer=0.97, rollout__zero_variance_groups=0.9), steady(reward__answer=0.9), "saturated: 97 %"
    ),
    "echo": (sloping(**FALLING), sloping(**FALLING, reward__total=(0.3, 0.7)), "echo trap"),
    "no_entropy": (steady(rollout__entropy=0.005), steady(rollout__entropy=0.05), "entropy collapsed to 0.005"),
    "mismatched": (steady(mismatch__ess_share=0.5), steady(mismatch__gap=0.02), "sampler and trainer disagree"),
    "truncated": (steady(rollout__cut_by_length=0.7), steady(rollout__truncated=0.4), "70 % of turns cut"),
    "unreadable": (steady(rollout__void_turns=0.8), steady(rollout__void_turns=0.3), "replies cannot be read"),
    "longer_and_longer": (
        sloping(rollout__turn_tokens=(40, 160)), sloping(rollout__turn_tokens=(40, 70)), "replies grow: 52.6 -> 109"
    ),
    "stale": (steady(rollout__version_lag=3.0), steady(rollout__version_lag=0.5), "3.0 updates old"),
    "far_away": (steady(policy__kl_reference=0.8), steady(policy__kl=0.05), "drifts off"),
    "spike": (
        [*steady(12), {**HEALTHY, "policy/grad_norm": 30.0}], [*steady(12), {**HEALTHY, "policy/grad_norm": 5.0}],
        "its norm is 30",
    ),
}  # fmt: skip


def test_every_rule_has_its_case() -> None:
    assert [rule.__name__ for rule in RULES] == list(CASES)
    assert said(steady(40)) == []


@pytest.mark.parametrize("name", CASES)
def test_a_trap_is_said_once_and_health_is_not(name: str) -> None:
    sprung, quiet, words = CASES[name]
    found = said(sprung)
    assert len(found) == 1, found
    update, line = found[0]
    assert line.startswith(f"warning at update {update}: ") and words in line and "\n" not in line
    assert said(quiet) == []


def test_entropy_that_falls_by_a_factor_and_a_leap_within_an_update_are_traps_too() -> None:
    assert "entropy collapsed" in said(steady(10) + steady(6, rollout__entropy=0.01))[0][1]
    assert said(steady(10) + steady(6, rollout__entropy=0.5)) == []
    assert "the policy leaps" in said(steady(policy__kl=0.5))[0][1]
    assert "log-probs differ by 0.2" in said(steady(mismatch__gap=0.2))[0][1]


@pytest.mark.parametrize("key", ["rollout__reward_std", "rollout__entropy"])
def test_one_that_falls_alone_is_no_echo(key: str) -> None:
    assert said(sloping(**{key: FALLING[key]})) == []


def test_it_takes_a_stretch_of_updates() -> None:
    assert said(steady(STRETCH - 1, rollout__tool_use=0.0)) == []
    assert [update for update, _ in said(steady(STRETCH, rollout__tool_use=0.0))] == [STRETCH]


def test_said_again_only_after_recovery() -> None:
    bad, good = steady(8, rollout__void_turns=0.8), steady(12)
    assert [update for update, _ in said([*bad, *bad])] == [5]
    again = said([*bad, *good, *bad])
    assert [update for update, _ in again] == [5, 24], "the mean of five passes a half at the fourth"
    flapping = [*bad, *steady(2), *bad]  # the mean is healthy for three updates: no recovery
    assert [update for update, _ in said(flapping)] == [5]


def test_a_solved_task_is_no_collapse() -> None:
    solved = {"reward__answer": 1.0, "rollout__zero_variance_groups": 0.95, "rollout__entropy": 0.001}
    lines = [line for _, line in said(steady(**solved))]
    assert len(lines) == 1 and "saturated" in lines[0]


def test_without_tools_none_is_missed() -> None:
    lines = steady(rollout__tool_use=0.0, rollout__useful_crop=0.0)
    assert said(lines, tools=False) == [] and len(said(lines)) == 2


def test_metrics_that_are_missing_or_no_number_are_no_news() -> None:
    assert said([{}] * 30) == []
    assert said([dict.fromkeys(HEALTHY, math.nan)] * 30) == []
    found = said([line for _ in range(10) for line in ({}, {"rollout/tool_use": 0.0})])
    assert [update for update, _ in found] == [10], "five values are known after ten updates"
    history = History([{"x": 1.0}, {}, {"x": math.inf}, {"x": 3.0}])
    assert history.values("x") == [1.0, 3.0] and math.isnan(history.now("x"))
    assert math.isnan(History([{"x": 1.0}] * 9).before("x"))


def test_settings_and_boxes_that_warnings_name_exist() -> None:
    known = {doc.key for doc in setting_docs(Recipe())}
    boxes = {"select": SELECTS.names(), "shape": SHAPES.names(), "terms": REWARDS.names()}
    named = 0
    for sprung, _, _ in [*CASES.values(), (steady(policy__kl=0.5), [], "")]:
        line = said(sprung)[0][1]
        keys = re.findall(r"\b((?:rl|rollout|method|reward|training|data|curriculum|model)\.[a-z_.]+[a-z])", line)
        assert keys, line
        for key in keys:
            assert any(k == key or k.startswith(f"{key}.") for k in known), key
        for box, names in re.findall(r"(select|shape|terms): (\w+(?: or \w+)?)", line):
            for name in names.split(" or "):
                assert name in boxes[box], name
                named += 1
    assert named >= 9


def test_the_watch_sees_a_rule_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule whose bound is turned round says its trap in health."""
    rule: Callable[[History], str | None] = lambda history: None if traps.unreadable(history) else "broken"  # noqa: E731
    monkeypatch.setattr(traps, "RULES", (rule,))
    assert len(said(steady(6))) == 1
