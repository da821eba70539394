"""`mmturn prefer` whole way through on the small policy: sampled, stored and oracle trajectories; what is refused."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmturn.credit.pairs import Pair
from mmturn.errors import ConfigError, DataError
from mmturn.jobs import prefer
from mmturn.recipe import Recipe, check_preference, read_recipe
from mmturn.store.trajectories import images_folder, read_trajectories, write_trajectories
from mmturn.tasks.visual_search import generate
from mmturn.training.log import read_metrics
from mmturn.types import StopReason, Trajectory

SMALL = (
    "preference.samples=4", "preference.pairs_per_update=2", "training.updates=1", "training.log=[]",
    "training.progress=false", "rollout.max_new_tokens=40", "training.warmup=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(
        tmp_path_factory.mktemp("world") / "w", split="train", tasks=6, seed=5, levels=["attribute"], workers=1
    )


@pytest.fixture(scope="module")
def recipe(repo: Path, tasks: Path) -> Recipe:
    paths = {"model.path": str(repo / "checkpoints" / "nano"), "data.train": str(tasks)}
    return read_recipe("nano_prefer", (*(f"{key}={json.dumps(value)}" for key, value in paths.items()), *SMALL))[0]


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that sampled its own rollouts."""
    folder = tmp_path_factory.mktemp("run") / "run"
    prefer.prefer_policy(recipe, folder)
    return folder


def having(recipe: Recipe, **settings: Any) -> Recipe:
    return replace(recipe, preference=replace(recipe.preference, **settings))


def learned(recipe: Recipe, folder: Path, **options: Any) -> tuple[list[dict[str, Any]], str]:
    """Metrics and what stands in the terminal."""
    screen = io.StringIO()
    prefer.prefer_policy(recipe, folder, console=Console(file=screen, width=400), **options)
    return read_metrics(folder), screen.getvalue()


def test_it_samples_first_and_then_learns(run: Path) -> None:
    stored = list(read_trajectories(run / "rollouts"))
    assert len(stored) == 24 and all(t.reward is not None for t in stored)
    assert len({t.group for t in stored}) == 6 and any(images_folder(run / "rollouts").rglob("*.*"))
    (line,) = read_metrics(run)
    assert line["preference/loss"] == pytest.approx(0.6931, abs=1e-3) and line["preference/dropped"] == 0.0
    assert (run / "checkpoints" / "update_000001" / "policy" / "model.safetensors").is_file()
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("form", ["run", "folder", "file"])
def test_stored_rollouts_give_the_same_run(run: Path, recipe: Recipe, tmp_path: Path, form: str) -> None:
    path = {"run": run, "folder": run / "rollouts", "file": run / "rollouts" / "trajectories.jsonl"}[form]
    (line,), text = learned(having(recipe, trajectories=str(path)), tmp_path / "again")
    (before,) = read_metrics(run)
    assert line["preference/loss"] == pytest.approx(before["preference/loss"], abs=1e-6)
    assert line["preference/grad_norm"] == pytest.approx(before["preference/grad_norm"], rel=1e-3)
    assert "pairs among 24 trajectories" in text and not (tmp_path / "again" / "rollouts").exists()


