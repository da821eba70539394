"""Recipes for screens take an update when a tiny model of the same family is swapped in, in the real browser."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmturn.config import shipped_recipes
from mmturn.envs.gui.browser.pool import close_pools
from mmturn.errors import DataError
from mmturn.jobs.sft import sft_policy
from mmturn.jobs.train import train_policy
from mmturn.recipe import OracleConfig, read_recipe
from mmturn.store.trajectories import read_trajectories
from mmturn.tasks.gui.web import shipped_tasks
from mmturn.tasks.rows import write_tasks
from mmturn.testing.tiny import tiny_model
from mmturn.training.log import read_metrics
from mmturn.types import Task

STAGES = {
    "ui_tars_2": ["ui_tars_2_sft", "ui_tars_2"],
    "dart": ["dart_gui"],
    "mobile_r1": ["mobile_r1_sft", "mobile_r1_step", "mobile_r1_task"],
    "webagent_r1": ["webagent_r1_bc", "webagent_r1"],
    "active_vln": ["active_vln_sft", "active_vln"],
}
BROWSER = ("ui_tars_2_sft", "ui_tars_2", "dart_gui", "mobile_r1_sft", "mobile_r1_task", "webagent_r1_bc", "webagent_r1")
TINY = (
    "model.download=false", "model.dtype=float32", "training.zero_stage=0", "training.updates=1", "training.warmup=0",
    "training.micro_batch_rows=2", "training.save_every=0", "training.log=[]", "training.progress=false",
    "data.validation_tasks=0",
)  # fmt: skip
RL = (
    "rl.group_size=2", "rl.groups_per_update=1", "rl.minibatches=1", "rollout.max_turns=2", "rollout.max_new_tokens=6",
    "rollout.bad_action=continue", "rollout.deterministic=true",
)  # fmt: skip
SFT = ("sft.rows_per_update=2", "sft.epochs=0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("qwen2_5_vl", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def browser(chromium: str, pytestconfig: pytest.Config) -> Iterator[None]:
    if importlib.util.find_spec("playwright") is None:
        words = "the browser environment needs playwright: pip install 'mmturn[gui]'"
        pytest.fail(words) if pytestconfig.getoption("--require-browser") else pytest.skip(words)
    torch.set_num_threads(1)
    yield
    close_pools()


def recipe_of(name: str, model: Path, *more: str) -> Any:
    kind = SFT if name.endswith(("_sft", "_bc")) else RL
    small = () if name not in BROWSER else ("env.budget=[784,3136]", "env.prewarmed=0")
    return read_recipe(name, (f"model.path={model}", *TINY, *kind, *small, *more))[0]


def site_task(name: str) -> Task:
    return next(web.task() for web in shipped_tasks() if web.id == name)


@pytest.mark.browser
@pytest.mark.parametrize("name", [name for name in BROWSER if not name.endswith(("_sft", "_bc"))])
def test_a_recipe_takes_an_update_in_the_browser(name: str, model: Path, browser: None, tmp_path: Path) -> None:
    recipe = recipe_of(name, model, *(["critic.pretrain_updates=0"] if name == "ui_tars_2" else []))
    train_policy(recipe, tmp_path / "run", tasks=[site_task("star-invoice")], validation=())
    (line,) = read_metrics(tmp_path / "run")
    trajectories = list(read_trajectories(tmp_path / "run" / "rollouts"))
    assert line["rollout/failed"] == 0 and len(trajectories) == 2
    seen = [view for trajectory in trajectories for view in trajectory.views]
    assert bool(seen) == (name != "webagent_r1")
    assert {trajectory.meta["context"] for trajectory in trajectories} == {recipe.context["name"]}
    if name == "webagent_r1":
        assert all(re.search(r"\[0\] \w+", trajectory.turns[0].observation.text) for trajectory in trajectories)


@pytest.mark.browser
@pytest.mark.parametrize("name", [name for name in BROWSER if name.endswith(("_sft", "_bc"))])
def test_a_first_stage_learns_from_solutions(name: str, model: Path, browser: None, tmp_path: Path) -> None:
    write_tasks([site_task("add-two-things")], tmp_path / "tasks.jsonl")
    recipe = recipe_of(name, model, f"data.train={tmp_path / 'tasks.jsonl'}")
    sft_policy(recipe, tmp_path / "run")
    (line,) = read_metrics(tmp_path / "run")
    assert line["sft/loss"] > 0


def test_mobile_r1_learns_single_steps(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 96), "white").save(tmp_path / "screen.png")
    target = {"kind": "box", "numbers": [8, 8, 40, 40]}
    steps = ({"action": {"name": "click"}, "target": target}, {"action": {"name": "type", "text": "milk"}})
    rows = [
        {"id": str(n), "image": "screen.png", "question": "Buy milk.", "answer": None, **step}
        for n, step in enumerate(steps)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of("mobile_r1_step", model, f"data.train={tmp_path / 'rows.jsonl'}", "env.root_budget=[784,3136]")
    train_policy(recipe, tmp_path / "run", validation=())
    (line,) = read_metrics(tmp_path / "run")
    assert line["rollout/failed"] == 0 and "reward/action_match" in line
    sft_policy(recipe, tmp_path / "first")  # the same rows as lessons: stage one
    (line,) = read_metrics(tmp_path / "first")
    assert line["sft/loss"] > 0
    stored = replace(recipe, oracle=OracleConfig(str(tmp_path / "run" / "rollouts"), least_reward=2.0))
    with pytest.raises(DataError, match="its reward is 0, and oracle.least_reward is 2"):
        sft_policy(stored, tmp_path / "none")
    sft_policy(replace(stored, oracle=replace(stored.oracle, least_reward=0.0)), tmp_path / "all")


def test_active_vln_begins_with_expert_walks(model: Path, tmp_path: Path) -> None:
    recipe = recipe_of("active_vln_sft", model, "data.train_tasks=1", "env.budget=[784,3136]", "env.max_actions=30")
    sft_policy(recipe, tmp_path / "run")
    (line,) = read_metrics(tmp_path / "run")
    assert line["sft/loss"] > 0


def test_every_stage_ships_with_a_launcher(repo: Path) -> None:
    for name in (name for stages in STAGES.values() for name in stages):
        launcher = repo / "train" / f"{name}.sh"
        command = "sft" if name.endswith(("_sft", "_bc")) else "train"
        assert name in shipped_recipes() and os.access(launcher, os.X_OK)
        assert f"-m mmturn {command} {name} " in launcher.read_text(encoding="utf-8")


def test_published_constants_are_as_published() -> None:
    """Source: DART (2509.23866), UI-TARS-2 (2509.02544), WebAgent-R1 (2505.16421)."""
    names = ("dart_gui", "ui_tars_2", "webagent_r1")
    dart, tars, web = (read_recipe(name, ("model.path=checkpoints/nano",))[0] for name in names)
    assert (dart.rl.group_size, dart.rl.kl_coef, dart.rl.correction.cap, dart.training.lr) == (8, 0.1, 1.0, 1e-6)
    assert dart.rl.aggregation == "turn_mean_global" and dart.method.normalise[0]["over"] == "turn"
    assert [box["name"] for box in dart.method.select] == ["with_signal", "high_entropy"]
    assert (dart.rollout.max_turns, dart.context["images"], dart.context["turns"]) == (30, 5, 35)
    assert (tars.method.credit["length_alpha"], tars.critic.targets) == (0.05, "returns")
    assert tars.rl.clip_high > tars.rl.clip_low and tars.critic.pretrain_updates > 0
    assert (web.rollout.max_turns, web.rl.aggregation, web.env["screenshot"]) == (30, "turn_mean", False)
    assert (web.rl.group_size, web.rl.kl_coef, web.training.max_grad_norm) == (4, 0.001, 0.01)


def test_constants_of_phones_and_walks_are_as_published() -> None:
    """Source: Mobile-R1 (2506.20332), ActiveVLN (2509.12618)."""
    step, walk = (read_recipe(name, ("model.path=checkpoints/nano",))[0] for name in ("mobile_r1_step", "active_vln"))
    paid = {name: weight for name, weight in step.reward.terms.items() if weight}
    assert paid == {"action_match": 1.0, "format": 1.0} and step.rollout.max_turns == 1
    assert (walk.rollout.max_turns, walk.env["max_actions"], walk.env["tolerance"]) == (40, 120, 2.0)
    assert (walk.rl.group_size, walk.rl.groups_per_update, walk.rl.refill_rounds) == (4, 8, 2)
    assert (walk.rl.clip_low, walk.rl.clip_high, walk.rl.kl_coef, walk.training.lr) == (0.2, 0.28, 0.0, 1e-6)
    assert (walk.rollout.temperature, walk.rollout.max_context, walk.rollout.bad_action) == (1.2, 32768, "end")
    assert walk.reward.settings["walk"]["success_base"] == 15.0 and walk.env["budget"][1] == 76_800
