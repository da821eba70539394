"""Credit over a batch of trajectories, with the gold answer's log-probs that stand on their turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmturn.credit.gain import igpo, information_gains
from mmturn.credit.method import Method, MethodConfig
from mmturn.errors import DataError
from mmturn.training.crediting import Crediting
from mmturn.training.processes import start_processes
from mmturn.types import GOLD_ERRORS, Action, Observation, Reward, StopReason, Task, Trajectory, Turn

GOLD = {"r0": ((-2.0, -1.0), (-1.0, -0.5), (-0.2, -0.1)), "r1": ((-2.0, -1.0), (-2.2, -1.2)), "r2": ((-2.0, -1.0),)}
TOTALS = {"r0": 1.0, "r1": 0.0, "r2": 0.4}


def trajectory(name, gold):
    turns = tuple(
        Turn(k, Observation(("?",)), "x", (1, 2), "os", (-1.0,), logprobs, actions=(Action("answer", "answer"),))
        for k, logprobs in enumerate(gold)
    )
    reward = Reward(TOTALS[name], TOTALS[name], (0.0,) * len(turns))
    return Trajectory(
        name, Task("t", "?", answer="42"), "g", int(name[1]), 0, turns, StopReason.ANSWERED, reward=reward
    )


def credited(group, credit="igpo"):
    crediting = Crediting(
        Method(MethodConfig(credit={"name": credit}, normalise=())), start_processes("cpu"), lambda *_: {}
    )
    groups, assigned = crediting((tuple(group),))
    return groups[0], assigned, crediting.unscored((tuple(group),))


def expected(names):
    return igpo([information_gains(GOLD[name]) for name in names], [TOTALS[name] for name in names])


def test_turns_bring_the_gold_log_probs():
    group = [trajectory(name, gold) for name, gold in GOLD.items()]
    shown, assigned, unscored = credited(group)
    assert [assigned[t.id].advantages for t in shown] == expected(GOLD)
    assert [t.advantages for t in shown] == expected(GOLD) and not unscored


def test_one_that_could_not_be_scored_is_in_no_statistic_and_in_no_loss():
    group = [trajectory(name, gold) for name, gold in GOLD.items()]
    turns = (replace(group[1].turns[0], gold_logprobs=None), *group[1].turns[1:])
    group[1] = replace(group[1], turns=turns, meta={GOLD_ERRORS: {"0": "RuntimeError: no kernel"}})
    shown, assigned, unscored = credited(group)
    assert [shown[i].advantages for i in (0, 2)] == expected(["r0", "r2"])
    assert shown[1].advantages == (0.0, 0.0) and not assigned["r1"].in_loss
    assert unscored == {"r1": "trajectory r1 turn 0: the gold answer was not scored: RuntimeError: no kernel"}
    assert credited(group, "total")[2] == {}, "a method that needs no gold answer goes without"
    assert credited(group, "total")[1]["r1"].in_loss


@pytest.mark.parametrize("lacking", [0, 1])
def test_one_that_was_never_asked_is_an_error(lacking):
    group = [trajectory(name, gold) for name, gold in GOLD.items()]
    turns = [replace(t, gold_logprobs=None) if t.index >= lacking else t for t in group[0].turns]
    with pytest.raises(DataError, match=f"trajectory r0: turn {lacking} has no log-probs of the gold answer"):
        credited([replace(group[0], turns=tuple(turns)), *group[1:]])
