"""Checkpoints: complete or not there at all, kept by rule, refused by name."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmturn.errors import CheckpointError, ConfigError, MmturnError
from mmturn.models.load import load_model
from mmturn.models.settings import LoraSettings
from mmturn.training import rl
from mmturn.training.checkpoints import Checkpoints, CheckpointState, changed_settings, check_resumable, read_state
from mmturn.training.processes import start_processes
from mmturn.training.randomness import random_states, restore_random_states
from mmturn.training.run import Run, RunSetup, check_fresh
from mmturn.training.settings import KeepBest, TrainingConfig
from mmturn.training.updater import Updater
from tests.training.small_world import TRAINING, Source, make_world, rl_parts, weights_of

STATE = CheckpointState("rl", 1, 1, 0, {"training": {"lr": 1.0}}, "hash", {"model_type": "x", "weights": 3})


def save(checkpoints: Checkpoints, update: int, **metrics: float) -> Path:
    hidden = checkpoints.begin(update)
    (hidden / "policy").mkdir()
    (hidden / "policy" / "weights").write_bytes(b"12345")
    return checkpoints.commit(hidden, replace(STATE, update=update, metrics=metrics))


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, best=KeepBest("eval/accuracy", k=1))
    for update, accuracy in enumerate([0.1, 0.9, 0.2, 0.9, 0.3, 0.4], start=1):
        save(checkpoints, update, **{"eval/accuracy": accuracy})
    assert [path.name for path in checkpoints.paths()] == ["update_000002", "update_000005", "update_000006"]
    assert checkpoints.latest() == tmp_path / "update_000006"
    assert checkpoints.best() == tmp_path / "update_000002"
    least = Checkpoints(tmp_path, best=KeepBest("eval/accuracy", mode="min"))
    assert least.best() == tmp_path / "update_000005"


def test_leftovers_are_no_checkpoints_and_are_cleaned(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    checkpoints.begin(2)
    (tmp_path / "update_000001").rename(tmp_path / ".removing-update_000001")
    save(checkpoints, 3)
    assert checkpoints.latest() == tmp_path / "update_000003"
    checkpoints.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["update_000003"]


def test_what_a_kill_left_unpruned_is_removed_at_the_next_start(tmp_path: Path) -> None:
    many = Checkpoints(tmp_path, keep=9)
    for update in (2, 4, 6, 7):
        save(many, update)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.clean()
    assert [path.name for path in checkpoints.paths()] == ["update_000006", "update_000007"]


def test_saving_the_same_update_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, a=1.0)
    save(checkpoints, 1, a=2.0)
    assert read_state(tmp_path / "update_000001").metrics == {"a": 2.0}
    save(checkpoints, 2)
    checkpoints.remove_after(1)
    assert checkpoints.latest() == tmp_path / "update_000001"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: (path / "policy" / "weights").write_bytes(b"1"), "policy/weights has 1 bytes instead of 5"),
        (lambda path: (path / "policy" / "weights").unlink(), "policy/weights is missing"),
        (lambda path: (path / "state.json").write_text("{"), "state.json: is damaged"),
        (lambda path: (path / "state.json").write_text('{"format": "other"}'), "not a checkpoint of mmturn"),
        (lambda path: (path / "state.json").unlink(), "no state.json"),
        (
            lambda path: (path / "state.json").write_text('{"format": "mmturn/checkpoint", "version": 9}'),
            "update mmturn",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: Any, named: str) -> None:
    path = save(Checkpoints(tmp_path), 1)
    assert read_state(path).update == 1
    damage(path)
    with pytest.raises(CheckpointError, match=named):
        read_state(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "sft"}, "rl training, this is sft"),
        ({"architecture": {"model_type": "y", "weights": 3}}, "another architecture"),
        ({"world_size": 2}, "another number of processes"),
        ({"zero_stage": 3}, "another ZeRO stage"),
        ({"config": {"training": {"lr": 2.0}}}, r"training.lr: 1.0 -> 2.0"),
        ({"config": {"training": {"lr": 1.0}, "rl": {"group_size": 4}}}, r"rl.group_size: None -> 4"),
    ],
)
def test_another_run_is_refused_by_name(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    check_resumable(tmp_path, STATE, STATE, TRAINING)
    with pytest.raises(CheckpointError, match=named):
        check_resumable(tmp_path, STATE, replace(STATE, **change), TRAINING)


def test_what_no_update_depends_on_may_change() -> None:
    before = {"training": {"log": ["a"], "updates": 5, "save_every": 1, "keep_best": {"k": 1}}, "rl": {"log": 1}}
    now = {"training": {"log": [], "updates": 9, "save_every": 2, "keep_best": {"k": 2}}, "rl": {"log": 2}}
    assert changed_settings(before, now, TrainingConfig()) == [("rl.log", 1, 2)]
    falling = TrainingConfig(schedule="cosine")
    assert [key for key, *_ in changed_settings(before, now, falling)] == ["rl.log", "training.updates"]


def test_random_states_come_back() -> None:
    import random

    states = json.loads(json.dumps(random_states()))
    drawn = [random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1)]
    restore_random_states(states)
    assert [random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1)] == drawn


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    check_fresh(tmp_path, resume=False)
    (tmp_path / "metrics.jsonl").touch()
    check_fresh(tmp_path, resume=True)
    with pytest.raises(ConfigError, match="holds a run already"):
        check_fresh(tmp_path, resume=False)


@pytest.mark.parametrize("stage", [0, 2])
def test_resuming_restores_weights_optimizer_and_place(qwen3: Path, tmp_path: Path, stage: Any) -> None:
    config = replace(TRAINING, updates=4, save_every=2, zero_stage=stage)
    whole, first, second = make_world(qwen3), make_world(qwen3), make_world(qwen3)
    rl.train(rl_parts(whole, tmp_path / "whole", config))
    rl.train(rl_parts(first, tmp_path / "cut", replace(config, updates=2)))
    rl.train(rl_parts(second, tmp_path / "cut", config, resume=True))
    want = weights_of(whole)
    assert all(torch.equal(weight, want[name]) for name, weight in weights_of(second).items())
    policy = load_model(tmp_path / "cut" / "checkpoints" / "update_000004" / "policy").model
    assert all(torch.equal(weight, want[name]) for name, weight in policy.named_parameters())
    # with nothing left to do, a resumed run only says where the last checkpoint is
    again = rl.train(rl_parts(make_world(qwen3), tmp_path / "cut", config, resume=True))
    assert again.name == "update_000004"


def test_refusals_of_a_run(qwen3: Path, qwen2_5: Path, tmp_path: Path) -> None:
    config = replace(TRAINING, updates=1)
    rl.train(rl_parts(make_world(qwen3), tmp_path, config))
    with pytest.raises(ConfigError, match="holds a run already"):
        rl.train(rl_parts(make_world(qwen3), tmp_path, config))
    with pytest.raises(CheckpointError, match="another architecture"):
        rl.train(rl_parts(make_world(qwen2_5), tmp_path, config, resume=True))
    with pytest.raises(CheckpointError, match="another architecture"):
        rl.train(rl_parts(make_world(qwen3, lora=LoraSettings(rank=2)), tmp_path, config, resume=True))
    with pytest.raises(CheckpointError, match=r"training\.lr"):
        rl.train(rl_parts(make_world(qwen3), tmp_path, replace(config, lr=0.5), resume=True))
    state = tmp_path / "checkpoints" / "update_000001" / "deepspeed" / "state" / "mp_rank_00_model_states.pt"
    data = bytearray(state.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    state.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="cannot read its state"):
        rl.train(rl_parts(make_world(qwen3), tmp_path, config, resume=True))


def test_a_loss_that_is_no_number_stops_the_run(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    setup = RunSetup(tmp_path, TRAINING, Updater(world.policy, TRAINING, start_processes("cpu")))
    with Run("rl", setup, Source(), ()) as run, pytest.raises(MmturnError, match="update 1: policy/loss is nan"):
        run.finish(1, {"policy/loss": float("nan")})
    assert run.checkpoints.latest() is None


def test_saving_is_quick(qwen3: Path, tmp_path: Path) -> None:
    world = make_world(qwen3)
    world.policy.model.extra = torch.nn.Linear(1700, 1700)  # 2.9 M weights more
    setup = RunSetup(tmp_path, TRAINING, Updater(world.policy, TRAINING, start_processes("cpu")))
    with Run("rl", setup, Source(), ()) as run:
        start = time.process_time()
        run.save({})
        assert time.process_time() - start < 1.0
