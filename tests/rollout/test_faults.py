"""Faults of what users write (worlds, grammars) end their own trajectory, and order is fixed where it is promised."""

from __future__ import annotations

import random
import threading
import time

import pytest

from mmturn.errors import ConfigError, ToolError
from mmturn.interfaces import Step
from mmturn.rollout import Driver, InlineHost, RolloutConfig, ThreadHost, episodes
from mmturn.testing.fakes import CharRenderer, PlanEngine, TextWorld, WordGrammar
from mmturn.types import Observation, StopReason, Task


def roll(names, *, world=TextWorld, grammar=None, host=None, engine=None, **settings):
    engine = engine or PlanEngine({name: ["look", "=x"] for name in names}, batch=3)
    driver = Driver(
        engine, CharRenderer(), grammar or WordGrammar(), world, host or InlineHost(), RolloutConfig(**settings)
    )
    done = list(driver.run(episodes([(Task(name, "?"), 0) for name in names], 1, run_seed=0)))
    driver.close()
    return done


class OddWorld(TextWorld):
    """Breaks its contract for some tasks."""

    def reset(self, task, seed):
        self.task = task.id
        if task.id == "refuses":
            raise ToolError("not even a start")
        return None if task.id == "nothing" else super().reset(task, seed)

    def step(self, actions):
        if self.task == "limit":
            return Step(None, False, limit="no such limit")
        return 5 if self.task == "number" else super().step(actions)


def test_a_world_that_breaks_its_contract_fails_alone():
    names = ["good", "refuses", "nothing", "limit", "number", "fine"]
    done = {t.task.id: t for t in roll(names, world=OddWorld)}
    assert len(done) == len(names)
    assert {name for name, t in done.items() if t.stop is StopReason.ANSWERED} == {"good", "fine"}
    assert {t.stop for name, t in done.items() if name not in ("good", "fine")} == {StopReason.ENV_FAILED}
    assert "not even a start" in done["refuses"].error and "no such limit" in done["limit"].error


class OddGrammar(WordGrammar):
    """Has a fault for one task, and a wrong setting for another."""

    def reply(self, task, observation, turn, max_turns):
        if task.id == "bad":
            raise IndexError("off by one")
        if task.id == "misconfigured":
            raise ConfigError("grammar.words is wrong")
        return super().reply(task, observation, turn, max_turns)


def test_a_grammar_with_a_fault_fails_its_trajectory_alone():
    done = {t.task.id: t for t in roll(["a", "bad", "b"], grammar=OddGrammar())}
    assert done["bad"].stop is StopReason.ENV_FAILED and "IndexError: off by one" in done["bad"].error
    assert done["bad"].num_turns == 1, "what was sampled before is on record"
    assert done["a"].stop is done["b"].stop is StopReason.ANSWERED


def test_a_wrong_setting_stops_the_run():
    with pytest.raises(ConfigError, match="words"):
        roll(["a", "misconfigured"], grammar=OddGrammar())


class SlowWorld(TextWorld):
    """Takes a random while."""

    dice = random.Random(0)
    lock = threading.Lock()

    def step(self, actions):
        with self.lock:
            pause = self.dice.uniform(0, 0.01)
        time.sleep(pause)
        return super().step(actions)

    def reset(self, task, seed):
        time.sleep(0.002)
        return Observation(("start",))


def test_deterministic_batches_do_not_depend_on_which_thread_was_faster():
    orders = []
    for workers in (1, 4, 4):
        engine = PlanEngine({f"t{i:02}": ["look", "look", "=x"] for i in range(12)}, batch=5)
        names = [f"t{i:02}" for i in range(12)]
        done = roll(names, world=SlowWorld, host=ThreadHost(workers), engine=engine, deterministic=True)
        orders.append(([r.id + str(r.turn) for r in engine.seen], [t.id for t in done]))
    assert orders[0] == orders[1] == orders[2]


def test_a_world_learns_its_seed_and_the_record_keeps_it():
    seeds = {}

    class SeededWorld(TextWorld):
        def reset(self, task, seed):
            seeds[task.id] = seed
            return super().reset(task, seed)

    for trajectory in roll(["a", "b"], world=SeededWorld):
        assert trajectory.meta["env_seed"] == seeds[trajectory.task.id] != trajectory.seed
