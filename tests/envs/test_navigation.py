"""Walking: what is seen, what a step reports, budgets, and an oracle through the true driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmturn.components import make_grammar
from mmturn.engines.scripted import ScriptedEngine
from mmturn.envs.navigation import Navigation, NavigationConfig
from mmturn.envs.navigation_picture import picture
from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.families import family_of
from mmturn.geometry import Size
from mmturn.grammars.gui.active_vln import ActiveVlnGrammar
from mmturn.gui_actions import act, finish
from mmturn.media import ImageStore
from mmturn.models.files import model_folder
from mmturn.recipe import read_recipe
from mmturn.rendering.renderer import Renderer
from mmturn.rendering.tokenizer import load_tokenizer
from mmturn.rewards.navigation import WalkConfig, WalkReward, arrived
from mmturn.rewards.rubric import rubric_of
from mmturn.rollout import Driver, InlineHost, episodes
from mmturn.tasks.navigation import House, Pose, expert_actions, make_house, navigation_tasks
from mmturn.testing.contracts import check_environment
from mmturn.testing.examples import example_environment
from mmturn.testing.tiny import tiny_model
from mmturn.tools.crop import CropTool
from mmturn.types import Request, StopReason, Task, Trajectory

TASKS = navigation_tasks("train", 6)
HALL = House(
    7, frozenset((x, 3) for x in range(1, 6)), {(6, 3): "red"}, ((1, 3), (2, 3), (3, 3)), Pose(2.25, 5.25, 0.0)
)  # fmt: skip


def walk(**settings: Any) -> Any:
    return example_environment(Navigation, settings, tools=[])


def test_it_keeps_the_contract() -> None:
    check_environment(walk, TASKS[0], [act("turn", degrees=30), act("move_forward", distance_cm=25)])
    with pytest.raises(ConfigError, match=r"set tools: \[\]"):
        example_environment(Navigation, tools=[CropTool()])


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"budget": [9, 3]}, "env.budget"), ({"size": [4, 300]}, "env.size"), ({"fov_degrees": 180.0}, "fov_degrees"),
        ({"tolerance": 0.5}, "tolerance"), ({"max_actions": 0}, "max_actions"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        walk(**settings)


def test_the_picture_shows_what_is_ahead() -> None:
    """Down a hall with a red end: red in the middle, more of it nearer, none behind; mirrored to the other side."""
    far, near = (picture(HALL, Pose(x, 5.25, 0.0), Size(160, 120)) for x in (2.25, 7.5))
    back = picture(HALL, Pose(7.5, 5.25, 180.0), Size(160, 120))

    def reds(image: Any) -> int:
        pixels = np.asarray(image).astype(int)
        return int(((pixels[:, :, 0] > pixels[:, :, 1] + 40) & (pixels[:, :, 0] > pixels[:, :, 2] + 40)).sum())

    assert 0 < reds(far) < reds(near) and reds(back) == 0
    red = np.asarray(near)[60, 80]
    assert red[0] > 2 * red[1]
    left, right = (picture(HALL, Pose(7.5, 5.25, turn), Size(160, 120)) for turn in (20.0, -20.0))
    # Looking left, the end of the hall lies to the right in the picture.
    middle = [
        np.argwhere(np.asarray(i)[60, :, 0] > 2 * np.asarray(i)[60, :, 1].astype(int)).mean() for i in (left, right)
    ]
    assert middle[0] > 80 > middle[1]


def test_a_wall_has_its_height_in_the_picture() -> None:
    """At 1.25 m a wall of 2.5 m just fills 90 degrees of a square picture; at 2.5 m, half of it."""
    for distance, share in ((1.25, 1.0), (2.5, 0.5)):
        image = np.asarray(picture(HALL, Pose(9.0 - distance, 5.25, 0.0), Size(200, 200)))
        column = image[:, 100].astype(int)
        assert (column[:, 0] > 2 * column[:, 1]).mean() == pytest.approx(share, abs=0.02)


def test_the_field_of_view_is_a_setting() -> None:
    wide, narrow = (walk(fov_degrees=fov).reset(TASKS[0], 0).views[0].source.sha256 for fov in (120.0, 60.0))
    assert wide != narrow


def test_facts_of_a_step() -> None:
    env, task = walk(), TASKS[0]
    env.reset(task, 0)
    house = make_house(task.meta["house"])
    step = env.step((act("turn", degrees=30), act("turn", degrees=-45)))
    start = house.start
    assert step.facts["degrees"] == (start.degrees - 15) % 360 and step.facts["actions"] == 2
    assert step.facts["position_m"] == [start.x_m, start.y_m] and step.facts["collided"] is False
    assert step.facts["distance_m"] == pytest.approx((len(house.way) - 1) * 1.5)
    last = env.step((finish(),))
    assert last.terminated and last.facts["stopped"] is True and 0 < last.facts["ndtw"] < 1
    env.reset(task, 0)
    assert env.step((act("move_forward", distance_cm=9_999),)).facts["collided"] is True


def test_what_cannot_be_done_is_refused_before_anything_is_done() -> None:
    env = walk()
    env.reset(TASKS[0], 0)
    with pytest.raises(ToolError, match="click cannot be done here"):
        env.step((act("turn", degrees=30), act("click")))
    assert (
        env.step((act("turn", degrees=15),)).facts["degrees"]
        == (make_house(TASKS[0].meta["house"]).start.degrees + 15) % 360
    )


def test_the_budget_is_a_multiple_of_the_expert_s_actions() -> None:
    env = walk(tolerance=1.0)
    env.reset(replace(TASKS[0], meta={**TASKS[0].meta, "expert_steps": 4}), 0)
    turn = act("turn", degrees=15)
    assert env.step((turn,) * 3).observation is not None
    step = env.step((turn,) * 3)
    assert step.limit == StopReason.TURN_LIMIT.value and step.facts["actions"] == 2, "the fifth is beyond it"
    env.reset(replace(TASKS[0], meta={**TASKS[0].meta, "expert_steps": 4}), 0)
    assert env.step((turn,) * 3).observation is not None and env.step((turn,)).observation is not None
    assert env.step((finish(),)).facts["stopped"], "a stop counts beyond it, as in the published environment"
    env = walk(max_actions=2)
    env.reset(TASKS[0], 0)
    assert env.step((turn,) * 3).limit == StopReason.TURN_LIMIT.value


@pytest.mark.parametrize("meta", [{}, {"house": "x"}, {"house": 1, "size": 8}])
def test_a_task_without_a_house_fails(meta: dict[str, Any]) -> None:
    with pytest.raises(EnvError, match="task t names no house"):
        walk().reset(Task("t", "Go.", meta=meta), 0)


def trajectories(script: Any, count: int = 4, max_turns: int = 40) -> list[Trajectory]:
    """Walks through the true driver with ActiveVLN's grammar, the small policy's tokens and the recipe's reward."""
    recipe, _ = read_recipe("active_vln", ("model.path=checkpoints/nano",))
    folder = model_folder(recipe.model.path)
    renderer = Renderer(family_of(folder, recipe.model.family), load_tokenizer(folder))
    store, tasks = ImageStore(), {task.id: task for task in TASKS[:count]}

    def env() -> Any:
        config = NavigationConfig(budget=(4096, 16384))
        return Navigation(config, store, renderer.family.size_rule, [])

    driver = Driver(
        ScriptedEngine(lambda request: script(tasks[request.task_id], request), renderer), renderer,
        make_grammar(recipe.grammar, renderer.family), env, InlineHost(),
        replace(recipe.rollout, deterministic=True, max_turns=max_turns),
    )  # fmt: skip
    rubric = rubric_of(recipe.reward)
    return [replace(t, reward=rubric(t)) for t in driver.run(episodes([(t, 0) for t in tasks.values()], 1, run_seed=0))]


