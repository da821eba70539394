"""Recipes for released models start and take an update when a tiny model of the same family is swapped in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from mmturn.testing.tiny import tiny_model

TOOL = """
from mmturn.geometry import Box
from mmturn.interfaces import ToolResult
from mmturn.types import ToolSpec


class Magnify:
    spec = ToolSpec("magnify", "Shows what lies around a point.",
                    {"type": "object", "properties": {"point": {"format": "point"}}, "required": ["point"]})

    def __call__(self, arguments, view, look):
        x, y = arguments["point"]
        return ToolResult((look.region(view, Box(x - 30, y - 30, x + 30, y + 30)),))
"""
SMALL = [
    "rl.group_size=2",
    "rl.groups_per_update=2",
    "rl.minibatches=1",
    "training.updates=1",
    "rollout.max_new_tokens=8",
    "env.root_budget=[3136,12544]",
    "env.crop_budget=[3136,3136]",
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four task rows of one's own, and one bad one."""
    folder = tmp_path_factory.mktemp("mine")
    lines = []
    for number in range(4):
        image = Image.new("RGB", (300, 200), "white")
        ImageDraw.Draw(image).rectangle((20 * number, 40, 20 * number + 15, 60), fill="red")
        image.save(folder / f"{number}.png")
        lines.append({"image": f"{number}.png", "question": "Which number?", "answer": str(number)})
    lines.append({"image": "gone.png", "question": "Which number?", "answer": "9"})
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "my_tool.py").write_text(TOOL, encoding="utf-8")
    return folder / "mine.jsonl"


def run(*words: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, timeout=240, env={**os.environ, **env}, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def overrides(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def updates(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "update" in line]


def test_mgpo_launcher_takes_an_update_under_zero_3(repo: Path, rows: Path, tmp_path: Path):
    model = tiny_model("qwen2_5_vl", tmp_path / "tiny")
    run(
        "bash", str(repo / "train" / "mgpo_qwen2_5_vl_7b.sh"), "--model", str(model), "--data", str(rows),
        "--out", str(tmp_path / "run"), *overrides(*SMALL, "model.download=false", "model.dtype=float32"),
        cwd=tmp_path, PYTHON=sys.executable, GPUS="0",
    )  # fmt: skip
    (line,) = updates(tmp_path / "run")
    assert line["update"] == 1 and line["rollout/failed"] == 0
    state = json.loads(next((tmp_path / "run" / "checkpoints").glob("update_*/state.json")).read_text())
    assert state["zero_stage"] == 3


def test_launchers_that_learn_from_stored_rollouts(repo: Path, tmp_path: Path):
    """`train/nano_prefer.sh --smoke`, then `mmturn prefer` and `train/nano_offline.sh` on what it sampled."""
    shim = tmp_path / "mmturn"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mmturn "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    first, second = tmp_path / "first", tmp_path / "second"
    run(
        "bash", str(repo / "train" / "nano_prefer.sh"), "--smoke", "--out", str(first), cwd=tmp_path, MMTURN=str(shim)
    )  # fmt: skip
    stored = [f"preference.trajectories={first}", "preference.pairs=turns", "training.updates=1"]
    out = run(
        sys.executable, "-m", "mmturn", "prefer", "nano_prefer", "--smoke", "--out", str(second), *overrides(*stored),
        cwd=repo,
    )  # fmt: skip
    assert "pairs among" in out and "ranked right" in out
    assert [line["update"] for line in updates(first)] == [1, 2] and len(updates(second)) == 1
    assert all(0 <= line["preference/accuracy"] <= 1 for line in updates(first) + updates(second))
    run(
        "bash", str(repo / "train" / "nano_offline.sh"), "--smoke", "--out", str(tmp_path / "third"),
        *overrides(f"offline.trajectories={first}"), cwd=tmp_path, MMTURN=str(shim),
    )  # fmt: skip
    assert [line["update"] for line in updates(tmp_path / "third")] == [1, 2]


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_own_data_and_own_tool(kind, rows: Path, tmp_path: Path):
    """The README's line: mmturn train --data mine.jsonl --model PATH --tool ./my_tool.py:Magnify."""
    model = tiny_model(kind, tmp_path / "tiny")
    out = run(
        sys.executable, "-m", "mmturn", "train", "--data", str(rows), "--model", str(model),
        "--tool", "./my_tool.py:Magnify", "--out", str(tmp_path / "run"), *overrides(*SMALL), cwd=rows.parent,
    )  # fmt: skip
    assert "1 bad rows left out" in out and "gone.png" in out.replace("\n", "")
    assert updates(tmp_path / "run")[0]["update"] == 1


def test_ask_writes_the_page(rows: Path, tmp_path: Path):
    model = tiny_model("qwen3_vl", tmp_path / "tiny")
    run(
        sys.executable, "-m", "mmturn", "ask", str(rows.parent / "1.png"), "Which number?", "--model", str(model),
        "--out", str(tmp_path / "answer"), *overrides("rollout.max_new_tokens=8"), cwd=tmp_path,
    )  # fmt: skip
    assert "<script" in (tmp_path / "answer" / "answer.html").read_text(encoding="utf-8")


def test_ask_without_a_model_says_which_suit(rows: Path, tmp_path: Path):
    words = [sys.executable, "-m", "mmturn", "ask", str(rows.parent / "1.png"), "Which number?"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "GB to download" in done.stdout


@pytest.mark.parametrize("name", ["nano_board", "nano_check"])
def test_launchers_of_worlds_with_seats(name: str, repo: Path, tmp_path: Path):
    shim = tmp_path / "mmturn"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mmturn "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    out = tmp_path / "run"
    run("bash", str(repo / "train" / f"{name}.sh"), "--smoke", "--out", str(out), cwd=tmp_path, MMTURN=str(shim))
    assert all(line["rollout/failed"] == 0 for line in updates(out)) and updates(out)
