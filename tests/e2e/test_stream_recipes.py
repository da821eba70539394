"""Recipes over streams with real models: evaluated, rolled out, replayed, trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmturn.store.trajectories import read_trajectories
from mmturn.testing.tiny import tiny_model
from tests.media.video.clips import write_clip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four questions on each of two clips of 100 s, as rows of the generated worlds have them."""
    folder = tmp_path_factory.mktemp("streams")
    lines = []
    for video in ("a", "b"):
        write_clip(folder / f"{video}.mp4", 500, rate=5)
        for number, span in enumerate(([2, 4], [10, 12], [20, 27], [60, 63])):
            lines.append({
                "id": f"{video}{number}", "video": f"{video}.mp4", "question": f"Which is shown {number}?",
                "choices": ["x", "y", "z"], "answer": "ABC"[number % 3], "spans": [span], "meta": {"scene": video},
            })  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder / "rows.jsonl"


def mmturn(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mmturn", *words], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def test_the_suite_runs_over_any_rows_and_can_be_replayed(rows: Path, repo: Path, tmp_path: Path) -> None:
    model = str(repo / "checkpoints" / "nano")
    few = settings("rollout.max_new_tokens=12", "rollout.max_turns=6")
    words = ["eval", "--benchmark", "streambench", "--data", str(rows), "--model", model, "--out", "run", *few]
    told = mmturn(*words, cwd=tmp_path)
    assert "by kind: CI" in told and " of 5" in told
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["overall"]["n"] == 10, "four questions and a conversation on each of two videos"
    assert {kind: group["n"] for kind, group in report["by"]["kind"].items()} == dict.fromkeys(
        ["CI", "LM", "OS", "SF", "SM"], 2
    )
    assert report["overall"]["num_clusters"] == 2
    again = mmturn("replay", "run", "--recipe", "nano_stream", "--model", model, *few, cwd=tmp_path)
    assert "2 trajectories, 0 diverge" in again


def test_a_replay_does_not_compare_what_a_clock_on_the_wall_told(rows: Path, repo: Path, tmp_path: Path) -> None:
    model = str(repo / "checkpoints" / "nano")
    few = settings("env.delay.clock=wall", "rollout.max_turns=1")
    rollout = [
        "rollout",
        "nano_stream",
        "--data",
        str(rows),
        "--model",
        model,
        "--out",
        "run",
        "--oracle",
        "--limit",
        "2",
    ]
    mmturn(*rollout, *few, cwd=tmp_path)
    told = [
        fact for trajectory in read_trajectories(tmp_path / "run") for fact in [trajectory.turns[-1].facts["measured"]]
    ]
    assert all(0 <= fact["ready_s"] <= fact["ended_s"] < 60 for fact in told)
    again = mmturn("replay", "run", "--recipe", "nano_stream", "--model", model, "--no-logprobs", *few, cwd=tmp_path)
    assert "2 trajectories, 0 diverge" in again


def test_the_oracle_knows_every_answer_of_a_session(rows: Path, repo: Path, tmp_path: Path) -> None:
    listed = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()][:3]
    questions = [
        {key: line[key] for key in ("id", "question", "choices", "answer")} | {"asked_at_s": at_s}
        for line, at_s in zip(listed, (90, 30, 60), strict=True)
    ]
    session = {"video": str(rows.parent / "a.mp4"), "question": "?", "answer": None, "questions": questions}
    (tmp_path / "session.jsonl").write_text(json.dumps(session), encoding="utf-8")
    words = ["rollout", "nano_stream", "--data", "session.jsonl", "--out", "run", "--oracle"]
    mmturn(*words, "--model", str(repo / "checkpoints" / "nano"), cwd=tmp_path)
    (trajectory,) = read_trajectories(tmp_path / "run")
    assert [turn.facts["answer"] for turn in trajectory.turns] == ["B", "C", "A"], "in the order of their times"
    assert trajectory.reward is not None and trajectory.reward.components["stream_answers"] == pytest.approx(1)
    assert [turn.fresh_context for turn in trajectory.turns] == [True] * 3
    refused = subprocess.run(
        [sys.executable, "-m", "mmturn", *words, *settings("oracle.look=true")],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert refused.returncode != 0 and "oracle.look: false" in refused.stdout + refused.stderr


def update_of(folder: Path) -> dict[str, Any]:
    lines: Sequence[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in lines if line.get("update") == 1)


def test_the_small_policy_learns_on_streams(rows: Path, repo: Path, tmp_path: Path) -> None:
    few = settings(
        "rollout.max_new_tokens=12", "rollout.max_turns=2", "rl.group_size=2", "rl.groups_per_update=2",
        "training.updates=1", "training.save_every=1", "sft.rows_per_update=4",
    )  # fmt: skip
    model = str(repo / "checkpoints" / "nano")
    mmturn("train", "nano_stream", "--data", str(rows), "--model", model, "--out", "rl", *few, cwd=tmp_path)
    assert update_of(tmp_path / "rl")["rollout/failed"] == 0
    mmturn("sft", "nano_stream", "--data", str(rows), "--model", model, "--out", "sft", *few, cwd=tmp_path)
    assert update_of(tmp_path / "sft")["sft/loss"] > 0


def test_the_launcher_takes_an_update_on_a_tiny_model(rows: Path, repo: Path, tmp_path: Path) -> None:
    model = tiny_model("qwen2_5_vl", tmp_path / "tiny")
    words = settings(
        "model.download=false", "model.dtype=float32", "rl.groups_per_update=2", "rl.group_size=2",
        "training.updates=1", "training.zero_stage=0", "rollout.max_new_tokens=6", "rollout.max_turns=4",
        "env.frame_budget=[784,3136]", "env.memory.chunk=4",
    )  # fmt: skip
    done = subprocess.run(
        ["bash", str(repo / "train" / "stream_chat.sh"), "--model", str(model), "--data", str(rows), "--out",
         str(tmp_path / "run"), *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHON": sys.executable, "GPUS": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert update_of(tmp_path / "run")["rollout/failed"] == 0
