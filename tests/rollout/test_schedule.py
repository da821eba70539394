"""Environments run beside decoding: nobody waits for anybody else's turn."""

from __future__ import annotations

import time

import pytest

from mmturn.rollout import Driver, RolloutConfig, ThreadHost, episodes
from mmturn.testing.fakes import CharRenderer, PlanEngine, TextWorld, WordGrammar
from mmturn.types import StopReason, Task

STEP_S = 0.002


class SlotEngine(PlanEngine):
    """Answers as planned, after as many steps as the task's name says, each row in its own slot."""

    def __init__(self, plans, batch=4):
        super().__init__(plans, batch)
        self.rows = {}
        self.log = []
        self.pauses = []
        self.last = None

    @property
    def room(self):
        return max(self.batch - len(self.waiting) - len(self.rows), 0)

    @property
    def idle(self):
        return not (self.waiting or self.rows)

    def collect(self, max_steps=None):
        if self.rows and self.last is not None:
            self.pauses.append(time.monotonic() - self.last)
        steps, done = 0, []
        while not done and not self.idle and steps != max_steps:
            while self.waiting and len(self.rows) < self.batch:
                request = self.waiting.pop(0)
                self.rows[request.id] = [request, int(request.task_id.split("-")[1])]
                self.log.append(("join", request.task_id, request.turn))
            time.sleep(STEP_S)
            steps += 1
            for name, row in list(self.rows.items()):
                row[1] -= 1
                if not row[1]:
                    del self.rows[name]
                    done.append(self._answer(row[0]))
                    self.log.append(("leave", row[0].task_id, row[0].turn))
        self.last = time.monotonic()
        return done


class SlowWorld(TextWorld):
    """Takes its time over a step."""

    def step(self, actions):
        time.sleep(10 * STEP_S)
        return super().step(actions)


def roll(names, engine, **settings):
    driver = Driver(
        engine, CharRenderer(), WordGrammar(), SlowWorld, ThreadHost(workers=2), RolloutConfig(**settings)
    )  # fmt: skip
    done = list(driver.run(episodes([(Task(name, "?"), 0) for name in names], 1, run_seed=0)))
    driver.close()
    assert {t.stop for t in done} == {StopReason.ANSWERED}
    return done


def test_a_trajectory_comes_back_while_a_long_one_decodes():
    engine = SlotEngine({"short-3": ["look", "look", "=x"], "long-200": ["=x"]})
    done = roll(["short-3", "long-200"], engine)
    assert [t.task.id for t in done] == ["short-3", "long-200"]
    assert engine.log[-1] == ("leave", "long-200", 0) and ("leave", "short-3", 2) in engine.log
    assert sorted(engine.pauses)[len(engine.pauses) // 2] < STEP_S, "looking for finished steps does not take time"


@pytest.mark.parametrize("batch", [1, 3])
def test_with_deterministic_the_schedule_is_fixed(batch):
    names = [f"t{number}-{3 + 2 * number % 5}" for number in range(5)]

    def once():
        engine = SlotEngine({name: ["look", "look", "=x"] for name in names}, batch=batch)
        done = roll(names, engine, deterministic=True)
        return engine.log, [t.id for t in done]

    assert once() == once()
