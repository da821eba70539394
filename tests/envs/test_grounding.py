"""Pointing: clicks on the screenshot and on crops of it, refusals, verdicts; a benchmark from the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmturn.envs.grounding import Grounding
from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.evaluation.suites import PointScorer
from mmturn.gui_actions import act, finish
from mmturn.rewards.clicks import action_match, click_hit
from mmturn.testing.examples import example_environment, example_trajectories
from mmturn.tools.crop import CropTool
from mmturn.types import Action, Task, Trajectory


@pytest.fixture
def task(tmp_path: Path) -> Task:
    Image.new("RGB", (400, 200), "white").save(tmp_path / "screen.png")
    return Task(
        "t", "Click.", (str(tmp_path / "screen.png"),), meta={"target": {"kind": "box", "numbers": [20, 10, 60, 40]}}
    )


def grounding(**settings: Any) -> Any:
    return example_environment(Grounding, settings, tools=[CropTool()])


def ended(task: Task, actions: tuple[Action, ...], **target: Any) -> Trajectory:
    """The trajectory of one turn in a true environment."""
    env = grounding()
    task = replace(task, meta={"target": target}) if target else task
    env.reset(task, 0)
    step = env.step(actions)
    assert step.terminated
    example = example_trajectories()[0]
    turn = replace(example.turns[-1], facts=step.facts, actions=actions)
    return replace(example, task=task, turns=(turn,), answer=step.answer)


def test_a_click_ends_the_episode(task: Task) -> None:
    env = grounding()
    view = env.reset(task, 0).views[0]
    x, y = 400 / view.size.width, 200 / view.size.height
    step = env.step((act("click", 0, point=[30, 20], button="right"),))
    assert step.terminated and step.facts["point"] == pytest.approx([30 * x, 20 * y])
    assert [spec.name for spec in env.tools] == ["click", "crop"]


def test_a_click_on_a_crop_is_carried_back(task: Task) -> None:
    env = grounding()
    whole = env.reset(task, 0).views[0]
    x, y = whole.size.width / 400, whole.size.height / 200
    box = [100 * x, 50 * y, 300 * x, 150 * y]
    look = env.step((Action("tool", "crop", {"bbox_2d": box}, 0),))
    crop = look.observation.views[0]
    step = env.step((act("click", 1, point=[crop.size.width / 2, crop.size.height / 4]),))
    region = crop.region
    there = [region.x0 + region.width / 2, region.y0 + region.height / 4]
    assert step.facts["point"] == pytest.approx(there) and there == pytest.approx([200, 75], abs=1)


def test_a_point_outside_is_not_moved(task: Task) -> None:
    assert max(ended(task, (act("click", 0, point=[-1, -1]),)).turns[0].facts["point"]) < 0


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ((act("click"),), "say where"),
        ((act("click", 3, point=[1, 1]),), "no image 3"),
        ((act("back"),), "no tool 'back'"),
    ],
)
def test_a_click_needs_a_place(task: Task, actions: tuple[Action, ...], message: str) -> None:
    env = grounding()
    env.reset(task, 0)
    with pytest.raises(ToolError, match=message):
        env.step(actions)
    assert env.step((act("click", 0, point=[1, 1]),)).terminated


def test_a_tool_must_not_take_its_name() -> None:
    tool = CropTool()
    tool.spec = replace(tool.spec, name="click")
    with pytest.raises(ConfigError, match="another name"):
        example_environment(Grounding, tools=[tool])


CLICK = (act("click", 0, point=[10, 10]),)
REFUSALS = [
    (finish("", "infeasible"),),
    (finish("none"),),
    (finish("None."),),
    (finish("[-1, -1]"),),
    (finish("(-1,-1)"),),
]


@pytest.mark.parametrize(
    ("actions", "target", "outcome"),
    [
        (CLICK, {"kind": "box", "numbers": [0, 0, 400, 200]}, "correct"),
        (CLICK, {"kind": "box", "numbers": [0, 0, 2, 2]}, "wrong"),
        (CLICK, {"kind": "polygon", "numbers": [0, 0, 400, 0, 400, 200, 0, 200]}, "correct"),
        (CLICK, {"kind": "polygon", "numbers": [390, 0, 400, 0, 400, 200]}, "wrong"),
        (CLICK, {"kind": "refusal", "numbers": []}, "wrong"),
        *[(refusal, {"kind": "refusal", "numbers": []}, "correct") for refusal in REFUSALS],
        *[(refusal, {"kind": "box", "numbers": [0, 0, 400, 200]}, "wrong") for refusal in REFUSALS],
        ((act("click", 0, point=[-1, -1]),), {"kind": "refusal", "numbers": []}, "correct"),
        ((act("click", 0, point=[-1, 5]),), {"kind": "refusal", "numbers": []}, "wrong"),
        ((finish("(30, 20)"),), {"kind": "refusal", "numbers": []}, "wrong_format"),
        ((finish("(30, 20)"),), {"kind": "box", "numbers": [0, 0, 400, 200]}, "wrong_format"),
        ((finish("", "infeasible", invalid="no call"),), {"kind": "refusal", "numbers": []}, "wrong_format"),
    ],
)
def test_verdicts(task: Task, actions: tuple[Action, ...], target: dict[str, Any], outcome: str) -> None:
    trajectory = ended(task, actions, **target)
    score = PointScorer()(trajectory)
    assert (score.meta["outcome"], score.value) == (outcome, float(outcome == "correct"))
    assert score.extractor == "mmturn/point-1" and click_hit(trajectory) == score.value


BOX = {"kind": "box", "numbers": [20, 10, 60, 40]}
MEANT: list[tuple[dict[str, Any], Action, float]] = [
    ({"target": BOX}, act("click", 0, point=[30, 20]), 1.0),
    ({"target": BOX}, act("long_press", 0, point=[30, 20]), 0.0),
    ({"target": BOX, "action": {"name": "click"}}, act("click", 0, point=[30, 20]), 1.0),
    ({"target": BOX, "action": {"name": "click"}}, act("click", 0, point=[200, 90]), 0.0),
    ({"target": BOX, "action": {"name": "click"}}, act("drag", 0, path=[[30, 20], [30, 90]]), 0.0),
    ({"target": BOX, "action": {"name": "drag"}}, act("drag", 0, path=[[30, 20], [200, 90]]), 1.0),
    ({"target": BOX, "action": {"name": "drag"}}, act("drag", 0, path=[[200, 90], [30, 20]]), 0.0),
    ({"action": {"name": "type", "text": "Milk"}}, act("type", text="Milk"), 1.0),
    ({"action": {"name": "type", "text": "Milk"}}, act("type", text="milk"), 0.0),
    ({"action": {"name": "type", "text": "Milk"}, "target": BOX}, act("click", 0, point=[30, 20]), 0.0),
    ({"action": {"name": "back"}}, act("back"), 1.0),
    ({"action": {"name": "back"}}, act("home"), 0.0),
    ({"action": {"name": "key", "keys": ["Return"]}}, act("key", keys=["enter"]), 1.0),
    ({"action": {"name": "open_app", "app": "Maps"}}, act("open_app", app="Mail"), 0.0),
    ({"action": {"name": "wait"}}, act("wait", duration_s=2), 1.0),
    ({"action": {"name": "finish"}}, finish(), 1.0),
    ({"action": {"name": "finish", "status": "failure"}}, finish(), 0.0),
    ({"action": {"name": "finish"}}, finish(invalid="no call"), 0.0),
]


@pytest.mark.parametrize(("meta", "action", "value"), MEANT)
def test_a_step_is_the_one_that_was_meant(task: Task, meta: dict[str, Any], action: Action, value: float) -> None:
    env, task = grounding(actions=[*STEPS], root_budget=[1, 10**9]), replace(task, meta=meta)
    view = env.reset(task, 0).views[0]
    x, y = view.size.width / 400, view.size.height / 200
    places = {"point": lambda at: [at[0] * x, at[1] * y], "path": lambda ends: [[a * x, b * y] for a, b in ends]}
    moved = {key: places.get(key, lambda same: same)(given) for key, given in action.arguments.items()}
    step = env.step((replace(action, arguments=moved),))
    example = example_trajectories()[0]
    turn = replace(example.turns[-1], facts=step.facts)
    assert step.terminated and action_match(replace(example, task=task, turns=(turn,))) == value


STEPS = ("click", "long_press", "drag", "type", "key", "back", "home", "open_app", "wait")


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ({"name": "swim"}, "there is no action 'swim'"),
        ({"name": "type"}, "type needs the argument text"),
        ("back", 'an action is an object like {"name": "type"'),
        ({"name": "click"}, "meta.target must say where"),
        ({"name": "finish", "score": 1}, "text and status"),
    ],
)
def test_a_step_that_cannot_be_read_is_told_with_its_task(task: Task, gold: Any, message: str) -> None:
    with pytest.raises(EnvError, match=f"task t: meta.action.*{re.escape(message)}"):
        grounding(actions=[*STEPS]).reset(replace(task, meta={"action": gold}), 0)
    with pytest.raises(ConfigError, match="actions must be some of click, .*; got 'swim'"):
        grounding(actions=["swim"])


def test_a_task_without_a_target_earns_nothing(task: Task) -> None:
    blind = replace(ended(task, CLICK), task=Task("t", "?"))
    assert click_hit(blind) == action_match(blind) == 0.0


@pytest.mark.parametrize("suite", ["grounding", "grounding_zoom"])
def test_a_benchmark_from_the_command_line(suite: str, repo: Path, tmp_path: Path) -> None:
    Image.new("RGB", (128, 128), "white").save(tmp_path / "a.png")
    row = {"img_filename": "a.png", "bbox": [0, 0, 128, 128], "instruction": "it", "data_type": "icon"}
    for platform in ("web", "mobile"):
        (tmp_path / f"screenspot_{platform}.json").write_text(json.dumps([row]), encoding="utf-8")
    done = subprocess.run(
        ["bash", str(repo / "eval" / f"{suite}.sh"), "--benchmark", "screenspot", "--data", str(tmp_path), "--model",
         str(repo / "checkpoints" / "nano"), "--out", str(tmp_path / "out"), "--smoke",
         "--set", "env.root_budget=[4096,16384]"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "MMTURN": str(_command(tmp_path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "mean of the 2 cells" in done.stdout and "by cell" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()[1:]]
    assert {line["meta"]["outcome"] for line in lines} <= {"correct", "wrong", "wrong_format"} and len(lines) == 2


def _command(folder: Path) -> Path:
    """An executable that is this checkout's ``mmturn``."""
    shim = folder / "mmturn"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mmturn "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    return shim
