"""`mmturn demo --smoke` through the path of the full demo, and the shipped policy's promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmturn.build import make_policy
from mmturn.evaluation.report import EvalReport
from mmturn.jobs.data import generated
from mmturn.jobs.evaluate import evaluate_policy
from mmturn.models.files import SHIPPED, model_folder
from mmturn.recipe import read_recipe
from mmturn.tasks.visual_search.words import LEVELS


@pytest.mark.parametrize(("words", "good"), [((), "useful crops"), (("video",), "saw the gold stretch")])
def test_smoke(words: tuple[str, ...], good: str, tmp_path: Path):
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "mmturn", "demo", *words, "--smoke", "--out", str(out), "--seed", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = out / "report.html"
    assert str(page) in done.stdout.replace("\n", "")
    again = f"seed 3 reproduces this: {' '.join(('mmturn demo', *words))} --seed 3"
    for line in ("accuracy before", "accuracy after", good, again):
        assert line in done.stdout
    html = page.read_text(encoding="utf-8")
    assert "<script" in html and 'http-equiv="refresh"' not in html.lower()
    assert json.loads((out / "before" / "report.json").read_text())["overall"]["n"] == 8


@pytest.mark.browser
def test_smoke_in_the_browser(tmp_path: Path, chromium: Path):
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "mmturn", "demo", "gui", "--smoke", "--out", str(out), "--seed", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "seed 3 reproduces this: mmturn demo gui --seed 3" in done.stdout and "useful" not in done.stdout
    page = json.loads((out / "before" / "report.json").read_text())
    assert set(page["by"]["level"]) == set(read_recipe("nano_gui_rl")[0].data.levels) and page["overall"]["n"] == 8
    html = (out / "report.html").read_text(encoding="utf-8")
    assert '"env_score"' in html and "image/webp" in html


def test_a_folder_of_others_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep me")
    command = [sys.executable, "-m", "mmturn", "demo", "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "ConfigError" in done.stderr and (tmp_path / "mine.txt").exists()


def test_an_unknown_demo_is_refused(tmp_path: Path):
    command = [sys.executable, "-m", "mmturn", "demo", "sound"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "choose one of images, video, gui" in done.stderr and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def shipped(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalReport:
    folder = tmp_path_factory.mktemp("shipped")
    recipe, _ = read_recipe("nano_rl", (f"model.path={json.dumps(str(nano))}",))
    tasks = generated(folder / "tasks", "val", 60, seed=11, levels=LEVELS, workers=1)
    return evaluate_policy(make_policy(recipe), tasks, folder / "eval", resume=False)


def test_the_shipped_policy_speaks_the_format(shipped: EvalReport):
    assert shipped.stops.get("answered", 0) / shipped.overall.n >= 0.95
    assert shipped.overall.unparsed / shipped.overall.n <= 0.05


def test_the_shipped_policy_looks_where_a_look_is_needed(shipped: EvalReport):
    reading = [group for level, group in shipped.by["level"].items() if level != "position"]
    looked = sum((group.mean_crops or 0.0 if (group.mean_crops or 0) < 1 else 1.0) * group.n for group in reading)
    assert looked / sum(group.n for group in reading) >= 0.9


def test_the_shipped_policy_of_videos_asks_for_stretches_and_reads_them(tmp_path: Path):
    recipe, _ = read_recipe("nano_video_rl", ("data.levels=[moment, cue]",))
    tasks = generated(tmp_path / "tasks", "val", 32, seed=11, levels=recipe.data.levels, world="video_world", workers=1)
    report = evaluate_policy(make_policy(recipe), tasks, tmp_path / "eval", resume=False)
    assert report.stops.get("answered", 0) / report.overall.n >= 0.9
    assert (report.overall.gold_seen_rate or 0) >= 0.45 and (report.overall.accuracy or 0) >= 0.4


@pytest.mark.browser
def test_the_shipped_policy_of_a_browser_finds_widgets_and_misses_many(tmp_path: Path, chromium: Path):
    recipe, _ = read_recipe("nano_gui_rl", ())
    levels = recipe.data.levels
    tasks = generated(tmp_path / "tasks", "val", 56, seed=11, levels=levels, world="miniwob", workers=1)
    report = evaluate_policy(make_policy(recipe), tasks, tmp_path / "eval", resume=False)
    assert report.info.suite == "miniwob" and set(report.by["level"]) == set(levels)
    assert report.overall.num_failed == 0 and 0.05 <= (report.overall.accuracy or 0) <= 0.45


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_policies_are_small(name: str):
    from safetensors import safe_open

    file = model_folder(name) / "model.safetensors"
    assert file.stat().st_size <= 16_000_000
    with safe_open(file, framework="pt") as weights:
        count = 0
        for name in weights.keys():  # noqa: SIM118 - not a dict
            size = 1
            for side in weights.get_slice(name).get_shape():
                size *= side
            count += size
    assert count <= 8_000_000
