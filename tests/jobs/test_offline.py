"""`mmturn offline` whole way through on the small policy: stored rollouts in, a plain policy out; what is refused."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from mmturn.build import make_policy
from mmturn.cli import app
from mmturn.errors import ConfigError, DataError
from mmturn.jobs import offline
from mmturn.jobs.mix import mix_heads
from mmturn.jobs.rollout import store_rollouts
from mmturn.models.load import load_model
from mmturn.models.mixture import read_mixture
from mmturn.recipe import Recipe, check_offline, read_recipe
from mmturn.rewards.rubric import rubric_of
from mmturn.store.trajectories import images_folder, read_trajectories, write_trajectories
from mmturn.tasks.rows import read_tasks
from mmturn.tasks.visual_search import generate
from mmturn.training import processes
from mmturn.training.log import read_metrics
from mmturn.types import StopReason, Trajectory

SMALL = (
    "offline.trajectories_per_update=8", "training.updates=2", "training.log=[]", "training.progress=false",
    "rollout.max_new_tokens=40", "training.warmup=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(
        tmp_path_factory.mktemp("world") / "w", split="train", tasks=4, seed=5, levels=["attribute"], workers=1
    )


@pytest.fixture(scope="module")
def run(repo: Path, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rollouts where ``mmturn train`` leaves them."""
    folder = tmp_path_factory.mktemp("stored")
    base, _ = read_recipe("nano_rl", (f"model.path={json.dumps(str(repo / 'checkpoints' / 'nano'))}",))
    policy = make_policy(base)
    found = read_tasks(tasks)[0]
    store_rollouts(policy, found, folder / "rollouts", group_size=4, rubric=rubric_of(base.reward))
    return folder


@pytest.fixture(scope="module")
def recipe(repo: Path, run: Path) -> Recipe:
    paths = {"model.path": str(repo / "checkpoints" / "nano"), "offline.trajectories": str(run)}
    return read_recipe("nano_offline", (*(f"{key}={json.dumps(value)}" for key, value in paths.items()), *SMALL))[0]


def having(recipe: Recipe, **settings: Any) -> Recipe:
    return replace(recipe, offline=replace(recipe.offline, **settings))


def learned(recipe: Recipe, folder: Path, **options: Any) -> tuple[list[dict[str, Any]], str]:
    """Metrics and what stands in the terminal."""
    screen = io.StringIO()
    offline.learn_offline(recipe, folder, console=Console(file=screen, width=400), **options)
    return read_metrics(folder), screen.getvalue()


def test_stored_rollouts_make_a_plain_policy(run: Path, recipe: Recipe, tmp_path: Path) -> None:
    lines, text = learned(recipe, tmp_path / "run")
    assert [line["update"] for line in lines] == [1, 2] and "16 trajectories of" in text and "mean reward" in text
    assert lines[0]["offline/dropped"] == 0.0 and lines[0]["offline/grad_norm"] > 0
    checkpoint = tmp_path / "run" / "checkpoints" / "update_000002"
    before, after = (load_model(folder).base for folder in (recipe.model.path, checkpoint / "policy"))
    own = dict(before.named_parameters())
    assert all(torch.equal(p, own[name]) for name, p in after.named_parameters() if name != "lm_head.weight")
    assert not torch.equal(after.lm_head.weight, before.lm_head.weight)
    bare = load_model(mix_heads(checkpoint, {"q": 0.0}, tmp_path / "bare")).base
    assert torch.equal(bare.lm_head.weight, before.lm_head.weight), "beta is chosen anew by mixing; 0 is the policy"
    assert read_mixture(checkpoint / "heads.safetensors").weights == {"q": recipe.offline.beta}
    assert not (tmp_path / "run" / "rollouts").exists()
    lines, text = learned(
        replace(recipe, training=replace(recipe.training, updates=3)), tmp_path / "run", resume=True
    )  # fmt: skip
    assert len(lines) == 3 and "resumed after update 2" in text


