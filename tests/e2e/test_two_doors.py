"""train/minimal_grpo.py and `mmturn train` are two doors into the same room: the same first losses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = [
    "data.train_tasks=8",
    "rl.group_size=4",
    "rl.groups_per_update=4",
    "rollout.deterministic=true",
    "rollout.env_workers=1",
    "training.deterministic=true",
    "training.lr=2e-4",
    "training.log=[]",
    "method.normalise=[{name: group, std: none}]",
]


def flags(extra: list[str]) -> list[str]:
    return [part for setting in [*SETTINGS, *extra] for part in ("--set", setting)]


def test_the_first_losses_agree(repo: Path, nano: Path, tmp_path: Path):
    model = f"model.path={json.dumps(str(nano))}"
    minimal = [sys.executable, str(repo / "train" / "minimal_grpo.py"), "--updates", "3", "--out", str(tmp_path / "a")]
    subprocess.run([*minimal, *flags([model])], check=True, cwd=tmp_path, timeout=300)
    train = [sys.executable, "-m", "mmturn", "train", "nano_rl", "--out", str(tmp_path / "b")]
    subprocess.run([*train, *flags([model, "training.updates=3"])], check=True, cwd=tmp_path, timeout=300)
    rows = [json.loads(line) for line in (tmp_path / "a" / "losses.jsonl").read_text().splitlines()]
    logged = [json.loads(line) for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in logged if "policy/loss" in row]
    assert len(rows) == len(logged) == 3
    for ours, theirs in zip(rows, logged, strict=True):
        assert ours["reward"] == pytest.approx(theirs["reward/total"], abs=1e-9)
        assert ours["loss"] == pytest.approx(theirs["policy/loss"], abs=1e-5)
    assert any(abs(row["loss"]) > 1e-6 for row in rows), "a run without any signal would agree on nothing"
