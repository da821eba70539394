"""A run that is killed at any moment and resumed is the run that was never killed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmturn.store.trajectories import read_trajectories
from mmturn.training.log import read_metrics
from mmturn.types import Trajectory
from tests.training.kill_program import UPDATES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
PROGRAM = Path(__file__).with_name("kill_program.py")


def lines(run: Path) -> list[dict[str, Any]]:
    """What the log says, without the clock."""
    timed = ("time", "seconds/", "stage/", "cost/peak_", "cost/update_peak_")
    return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in read_metrics(run)]


def rollouts(run: Path) -> list[Trajectory]:
    """Its trajectories, without the clock."""
    return [
        replace(trajectory, turns=tuple(replace(turn, seconds={}) for turn in trajectory.turns))
        for trajectory in read_trajectories(run / "rollouts")
    ]


def check(model: Path, out: Path, kills: int, seed: int) -> None:
    command = [sys.executable, str(PROGRAM), str(model), str(out), str(kills), str(seed)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=1500
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert f"killed {kills} times" in done.stdout
    whole = out / "whole"
    assert [line["update"] for line in lines(whole)] == list(range(UPDATES + 1))
    for killed in sorted(out.glob("killed*")):
        assert lines(killed) == lines(whole), killed
        last = f"checkpoints/update_{UPDATES:06d}"
        weights = [(run / last / "policy" / "model.safetensors").read_bytes() for run in (whole, killed)]
        assert weights[0] == weights[1], f"{killed}: not the same to the bit"
        assert rollouts(killed) == rollouts(whole), killed
        names = [{path.name for path in (run / "checkpoints").iterdir()} for run in (whole, killed)]
        assert names[0] == names[1], "the same checkpoints are kept, and nothing is left over"
    losses = [line["policy/loss"] for line in lines(whole)[1:]]
    assert len(set(losses)) == UPDATES, "the test must learn something"
    assert any("injected" in t.meta for t in rollouts(whole)), "the test must need a stored success"
    assert any(line["rollout/stale_turns"] for line in lines(whole)[1:]), "the test must have stale turns"


def test_killed_and_resumed_is_the_same_run(qwen3: Path, tmp_path: Path) -> None:
    check(qwen3, tmp_path, kills=6, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_killed_twenty_times(qwen3: Path, tmp_path: Path, seed: int) -> None:
    check(qwen3, tmp_path, kills=20, seed=seed)