@pytest.mark.parametrize("loss", ["ilql", "mc"])
def test_a_policy_that_learns_too(recipe: Recipe, tmp_path: Path, loss: Any) -> None:
    lines, _ = learned(having(recipe, loss=loss, trunk="learns"), tmp_path / "run")
    after = load_model(tmp_path / "run" / "checkpoints" / "update_000002" / "policy").base
    own = dict(load_model(recipe.model.path).base.named_parameters())
    assert not all(torch.equal(p, own[name]) for name, p in after.named_parameters() if name != "lm_head.weight")
    assert ("offline/value" in lines[0]) is (loss == "ilql")


def changed(trajectories: list[Trajectory]) -> list[Trajectory]:
    """One without token ids, one that failed, one never graded."""
    made = list(trajectories)
    made[0] = replace(made[0], turns=(replace(made[0].turns[0], token_ids=None), *made[0].turns[1:]))
    made[1] = replace(made[1], stop=StopReason.ENGINE_FAILED, error="out of memory")
    made[2] = replace(made[2], reward=None)
    return made


def test_bad_trajectories_are_left_out_by_name(run: Path, recipe: Recipe, tmp_path: Path) -> None:
    whole = sorted(read_trajectories(run / "rollouts"), key=lambda t: (t.group, t.index, t.id))
    folder = tmp_path / "stored"
    write_trajectories(folder, changed(whole))
    shutil.copytree(images_folder(run / "rollouts"), images_folder(folder))
    _, text = learned(having(recipe, trajectories=str(folder)), tmp_path / "run")
    assert "14 trajectories of" in text, "the one without a reward was graded"
    assert f"2 trajectories left out: trajectory {whole[0].id}" in text and "no token ids" in text
    write_trajectories(tmp_path / "blind", changed(whole)[:1])
    with pytest.raises(DataError, match=f"nothing to learn from: trajectory {whole[0].id}, turn 0: has no token ids"):
        learned(having(recipe, trajectories=str(tmp_path / "blind")), tmp_path / "none")


def test_as_typed(run: Path, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "stop_processes", lambda: None)  # further tests of this process need the group
    words = [
        "offline", "nano_offline", "--method", "mc_returns", "--smoke", "--out", str(tmp_path / "run"),
        "--model", str(repo / "checkpoints" / "nano"), "--set", f"offline.trajectories={run}",
        "--set", "training.log=[]",
    ]  # fmt: skip
    result = CliRunner().invoke(app, words, env={"COLUMNS": "300"}, catch_exceptions=False)
    assert f"policy: {tmp_path / 'run' / 'checkpoints' / 'update_000002' / 'policy'}" in result.output
    assert "offline/value" not in read_metrics(tmp_path / "run")[0]


class TestBeforeWeights:
    """What is refused without loading anything."""

    @pytest.fixture(autouse=True)
    def no_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(offline, "open_trainee", lambda *_, **__: pytest.fail("weights are loaded"))

    def test_missing_trajectories(self, recipe: Recipe, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no trajectories here"):
            offline.learn_offline(having(recipe, trajectories=str(tmp_path / "gone")), tmp_path / "run")
        (tmp_path / "metrics.jsonl").write_text("", encoding="utf-8")
        with pytest.raises(ConfigError, match="holds a run already"):
            offline.learn_offline(recipe, tmp_path)

    @pytest.mark.parametrize(
        ("overrides", "named"),
        [
            (("offline.trajectories=''",), r"offline\.trajectories is empty"),
            (("rollout.temperature=0",), "temperature"),
            (("model.lora={rank: 4}",), r"offline\.trunk: frozen keeps as it is"),
            (("model.lora={rank: 4, dropout: 0.1}", "offline.trunk=learns"), "dropout"),
        ],
    )
    def test_settings(self, overrides: tuple[str, ...], named: str) -> None:
        read, _ = read_recipe("nano_offline", ("offline.trajectories=runs/x", *overrides))
        with pytest.raises(ConfigError, match=named):
            check_offline(read)
