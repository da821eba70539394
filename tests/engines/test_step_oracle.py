"""Single steps on a screen, done as they were meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmturn.engines.step_oracle import StepScript
from mmturn.envs.grounding import Grounding
from mmturn.errors import DataError
from mmturn.registry import GRAMMARS
from mmturn.rewards.clicks import action_match
from mmturn.testing.examples import example_environment, example_trajectories
from mmturn.types import Request, Sampling, Task, Turn

BOX = {"kind": "box", "numbers": [20, 10, 60, 40]}
SWIPE = {"name": "drag", "path": [[30, 20], [30, 150]]}


def played(task: Task, grammar: Any) -> float:
    """What the script's step earns in the true environment, its screenshot shown smaller than it is."""
    actions = ["click", "long_press", "drag", "type", "back", "wait"]
    env: Any = example_environment(Grounding, {"actions": actions, "root_budget": [3136, 20_000]})
    views = env.reset(task, 0).views
    assert views[0].size != views[0].source.size
    request = Request("r", task.id, 0, (), views, Sampling(64, 0.0, 1.0), 0)
    text = StepScript([task], grammar)(request)
    step = env.step(grammar.parse(text, views, env.tools, 0))
    example = example_trajectories()[0]
    turn: Turn = replace(example.turns[-1], facts=step.facts)
    return action_match(replace(example, task=task, turns=(turn,)))


@pytest.fixture
def screen(tmp_path: Path) -> str:
    Image.new("RGB", (400, 200), "white").save(tmp_path / "screen.png")
    return str(tmp_path / "screen.png")


@pytest.mark.parametrize(
    "meta",
    [
        {"target": BOX},
        {"target": BOX, "action": {"name": "long_press"}},
        {"target": BOX, "action": SWIPE},
        {"action": {"name": "type", "text": "a < b"}},
        {"action": {"name": "back"}},
    ],
)
@pytest.mark.parametrize("name", ["mobile_r1", "tool_call"])
def test_what_was_meant_is_done(screen: str, meta: dict[str, Any], name: str) -> None:
    cls = GRAMMARS.resolve(name)
    assert played(Task("t", "Go on.", (screen,), meta=meta), cls(cls.Config())) == 1.0


def test_nothing_is_pointed_at_where_there_is_nothing(screen: str) -> None:
    task = Task("t", "Go on.", (screen,), meta={"target": {"kind": "refusal", "numbers": []}})
    end = Task("t", "Go on.", (screen,), meta={"action": {"name": "finish", "status": "failure"}})
    assert played(end, GRAMMARS.resolve("mobile_r1")()) == 1.0
    assert played(task, GRAMMARS.resolve("tool_call")()) == played(task, GRAMMARS.resolve("ui_tars")()) == 1.0
    with pytest.raises(DataError, match="mobile_r1 dialect cannot write"):
        played(task, GRAMMARS.resolve("mobile_r1")())


@pytest.mark.parametrize(
    ("meta", "message"),
    [({}, "neither meta.action nor meta.target"), ({"target": BOX, "action": {"name": "drag"}}, "without its path")],
)
def test_what_cannot_be_shown_is_named(screen: str, meta: dict[str, Any], message: str) -> None:
    cls = GRAMMARS.resolve("mobile_r1")
    with pytest.raises(DataError, match=f"task t: .*{message}"):
        played(Task("t", "Go on.", (screen,), meta=meta), cls(cls.Config()))
