"""Conversations about films, as the small policy is taught them: the library's own tokens, and a teacher that finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmturn.build import make_policy
from mmturn.jobs.rollout import oracle_trajectories
from mmturn.recipe import read_recipe
from mmturn.tasks.rows import read_tasks
from mmturn.tasks.video_world import generate, sample_film
from train.nano import video
from train.nano.dialogue import COORDINATE, READ, Encoder
from train.nano.watching import COLUMNS, Script, Teacher, Watched, frames_between, opening_frames, seen, watch

LEVELS = ("moment", "cue", "order", "count", "change")


@pytest.fixture(scope="module")
def policy(repo: Path):
    wishes = (f"model.path={repo / 'checkpoints' / 'nano'}", "oracle.least_s=4", "oracle.scale=[2, 3]")
    return make_policy(read_recipe("nano_video", wishes)[0])


@pytest.fixture(scope="module")
def trajectories(policy, tmp_path_factory: pytest.TempPathFactory):
    tasks, _ = read_tasks(generate(tmp_path_factory.mktemp("films"), split="train", tasks=8, seed=0, levels=LEVELS))
    found = list(oracle_trajectories(policy, tasks, policy.recipe.oracle))
    assert {t.task.meta["level"] for t in found} == set(LEVELS) and all(t.num_turns == 2 for t in found)
    return found


def test_they_are_the_librarys_own_tokens(policy, trajectories) -> None:
    encoder = Encoder(policy.loaded.tokenizer)
    for trajectory in trajectories:
        film = sample_film(int(trajectory.task.meta["film"].split("/")[1]), "train", LEVELS)
        event = film.events[int(trajectory.task.id.split("/")[-1])]
        start, end = (int(value) for value in trajectory.turns[0].facts["spans"][0])
        shown = frames_between(start, end)
        assert [number for number, _ in trajectory.turns[0].facts["frames"]] == shown
        watched = Watched(film, event, trajectory.task.question, opening_frames(film), [(start, end)], [shown])
        script = Script(encoder, lambda number: 0)
        sequence = script.write(watched)
        assert sequence.ids == [token for turn in trajectory.turns for token in turn.token_ids]
        assert sequence.kind.count(COORDINATE) == 2 and (READ in sequence.kind) == seen(event, shown)
        for what, position, key in sequence.pulls:
            assert 0 <= key < len(sequence.ids) and (what == "label" or key < position)


def test_attention_is_pulled_into_the_frame_that_shows_it(policy) -> None:
    encoder, teacher, rng = Encoder(policy.loaded.tokenizer), Teacher(jitter=0.0), np.random.default_rng(0)
    reads = 0
    for seed in range(6):
        film = sample_film(seed, "train", LEVELS)
        for event in film.events:
            script = Script(encoder, lambda number: 0)
            watched = watch(film, event, teacher, rng)
            for what, _, key in script.write(watched).pulls:
                if what == "read":
                    reads += 1
                    shown = [n for n, at in script.starts.items() if at <= key < at + COLUMNS**2]
                    assert len(shown) == 1 and event.start_s <= shown[0] / 8 < event.end_s
    assert reads > 10


def test_a_teacher_looks_again_where_it_missed_and_stops_where_it_saw() -> None:
    rng = np.random.default_rng(0)
    for offset, at_once in ((0.0, 0.6), (1.5, 0.0)):
        looks = []
        for seed in range(10):
            film = sample_film(seed, "train", LEVELS)
            for event in film.events:
                watched = watch(film, event, Teacher(offset=offset, jitter=0.1), rng)
                assert len(watched.looks) == 2 or seen(event, watched.looks[0])
                looks.append(len(watched.looks))
        assert (np.mean(np.array(looks) == 1) >= at_once) and (offset == 0.0 or np.mean(looks) > 1.8)


def test_the_stage_runs_and_leaves_the_tower_alone(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = repo / "checkpoints" / "nano"
    sizes = {"films": 1, "steps": 4, "batch": 2, "log": 1, "held": 4, "threads": 1, "workers": 1}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    monkeypatch.setattr("sys.argv", ["video", "--start", str(start), "--out", str(tmp_path / "out"), *words])
    video.main()
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("visual" in name for name in changed)
    assert "held out, read" in capsys.readouterr().out
