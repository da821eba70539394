"""Rollouts that are played on threads and in workers, and have to come out the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmturn.build import make_host
from mmturn.components import env_factory, env_settings, make_grammar, make_tools
from mmturn.engines.scripted import ScriptedEngine
from mmturn.families import family_of
from mmturn.jobs.data import load_tasks
from mmturn.media import ImageStore
from mmturn.models.files import model_folder
from mmturn.recipe import Recipe, read_recipe
from mmturn.rendering.renderer import Renderer
from mmturn.rendering.tokenizer import load_tokenizer
from mmturn.rollout import Driver, episodes
from mmturn.rollout.workers.link import Start
from mmturn.rollout.workers.remote import stand_in
from mmturn.rollout.workers.settings import WorkersConfig
from mmturn.rollout.workers.starting import make_pool
from mmturn.store.codec import encode
from mmturn.tasks.board import board_tasks
from mmturn.tasks.gui.miniwob import miniwob_task
from mmturn.tasks.video_world import generate as generate_videos
from mmturn.tasks.visual_search import generate
from mmturn.types import MEASURED, Request, Task, Trajectory

NEGATIVE = """
from PIL import ImageOps
from mmturn.interfaces import ToolResult
from mmturn.types import ToolSpec


class Negative:
    spec = ToolSpec("negative", "Shows the negative.", {"type": "object", "properties": {}})

    def __call__(self, arguments, view, look):
        return ToolResult((look.picture(ImageOps.invert(look.pixels(view))),))
"""


@dataclass
class Case:
    """A recipe, its tasks, and what is said to them."""

    recipe: Recipe
    tasks: list[Task]
    said: dict[str, list[str]]
    """By task: what each turn says; an answer ends it."""

    def played(self, workers: WorkersConfig) -> tuple[list[Trajectory], ImageStore]:
        folder = model_folder(self.recipe.model.path)
        family = family_of(folder, self.recipe.model.family)
        renderer, store = Renderer(family, load_tokenizer(folder)), ImageStore(view_bytes=0)
        config = replace(self.recipe.rollout, deterministic=True, workers=workers, env_workers=2)
        make = env_factory(self.recipe, family, store, make_tools(self.recipe, True))
        pool = make_pool(config, Start("mmturn.components:env_of", env_settings(self.recipe, family, True)))

        def script(request: Request) -> str:
            return self.said[request.task_id][request.turn]

        driver = Driver(
            ScriptedEngine(script, renderer), renderer, make_grammar(self.recipe.grammar, family),
            make if pool is None else stand_in(make(), pool, store), make_host(config, pool), config,
            prepare=store.pixels,
        )  # fmt: skip
        try:
            return list(driver.run(episodes([(task, 0) for task in self.tasks], 2, run_seed=0))), store
        finally:
            driver.close()


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def looking(tmp_path: Path) -> Case:
    generate(tmp_path, split="heldout", tasks=2, seed=0, workers=1)
    (tmp_path / "own.py").write_text(NEGATIVE)
    tools = f'tools=[{{name: "crop"}}, {{name: "{tmp_path / "own.py"}:Negative"}}]'
    recipe, _ = read_recipe("nano_rl", (tools, "env.max_images=3", "rollout.max_context=4096"))
    tasks = load_tasks(tmp_path / "tasks.jsonl")[0]
    turns = [
        call("crop", bbox_2d=[10, 10, 300, 300]), call("crop", bbox_2d=[5, 5]), call("negative"),
        "<answer>\u00e9 \U0001f600</answer>",
    ]  # fmt: skip
    return Case(recipe, tasks, {task.id: turns for task in tasks})


def watching(tmp_path: Path) -> Case:
    generate_videos(tmp_path, split="heldout", tasks=2, seed=0, workers=1)
    recipe, _ = read_recipe("nano_video_rl")
    tasks = load_tasks(tmp_path / "tasks.jsonl")[0]
    return Case(recipe, tasks, {task.id: [call("look", start=0, end=2), "<answer>3</answer>"] for task in tasks})


def playing(tmp_path: Path) -> Case:
    recipe, _ = read_recipe("nano_board")
    tasks = board_tasks("train", 3)
    free = {task.id: [c for c in range(9, 0, -1) if c not in task.meta["opening"]] for task in tasks}
    return Case(recipe, tasks, {name: [call("mark", cell=c) for c in cells] for name, cells in free.items()})


def clicking(tmp_path: Path) -> Case:
    settings = ('env={name: "browser"}', "tools=[]", "rollout.max_context=4096", "rollout.max_turns=2")
    recipe, _ = read_recipe("nano_rl", settings)
    tasks = [miniwob_task("click-test", seed) for seed in range(2)]
    click = [call("click", point=[900, 100]), call("click", point=[40, 500])]
    return Case(recipe, tasks, {task.id: click for task in tasks})


def plain(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory without what is another each time."""
    turns = tuple(
        replace(turn, seconds={}, facts={k: v for k, v in turn.facts.items() if k != MEASURED})
        for turn in trajectory.turns
    )
    told: dict[str, Any] = encode(replace(trajectory, turns=turns), Trajectory)
    return told


def pictures(played: tuple[list[Trajectory], ImageStore]) -> dict[str, bytes]:
    trajectories, store = played
    refs = {ref for t in trajectories for view in t.views for ref in view.sources}
    return {ref.sha256: store.bytes(ref) for ref in refs}


def check_equal(case: Case, workers: WorkersConfig) -> None:
    threads, other = case.played(WorkersConfig()), case.played(workers)
    assert list(map(plain, threads[0])) == list(map(plain, other[0]))
    assert pictures(threads) == pictures(other) and pictures(threads)
    assert all(turn.facts[MEASURED]["worker"].startswith(workers.kind) for t in other[0] for turn in t.turns)
    assert not any("worker" in turn.facts.get(MEASURED, {}) for t in threads[0] for turn in t.turns)
    assert {t.stop.status for t in threads[0]} <= {"terminated", "truncated"}
