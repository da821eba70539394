"""Rule 14: a world that judges at the end does so too where a limit or a bad action ended the episode."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

import pytest

from mmturn.errors import EnvError, NotRunnable
from mmturn.interfaces import Concludes
from mmturn.rewards.env_score import EnvScore
from mmturn.rollout import Driver, InlineHost, RolloutConfig, ThreadHost, episodes
from mmturn.testing.fakes import CharRenderer, PlanEngine, TextWorld, WordGrammar
from mmturn.types import Observation, StopReason, Task, Trajectory


class Judging(TextWorld):
    """Judges when it is asked to; a task's question says what comes of that."""

    concluded: ClassVar[list[str]] = []

    def reset(self, task: Task, seed: int) -> Observation:
        self.question = task.question
        if self.question == "cannot":
            raise NotRunnable("no such application")
        return super().reset(task, seed)

    def conclude(self) -> Mapping[str, object]:
        self.concluded.append(self.question)
        if self.question == "crash":
            raise ValueError("broken")
        if self.question == "lacks":
            raise NotRunnable("no such file")
        if self.question == "object":
            return {"score": object()}
        if self.question == "hang":
            time.sleep(1.5)
        return {"score": 0.5}


def run(question: str, plan: list[str], host: object = None, **settings: object) -> Trajectory:
    Judging.concluded = []
    config = RolloutConfig(**{"max_turns": 2, "max_context": 10_000, **settings})
    engine = PlanEngine({"t": plan})
    driver = Driver(engine, CharRenderer(), WordGrammar(), Judging, host or InlineHost(), config)
    try:
        [found] = driver.run(episodes([(Task("t", question), 0)], 1, 0))
    finally:
        driver.close()
    return found


@pytest.mark.parametrize(
    ("plan", "settings", "stop"),
    [
        (["look", "look"], {}, StopReason.TURN_LIMIT),
        (["look", "huh"], {}, StopReason.TURN_LIMIT),
        (["huh"], {"bad_action": "end"}, StopReason.INVALID),
        (["look", "look"], {"max_tokens": 5}, StopReason.TOKEN_LIMIT),
        (["look", "look"], {"max_context": 22, "max_new_tokens": 8}, StopReason.CONTEXT_LIMIT),
    ],
)
@pytest.mark.parametrize("make_host", [InlineHost, ThreadHost])
def test_an_episode_that_something_else_ended_is_judged(plan, settings, stop, make_host):
    found = run("q", plan, make_host(), **settings)
    assert found.stop is stop and found.facts == {"score": 0.5} and Judging.concluded == ["q"]
    assert EnvScore()(found) == 0.5


def test_an_answer_is_judged_by_its_step():
    found = run("q", ["=x"])
    assert found.stop is StopReason.ANSWERED and Judging.concluded == [] and found.facts == {}


def test_a_failure_is_not_judged():
    assert run("q", ["look:crash"]).stop is StopReason.ENV_FAILED and Judging.concluded == []


@pytest.mark.parametrize(
    ("question", "stop", "error"),
    [
        ("crash", StopReason.ENV_FAILED, "ValueError: broken"),
        ("lacks", StopReason.NOT_RUNNABLE, "no such file"),
        ("object", StopReason.ENV_FAILED, "cannot be stored"),
        ("cannot", StopReason.NOT_RUNNABLE, "no such application"),
    ],
)
def test_a_judgement_that_fails_is_no_score(question, stop, error):
    found = run(question, ["look", "look"])
    assert found.stop is stop and error in found.error and found.facts == {}
    assert found.stop.status == "failed"


def test_a_judgement_that_hangs_is_given_up():
    host = ThreadHost(1, 0.2)
    found = run("hang", ["look", "look"], host)
    assert found.stop is StopReason.ENV_FAILED and "TimeoutError" in found.error


def test_only_worlds_that_judge_are_asked():
    assert isinstance(Judging(), Concludes) and not isinstance(TextWorld(), Concludes)
    assert issubclass(NotRunnable, EnvError)