def test_a_resumed_run_keeps_its_rollouts(run: Path, recipe: Recipe, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    further = replace(recipe, training=replace(recipe.training, updates=2))
    lines, text = learned(further, folder, resume=True)
    assert [line["update"] for line in lines] == [1, 2] and "resumed after update 1" in text
    assert (folder / "rollouts" / "trajectories.jsonl").read_bytes() == (
        run / "rollouts" / "trajectories.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("loss", ["m_dpo", "m_kto"])
def test_looks_beside_the_gold_boxes(recipe: Recipe, tasks: Path, tmp_path: Path, loss: str) -> None:
    pairs = "turns" if loss == "m_dpo" else "thresholds"
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{tasks.read_text(encoding='utf-8')}{{}}\n", encoding="utf-8")
    for name in ("images", "scenes"):
        if (tasks.parent / name).is_dir():
            (tmp_path / name).symlink_to(tasks.parent / name)
    sharp = replace(recipe, oracle=replace(recipe.oracle, scale=(2.0, 2.5), jitter=0.0))
    sharp = replace(sharp, data=replace(sharp.data, train=str(rows)))
    (line,), text = learned(having(sharp, source="oracle", pairs=pairs, loss=loss), tmp_path / "run")
    assert "1 bad rows left out" in text
    assert line["preference/dropped"] == 0.0
    assert ("6 pairs" if loss == "m_dpo" else "12 labels") + " among 12 trajectories" in text


def changed(trajectories: list[Trajectory]) -> list[Trajectory]:
    """One without token ids, one that failed, one never graded, one with a stray placeholder."""
    made = list(trajectories)
    blind, stray = made[0].turns[0], made[3].turns[0]
    made[0] = replace(made[0], turns=(replace(blind, token_ids=None), *made[0].turns[1:]))
    made[1] = replace(made[1], stop=StopReason.ENGINE_FAILED, error="out of memory")
    made[2] = replace(made[2], reward=None)
    assert stray.token_ids is not None
    last = stray.provenance.rindex("s")
    made[3] = replace(made[3], turns=(replace(stray, provenance=stray.provenance[:last] + "i"), *made[3].turns[1:]))
    return made


def test_bad_trajectories_are_left_out_by_name(run: Path, recipe: Recipe, tmp_path: Path) -> None:
    stored = sorted(read_trajectories(run / "rollouts"), key=lambda t: t.id)
    folder = tmp_path / "stored"
    write_trajectories(folder, changed(stored))
    shutil.copytree(images_folder(run / "rollouts"), images_folder(folder))
    (line,), text = learned(having(recipe, trajectories=str(folder)), tmp_path / "run")
    assert "among 21 trajectories" in text, "the one without a reward was graded"
    assert f"3 trajectories left out: trajectory {stored[1].id}: failed (out of memory)" in text
    assert line["preference/dropped"] == 0.0


def test_a_lost_image_costs_its_pairs(run: Path, recipe: Recipe, tmp_path: Path) -> None:
    folder = shutil.copytree(run / "rollouts", tmp_path / "stored")
    stored = sorted(read_trajectories(folder), key=lambda t: (t.group, t.index))
    found = prefer.compared(stored, recipe.preference)
    assert isinstance(found[0], Pair)
    lost = stored[found[0].chosen].turns[0].observation.views[0].source
    for file in images_folder(folder).rglob(f"{lost.sha256}*"):
        file.unlink()
    everything = having(recipe, trajectories=str(folder), pairs_per_update=len(found), shuffle=False)
    (line,), text = learned(everything, tmp_path / "run")
    assert line["preference/dropped"] >= 1.0 and f"dropped: trajectory {stored[found[0].chosen].id}: image" in text


def test_nothing_to_compare_says_why(run: Path, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to compare among 24 trajectories in 6 groups .*best_worst"):
        prefer.prefer_policy(having(recipe, trajectories=str(run), min_gap=50.0), tmp_path / "a")
    with pytest.raises(DataError, match=r"24 left out: trajectory .* its reward has no 'beauty' .it has: answer"):
        prefer.prefer_policy(having(recipe, trajectories=str(run), objectives={"beauty": 1.0}), tmp_path / "b")


def test_neither_trajectories_nor_tasks(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data.train .--data. or preference\.trajectories"):
        prefer.prefer_policy(replace(recipe, data=replace(recipe.data, train="")), tmp_path)


class TestBeforeWeights:
    """What is refused without loading anything."""

    @pytest.fixture(autouse=True)
    def no_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prefer, "open_trainee", lambda *_, **__: pytest.fail("weights are loaded"))

    def test_missing_trajectories(self, recipe: Recipe, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no trajectories here"):
            prefer.prefer_policy(having(recipe, trajectories=str(tmp_path / "gone")), tmp_path / "run")

    def test_rollouts_that_are_there_are_not_sampled_over(self, recipe: Recipe, tmp_path: Path) -> None:
        (tmp_path / "rollouts").mkdir()
        with pytest.raises(ConfigError, match=r"rollouts is there already: learn from it .--set preference\.traj"):
            prefer.prefer_policy(recipe, tmp_path)

    def test_a_run_that_is_there(self, recipe: Recipe, run: Path) -> None:
        with pytest.raises(ConfigError, match="holds a run already"):
            prefer.prefer_policy(recipe, run)

    @pytest.mark.parametrize(
        ("override", "named"),
        [
            ("rollout.temperature=0", "temperature"),
            ("model.lora={rank: 4, dropout: 0.1}", "dropout"),
            ("preference.objectives={beauty: 1.0}", "nothing grades beauty"),
            ("oracle.look=false", r"oracle\.look"),
            ("tools=[]", "needs a tool"),
        ],
    )
    def test_settings(self, override: str, named: str) -> None:
        more = ("preference.source=oracle",) if "oracle" in override or "tools" in override else ()
        read, _ = read_recipe("nano_prefer", (override, *more))
        with pytest.raises(ConfigError, match=named):
            check_preference(read)


def test_what_was_being_sampled_when_a_run_was_killed_is_sampled_anew(
    recipe: Recipe, run: Path, tmp_path: Path
) -> None:
    half = tmp_path / "run" / ".rollouts"
    half.mkdir(parents=True)
    (half / "trajectories.jsonl").write_text("half a line", encoding="utf-8")
    lines, _ = learned(recipe, tmp_path / "run", resume=True)
    assert len(lines) == 1 and len(list(read_trajectories(tmp_path / "run" / "rollouts"))) == 24
    assert not half.exists()
