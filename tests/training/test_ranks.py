"""Two processes with unequal work do what one process does, and none waits for the other forever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmturn.models.settings import LoraSettings
from mmturn.store.trajectories import read_trajectories
from mmturn.training.checkpoints import read_state
from mmturn.training.log import read_metrics
from tests.training.ranks_program import (
    CONFIG,
    JUDGED,
    PREFERRED,
    TRUNKS,
    VALUED,
    learn,
    learn_balanced,
    learn_offline,
    learn_utterances,
    learn_values,
    prefer,
)
from tests.training.small_world import make_world

PROGRAM = Path(__file__).with_name("ranks_program.py")
TIMEOUT_S = 270


def launch(model: Path, out: Path) -> None:
    """Two processes as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(model), str(out)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail("the processes wait for each other")
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-4000:]


@pytest.fixture(scope="module")
def ran(qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    launch(qwen3, out)
    return out


CASES: dict[str, dict[str, Any]] = {
    "zero0": {},
    "zero2_padded": {},
    "zero2": {},
    "zero3_padded": {},
    "zero3": {},
    "zero3_lora": {"lora": LoraSettings(rank=4)},
    "zero3_frozen_checkpointed": {"freeze_vision": True},
}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(ran: Path, qwen3: Path, name: str) -> None:
    torch.manual_seed(0)
    updater, want = learn(make_world(qwen3, **CASES[name]), replace(CONFIG, layout="padded"), None)
    found = torch.load(ran / f"{name}.pt", weights_only=True)
    for ours, theirs in zip(found["metrics"], want, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        assert ours["grad_norm"] > CONFIG.max_grad_norm, "the test must clip"
    weights = updater.weights()
    assert weights is not None
    assert found["weights"].keys() == weights.keys()
    for key, weight in weights.items():
        assert torch.allclose(found["weights"][key], weight, atol=2e-6), key


@pytest.mark.parametrize("name", VALUED)
def test_two_processes_with_a_critic_equal_one(ran: Path, qwen3: Path, name: str) -> None:
    """From values by way of credit over all processes to the weights of policy and head, one of them without work."""
    world = make_world(qwen3, critic=True)
    updater, want, head = learn_values(world, replace(CONFIG, layout="padded"), None, *VALUED[name][1:])
    found = torch.load(ran / f"{name}.pt", weights_only=True)
    for ours, theirs in zip(found["metrics"], want, strict=True):
        for key in ("policy/loss", "policy/grad_norm", *(key for key in theirs if key.startswith("critic/"))):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-5), key
    assert {"critic/explained_variance", "critic/loss"} <= want[-1].keys() and want[-1]["critic/value_mean"] != 0.0
    assert head.any() and torch.allclose(found["head"], head, atol=2e-5)
    weights = updater.weights()
    assert weights is not None
    for key, weight in weights.items():
        assert torch.allclose(found["weights"][key], weight, atol=1e-5), key


@pytest.mark.parametrize("name", JUDGED)
def test_two_processes_with_a_critic_over_utterances_equal_one(ran: Path, qwen3: Path, name: str) -> None:
    """From what is judged to what is learned, by turns of earlier updates of both processes too."""
    updater, want, judge = learn_utterances(make_world(qwen3), replace(CONFIG, layout="padded"), None)
    found = torch.load(ran / f"{name}.pt", weights_only=True)
    for ours, theirs in zip(found["metrics"], want, strict=True):
        for key in ("policy/loss", "policy/grad_norm", *(key for key in theirs if key.startswith("critic/"))):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-5), key
    assert want[-1]["critic/replayed"] > 0 and want[-1]["critic/advantage_std"] > 0
    assert torch.allclose(found["judge"], judge, atol=2e-4)
    weights = updater.weights()
    assert weights is not None
    for key, weight in weights.items():
        assert torch.allclose(found["weights"][key], weight, atol=1e-5), key


def test_work_is_evened_out_and_the_result_is_the_same(ran: Path, qwen3: Path) -> None:
    torch.manual_seed(0)
    updater, want, everything = learn_balanced(make_world(qwen3), None)
    found = torch.load(ran / "balanced.pt", weights_only=True)
    first, second = found["seen"]
    assert sorted(first + second) == sorted(everything), "each trajectory is learned from once"
    assert len(set(first)) == 2 and len(set(second)) == 3, "two of the heavy ones each"
    assert found["metrics"]["policy/loss"] == pytest.approx(want["policy/loss"], abs=1e-6)
    weights = updater.weights()
    assert weights is not None
    for key, weight in weights.items():
        assert torch.allclose(found["weights"][key], weight, atol=2e-6), key


@pytest.mark.parametrize("loss", PREFERRED)
def test_preferences_are_learned_as_by_one(ran: Path, qwen3: Path, tmp_path: Path, loss: Any) -> None:
    want = prefer(qwen3, tmp_path, loss)
    found = torch.load(ran / f"{loss}.pt", weights_only=True)
    assert want is not None and found.keys() == want.keys()
    for key, weight in want.items():
        assert torch.allclose(found[key], weight, atol=2e-6), key
    keys = [f"preference/{name}" for name in ("loss", "margin", "grad_norm", "dropped")]
    ours, theirs = ([{key: line[key] for key in keys} for line in read_metrics(p)] for p in (ran / loss, tmp_path))
    assert all(line == pytest.approx(other, abs=1e-4) for line, other in zip(ours, theirs, strict=True))
    assert ours[1]["preference/loss"] != pytest.approx(ours[0]["preference/loss"], abs=1e-3), "it must have moved"


@pytest.mark.parametrize("trunk", TRUNKS)
def test_offline_critics_learn_as_by_one(ran: Path, qwen3: Path, tmp_path: Path, trunk: Any) -> None:
    want = learn_offline(qwen3, tmp_path, trunk, alone=True)
    found = torch.load(ran / f"{trunk}.pt", weights_only=True)
    assert want is not None and found.keys() == want.keys()
    for key, weight in want.items():
        assert torch.allclose(found[key], weight, atol=2e-5 if key == "lm_head.weight" else 2e-6), key
    keys = [f"offline/{name}" for name in ("loss", "grad_norm", "q", "value", "cql", "nll")]
    ours, theirs = ([{key: line[key] for key in keys} for line in read_metrics(p)] for p in (ran / trunk, tmp_path))
    assert all(line == pytest.approx(other, abs=1e-4) for line, other in zip(ours, theirs, strict=True))
    assert ours[1]["offline/loss"] != pytest.approx(ours[0]["offline/loss"], abs=1e-3), "it must have moved"


def test_a_run_of_two_is_resumed(ran: Path) -> None:
    run = ran / "run"
    assert [line["update"] for line in read_metrics(run)] == [1, 2, 3, 4]
    assert all("rollout/injected" in line for line in read_metrics(run))
    assert ["eval/accuracy" in line for line in read_metrics(run)] == [False, True, False, True]
    state = read_state(run / "checkpoints" / "update_000004")
    assert state.world_size == 2
    assert len(state.rng) == len(state.positions) == 2
    for folder in ("rollouts", "rollouts.1"):
        updates = [t.meta["update"] for t in read_trajectories(run / folder)]
        assert sorted(set(updates)) == [1, 2, 3, 4]