def expert(task: Task, request: Request) -> str:
    actions = expert_actions(make_house(task.meta["house"]))
    return ActiveVlnGrammar().format_turn(actions[3 * request.turn : 3 * request.turn + 3], [])


def test_the_oracle_arrives() -> None:
    found = trajectories(expert)
    assert len(found) == 4
    for trajectory in found:
        assert trajectory.stop is StopReason.ANSWERED and arrived(trajectory) == 1.0
        assert trajectory.reward is not None and trajectory.reward.total == pytest.approx(15.0)
        assert trajectory.turns[-1].facts["ndtw"] == 1.0
        assert trajectory.num_turns == -(-trajectory.task.meta["expert_steps"] // 3)


def test_other_ends_earn_nothing() -> None:
    """Standing still, stopping at once too far away, and writing something else."""
    turning, stopping, talking = (
        trajectories(lambda task, request, text=text: text, count=2)
        for text in ("turn left 15 degrees", "stop", "I walk on.")
    )
    assert {t.stop for t in turning} == {StopReason.TURN_LIMIT} and {t.stop for t in talking} == {StopReason.INVALID}
    assert {t.stop for t in stopping} == {StopReason.ANSWERED}
    assert all(t.reward is not None and t.reward.total == 0 for t in (*turning, *stopping, *talking))


def test_three_metres_are_an_arrival_still() -> None:
    (walked,) = trajectories(expert, count=1)
    for distance_m, reached in ((3.0, 1.0), (3.001, 0.0)):
        facts = {**walked.turns[-1].facts, "distance_m": distance_m}
        changed = replace(walked, turns=(*walked.turns[:-1], replace(walked.turns[-1], facts=facts)))
        assert arrived(changed) == reached
        assert WalkReward(WalkConfig(kind="success"))(changed) == 15 * reached


def test_a_wall_adds_nothing_to_the_walk() -> None:
    """A move that goes nowhere leaves no position, so that it costs no likeness."""
    env = walk()
    env.reset(TASKS[0], 0)
    while not env.step((act("move_forward", distance_cm=75),)).facts["collided"]:
        pass
    positions = len(env._walk)
    assert env.step((act("move_forward", distance_cm=75),)).facts["collided"] and len(env._walk) == positions


@pytest.mark.parametrize(
    ("settings", "reward"),
    [
        ({}, 15 * (1 - 1.5 / 3)),
        ({"kind": "success"}, 15.0),
        ({"ndtw_base": 2.0}, 7.5 + 2.0 * 0.5),
        ({"radius_m": 1.5}, 0.0),
        ({"success_base": 1.0}, 0.5),
    ],
)
def test_rewards_of_one_walk(settings: dict[str, Any], reward: float) -> None:
    """Stopped 1.5 m from the goal, half like the expert's."""
    (walked,) = trajectories(expert, count=1)
    facts = {**walked.turns[-1].facts, "distance_m": 1.5, "ndtw": 0.5}
    changed = replace(walked, turns=(*walked.turns[:-1], replace(walked.turns[-1], facts=facts)))
    assert WalkReward(WalkConfig(**settings))(changed) == pytest.approx(reward)
    with pytest.raises(ConfigError, match="radius_m"):
        WalkConfig(radius_m=0)


def test_the_recipe_takes_an_update_on_a_tiny_model(repo: Path, tmp_path: Path) -> None:
    model = tiny_model("qwen2_5_vl", tmp_path / "tiny")
    settings = [
        "model.download=false", "model.dtype=float32", "rl.groups_per_update=2", "training.updates=1",
        "rollout.max_new_tokens=8", "rollout.max_turns=2", "rollout.bad_action=continue", "env.budget=[784,3136]",
        "training.zero_stage=0", "data.train_tasks=4", "data.validation_tasks=0", "rl.refill_rounds=0",
        "method.select=[]", "rl.group_size=2",
    ]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        ["bash", str(repo / "train" / "active_vln.sh"), "--model", str(model), "--out", str(tmp_path / "run"), *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHON": sys.executable, "GPUS": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (update,) = [line for line in lines if line.get("update") == 1]
    assert update["rollout/failed"] == 0
