"""Recipes over videos take an update when a tiny model of the same family is swapped in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmturn.store.trajectories import read_trajectories
from mmturn.testing.tiny import tiny_model
from tests.media.video.clips import write_clip

SMALL = [
    "model.download=false", "model.dtype=float32", "rl.groups_per_update=2", "rl.minibatches=1", "training.updates=1",
    "rollout.max_new_tokens=8", "env.initial_frames=3", "env.frame_budget=[784,3136]", "training.zero_stage=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two task rows on a clip, and one on a file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "clip.mp4", 40, rate=5)
    (folder / "broken.mp4").write_bytes(b"no video")
    lines = [
        {"video": name, "question": "Which?", "choices": ["x", "y"], "answer": "B", "spans": [[2, 3]], "id": f"t{k}"}
        for k, name in enumerate(["clip.mp4", "clip.mp4", "broken.mp4"])
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder / "rows.jsonl"


@pytest.mark.parametrize(
    "recipe", ["video_mtr_qwen2_5_vl_7b", "framethinker_qwen2_5_vl_7b", "pixel_reasoner_qwen2_5_vl_7b"]
)
def test_launchers_take_an_update(recipe: str, rows: Path, repo: Path, tmp_path: Path) -> None:
    model = tiny_model("qwen2_5_vl", tmp_path / "tiny")
    settings = [
        *SMALL,
        "rl.groups_per_update=3",
        *(["rl.group_size=2"] if recipe.startswith(("frame", "pixel")) else []),
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        ["bash", str(repo / "train" / f"{recipe}.sh"), "--model", str(model), "--data", str(rows), "--out",
         str(tmp_path / "run"), *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHON": sys.executable, "GPUS": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (update,) = [line for line in lines if line.get("update") == 1]
    group_size = 2 if recipe.startswith(("frame", "pixel")) else 1
    assert update["rollout/failed"] == pytest.approx(1 / 3)  # the broken file's, and the run went on
    stored = (tmp_path / "run" / "rollouts" / "trajectories.jsonl").read_text().splitlines()[1:]
    assert len(stored) == 3 * group_size
    failed = [json.loads(line) for line in stored if "broken.mp4" in line]
    assert all("broken.mp4" in trajectory["error"] for trajectory in failed)


def test_ask_writes_a_page_with_a_time_line(rows: Path, repo: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmturn", "ask", "--video", str(rows.parent / "clip.mp4"), "--question", "Which?",
         "--model", str(repo / "checkpoints" / "nano"), "--out", str(tmp_path / "asked")],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    page = (tmp_path / "asked" / "answer.html").read_text(encoding="utf-8")
    data = page.split('id="data">')[1].split("</script>")[0]
    (item,) = json.loads(data)["sections"][0]["groups"][0]["items"]
    assert item["timeline"]["seconds"] == 8.0
    assert len(item["timeline"]["turns"][0]["frames"]) == 12
    assert [view["second"] for view in item["turns"][0]["views"]] == item["timeline"]["turns"][0]["frames"]


def test_ask_wants_one_file_and_one_question(rows: Path, tmp_path: Path) -> None:
    for words in ([], ["--video", "a.mp4"], ["a.png", "what?", "--video", "a.mp4"], ["a.png", "what?", "-q", "how?"]):
        done = subprocess.run(
            [sys.executable, "-m", "mmturn", "ask", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "ask about one file" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("unit", "more"),
    [("time", {}), ("second", {}), ("pool", {}), ("frame", {}), ("frame", {"ends": "out"})],
    ids=["time", "second", "pool", "frame", "between"],
)
def test_an_oracle_looks_at_the_gold_stretches(
    unit: str, more: dict[str, str], rows: Path, repo: Path, tmp_path: Path
) -> None:
    tool = {"name": "span", "unit": unit, "frames": 6, **more}
    settings = [f"tools=[{json.dumps(tool)}]", "env.initial_frames=2", "env.pool_rate=4", "rollout.max_new_tokens=96"]
    settings += ["reward.terms={answer: 1.0, gold_frame: 0.0}", "reward.settings={gold_frame: {opening: false}}"]
    words = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "mmturn", "rollout", "nano_ask_video", "--data", str(rows), "--oracle", "--out",
         str(tmp_path / "run"), *words],
        cwd=repo, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    trajectories = [t for t in read_trajectories(tmp_path / "run") if t.stop.status != "failed"]
    assert len(trajectories) == 2
    for trajectory in trajectories:
        assert trajectory.reward is not None and dict(trajectory.reward.components) == {
            "answer": 1.0,
            "gold_frame": 1.0,
        }
        ((start, end),) = trajectory.turns[0].facts["spans"]
        assert start <= 2.4 and end >= 2.6 and end - start < 5, "about the gold stretch from 2 s to 3 s"
