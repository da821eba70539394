"""IGPO, whole way through: the shipped policy's rollouts score the gold answer, and two updates learn from it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmturn.credit.gain import information_gains
from mmturn.credit.method import Method
from mmturn.errors import DataError
from mmturn.jobs.data import tasks_of
from mmturn.jobs.train import train_policy, with_gold
from mmturn.recipe import Recipe, read_recipe
from mmturn.store.trajectories import read_trajectories
from mmturn.training.log import read_metrics

IGPO = ("method.credit={name: igpo}", "method.normalise=[]")


def recipe_of(nano: Path, *more: str) -> Recipe:
    small = ("data.train_tasks=8", "rl.group_size=4", "rl.groups_per_update=2", "training.updates=1", "training.log=[]")
    return read_recipe("nano_rl", (f"model.path={json.dumps(str(nano))}", *small, *more))[0]


def test_two_updates_of_the_shipped_policy(nano: Path, tmp_path: Path) -> None:
    settings = [f"model.path={json.dumps(str(nano))}", *IGPO, "rl.keep_rollouts_every=1", "training.log=[]"]
    flags = [word for setting in settings for word in ("--set", setting)]
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mmturn", "train", "nano_rl", "--smoke", "--out", str(out), *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = read_metrics(out)
    assert [line["update"] for line in lines] == [1, 2]
    for line in lines:
        assert line["policy/steps"] >= 1 and line["policy/grad_norm"] > 0 and line["rollout/dropped"] == 0
        assert line["cost/probe_tokens"] > 0
        assert line["cost/prefill_tokens"] <= 1.05 * line["cost/prefill_unique"]
    trajectories = list(read_trajectories(out / "rollouts"))
    assert len(trajectories) == 16
    for trajectory in trajectories:
        gold = [turn.gold_logprobs for turn in trajectory.turns]
        assert all(gold) and len({len(tokens) for tokens in gold if tokens}) == 1
        assert all(math.isfinite(value) and value <= 1e-6 for tokens in gold if tokens for value in tokens)
    gains = [information_gains([turn.gold_logprobs or () for turn in t.turns]) for t in trajectories]
    assert sum(value > 0.1 for row in gains for value in row) > 4, "a look tells this policy what to answer"


def test_the_method_decides_whether_answers_are_scored(nano: Path) -> None:
    for recipe, gold in [(recipe_of(nano), False), (recipe_of(nano, *IGPO), True)]:
        assert with_gold(recipe, Method(recipe.method)).rollout.gold == gold
    assert with_gold(recipe_of(nano, "rollout.gold=true"), Method()).rollout.gold


def test_tasks_without_answers_are_named(nano: Path, tmp_path: Path) -> None:
    recipe = recipe_of(nano, *IGPO)
    tasks = [replace(task, answer=None) for task in tasks_of(recipe.data, "train", tmp_path / "data")[0]]
    recipe = replace(recipe, reward=replace(recipe.reward, terms={"format": 1.0}))
    with pytest.raises(DataError, match="turn 0 has no log-probs of the gold answer.*tasks with answers"):
        train_policy(recipe, tmp_path / "run", tasks=tasks)
