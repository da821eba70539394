"""Environment steps per second on threads, in worker processes and in Ray actors: crops of images, clicks in a browser.

``python -m benchmarks.workers`` (an idle machine; ``--kinds thread process``, ``--worlds crop``, ``--episodes 16``,
``--workers 2``, ``--seconds 10``). Each episode is reset, takes three steps, and every picture that it shows is decoded
and resized here, as in training. Nothing samples: this is what environments alone can do.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmturn.components import env_factory, env_settings, make_tools
from mmturn.envs.gui.browser.pool import close_pools
from mmturn.families.nano.spec import FAMILY
from mmturn.gui_actions import act
from mmturn.interfaces import Environment
from mmturn.media import ImageStore
from mmturn.recipe import Recipe
from mmturn.rollout import RolloutConfig
from mmturn.rollout.workers.link import Start
from mmturn.rollout.workers.remote import stand_in
from mmturn.rollout.workers.settings import WorkersConfig
from mmturn.rollout.workers.starting import make_pool
from mmturn.tasks.gui.miniwob import miniwob_task
from mmturn.types import Action, Observation, Task

STEPS = 3


@dataclass(frozen=True)
class World:
    """A recipe's environment, and what an episode does in it."""

    recipe: Recipe
    task: Callable[[int], Task]
    actions: Callable[[int], tuple[Action, ...]]
    """Of the how-manieth step of all."""


def crops(folder: Path, side_px: int = 1024) -> World:
    """Boxes cut from eight images of noise and colour, ``side_px`` across."""
    noise = np.random.default_rng(0)
    paths = []
    for number in range(8):
        pixels = noise.integers(0, 255, (side_px // 8, side_px // 8, 3), dtype=np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC).save(paths[-1])

    def actions(step: int) -> tuple[Action, ...]:
        left, top = 0.37 * (step % 1000), 0.53 * (step % 777)  # never the same twice: nothing is found in a cache
        return (Action("tool", "crop", {"bbox_2d": [left, top, left + 300, top + 300]}, view=0),)

    return World(Recipe(), lambda seed: Task(f"t{seed}", "?", images=(str(paths[seed % 8]),)), actions)


def clicks(folder: Path) -> World:
    """Clicks on the words of a MiniWoB++ task, which end nothing."""
    recipe = Recipe(env={"name": "browser"}, tools=())
    return World(recipe, lambda seed: miniwob_task("click-test", seed), lambda step: (act("click", 0, point=[80, 20]),))


def steps_per_second(world: World, workers: WorkersConfig, episodes: int, seconds: float) -> tuple[float, float]:
    """Steps a second with so many episodes at once, and the median seconds of a step, after a warm-up."""
    store = ImageStore()
    make: Callable[[], Environment] = env_factory(world.recipe, FAMILY, store, make_tools(world.recipe))
    pool = make_pool(
        RolloutConfig(workers=workers), Start("mmturn.components:env_of", env_settings(world.recipe, FAMILY))
    )
    make = make if pool is None else stand_in(make(), pool, store)
    envs = [make() for _ in range(episodes)]
    took: list[float] = []
    for length in (min(seconds, 3.0), seconds):
        took.clear()
        numbers, until, begun = itertools.count(), time.monotonic() + length, time.monotonic()
        threads = [threading.Thread(target=_play, args=(env, world, store, numbers, until, took)) for env in envs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = len(took) / (time.monotonic() - begun)
    for env in envs:
        env.close()
    if pool is not None:
        pool.close()
    return rate, sorted(took)[len(took) // 2]


def _play(
    env: Environment, world: World, store: ImageStore, numbers: itertools.count[int], until: float, took: list[float]
) -> None:
    while True:
        number = next(numbers)
        _look(env.reset(world.task(number), 0), store)
        for step in range(STEPS):
            begun = time.monotonic()
            shown = env.step(world.actions(STEPS * number + step)).observation
            if shown is not None:
                _look(shown, store)
            took.append(time.monotonic() - begun)
        if time.monotonic() > until:
            return


def _look(shown: Observation, store: ImageStore) -> None:
    for view in shown.views:
        store.pixels(view)


WORLDS = {"crop": crops, "browser": clicks}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=("thread", "process", "ray"), default=["thread", "process"])
    parser.add_argument("--worlds", nargs="+", choices=tuple(WORLDS), default=list(WORLDS))
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args(arguments)
    print("| environment | runs in | steps/s | median step, ms |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        worlds = {name: WORLDS[name](Path(folder)) for name in given.worlds}
        for name, kind in itertools.product(given.worlds, given.kinds):
            workers = WorkersConfig(kind=kind, count=given.workers)
            rate, median = steps_per_second(worlds[name], workers, given.episodes, given.seconds)
            print(f"| {name} | {kind} | {rate:.1f} | {median * 1000:.1f} |", flush=True)
    close_pools()


if __name__ == "__main__":
    main()
