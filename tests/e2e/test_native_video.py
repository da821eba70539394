"""Native video from the command line: an update on tiny models of both architectures, its replay, a question, and a
family that has no video tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mmturn.store.trajectories import read_trajectories
from mmturn.testing.tiny import tiny_model
from tests.media.video.clips import write_clip

SETTINGS = [
    "model.download=false", "model.dtype=float32", "rollout.max_new_tokens=8", "env.shown_as=video",
    "env.initial_frames=5", "env.frame_budget=[784,6272]",
]  # fmt: skip
TRAINING = [
    "rl.groups_per_update=2", "rl.group_size=2", "rl.minibatches=1", "training.updates=1", "training.zero_stage=0",
    "training.lr=0.01",
]  # fmt: skip
REWARD = """
import hashlib
class Luck:
    def __call__(self, trajectory):
        return hashlib.sha256(trajectory.turns[0].text.encode()).digest()[0] / 255
"""
KINDS = ("qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two task rows on a clip of 12 s."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "clip.mp4", 60, rate=5)
    row = {"video": "clip.mp4", "question": "Which?", "choices": ["x", "y"], "answer": "B", "spans": [[2, 3]]}
    (folder / "rows.jsonl").write_text("".join(json.dumps({**row, "id": f"t{k}"}) + "\n" for k in range(2)))
    return folder / "rows.jsonl"


def mmturn(folder: Path, *words: str, settings: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmturn", *words, *[word for setting in settings for word in ("--set", setting)]]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def latest_policy(run: Path) -> Path:
    """The policy of the only checkpoint."""
    (found,) = run.glob("checkpoints/*/policy")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_with_native_video(kind: str, rows: Path, tmp_path: Path) -> None:
    model, run = tiny_model(kind, tmp_path / "tiny"), tmp_path / "run"  # type: ignore[arg-type]
    named = ["framethinker_qwen2_5_vl_7b", "--model", str(model)]
    (tmp_path / "own.py").write_text(REWARD)
    reward = f'reward.terms={{"{tmp_path / "own.py"}:Luck": 1.0}}'
    done = mmturn(
        tmp_path, "train", *named, "--data", str(rows), "--out", str(run),
        settings=[*SETTINGS, *TRAINING, reward],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (update,) = [line for line in lines if line.get("update") == 1]
    assert update["rollout/failed"] == 0 and update["mismatch/gap"] < 1e-4
    assert update["cost/images_encoded"] == update["cost/images_learned"] == 1, "the one clip of all went through once"
    trajectories = list(read_trajectories(run / "rollouts"))
    assert len(trajectories) == 4
    for trajectory in trajectories:
        (view,) = trajectory.turns[0].views
        assert view.clip is not None and view.clip.seconds == (0.0, 2.8, 5.8, 8.8, 11.8) and view.clip.pace_s == 2.4
    before, after = (load_file(folder / "model.safetensors") for folder in (model, latest_policy(run)))
    (first,) = [name for name in before if name.endswith("patch_embed.proj.weight")]
    assert not before[first].equal(after[first]), "gradients reached the tower's first layer"
    again = mmturn(
        tmp_path, "replay", str(run / "rollouts"), "--recipe", *named,
        settings=[*SETTINGS, reward],
    )  # fmt: skip
    assert again.returncode == 0 and "4 trajectories, 0 diverge" in again.stdout, again.stdout[-2000:]


def test_ask_shows_the_frames_of_the_clip(rows: Path, tmp_path: Path) -> None:
    model = tiny_model("qwen3_vl", tmp_path / "tiny")
    done = mmturn(
        tmp_path, "ask", "--video", str(rows.parent / "clip.mp4"), "--question", "Which?", "--model", str(model),
        "--out", str(tmp_path / "asked"), settings=SETTINGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    page = (tmp_path / "asked" / "answer.html").read_text(encoding="utf-8")
    (item,) = json.loads(page.split('id="data">')[1].split("</script>")[0])["sections"][0]["groups"][0]["items"]
    shown = item["turns"][0]["views"]
    assert [view["second"] for view in shown] == [0.0, 2.8, 5.8, 8.8, 11.8]
    assert len({view["picture"] for view in shown}) == 5 and None not in {view["picture"] for view in shown}


def test_a_family_without_video_tokens_is_refused_before_its_weights_are_loaded(
    rows: Path, repo: Path, tmp_path: Path
) -> None:
    """As a ConfigError that names the setting, from a folder that has no weights at all."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in (repo / "checkpoints" / "nano").iterdir():
        if file.suffix == ".json":
            (bare / file.name).write_bytes(file.read_bytes())
    done = mmturn(
        tmp_path, "rollout", "nano_ask_video", "--model", str(bare), "--data", str(rows), "--out", str(tmp_path),
        settings=["env.shown_as=video"],
    )  # fmt: skip
    assert done.returncode != 0
    words = " ".join((done.stdout + done.stderr).split())
    assert "ConfigError: env.shown_as is video, but the model family nano has no video tokens" in words
