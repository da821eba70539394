"""How fast the browser environment is: MiniWoB++ episodes by scripted solutions, resets, steps, contexts.

``python -m benchmarks.gui`` (an idle machine; ``--contexts 4 --seconds 10``). Every episode is reset, seen as a
screenshot, looked at by the scripted policy and solved; one that is not solved is counted and told.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmturn.envs.gui.browser.env import BrowserConfig, BrowserEnv
from mmturn.envs.gui.browser.experts import Expert
from mmturn.envs.gui.browser.pool import Pool, PoolSettings, close_pools
from mmturn.geometry import Size
from mmturn.gui_actions import act
from mmturn.media import ImageStore
from mmturn.tasks.gui.miniwob import miniwob_task

TASKS = ("click-test", "click-button")


@dataclass
class Times:
    """Seconds of each kind, and how many episodes were solved."""

    resets: list[float] = field(default_factory=list)
    seeds: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    solved: int = 0
    unsolved: int = 0


def player(name: str, times: Times, until: float, seeds: itertools.count[int]) -> None:
    """Play episodes until the time is over."""
    env = BrowserEnv(BrowserConfig(), ImageStore(), lambda size, budget: size, [])
    while time.monotonic() < until:
        task = miniwob_task(name, next(seeds))
        start = time.monotonic()
        shown = env.reset(task, 0)
        times.resets.append(time.monotonic() - start)
        actions = Expert(env, task).next(len(shown.views))
        step = env.step(actions)
        solved = step.terminated and step.facts["score"] == 1.0
        times.solved, times.unsolved = times.solved + solved, times.unsolved + (not solved)
    env.close()


def episodes_per_second(name: str, contexts: int, seconds: float) -> tuple[float, Times]:
    """Episodes with several contexts at once, after a warm-up."""
    for length in (2.0, seconds):
        times, until, seeds = Times(), time.monotonic() + length, itertools.count()
        start = time.monotonic()
        threads = [threading.Thread(target=player, args=(name, times, until, seeds)) for _ in range(contexts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = times.solved / (time.monotonic() - start)
    return rate, times


def steps_and_seeds(name: str, count: int) -> Times:
    """One context: resets, and steps that end with a screenshot of the page as it then is."""
    env = BrowserEnv(BrowserConfig(), ImageStore(), lambda size, budget: size, [])
    times = Times()
    for seed in range(count):
        start = time.monotonic()
        env.reset(miniwob_task(name, seed), 0)
        times.resets.append(time.monotonic() - start)
        start = time.monotonic()
        env.step((act("click", 0, point=[80, 20]),))  # the goal's words: nothing ends
        times.steps.append(time.monotonic() - start)
    env.close()
    return times


def contexts(count: int) -> tuple[float, float]:
    """Milliseconds until a prepared context is handed over, and fresh contexts per second without preparation."""
    pool = Pool(PoolSettings(Size(1280, 720), prewarmed=4))
    pool.give_back(pool.fresh(30.0))
    time.sleep(2.0)
    handed = []
    for _ in range(4):
        start = time.monotonic()
        pool.give_back(pool.fresh(30.0))
        handed.append(time.monotonic() - start)
    start = time.monotonic()
    for _ in range(count):
        pool.give_back(pool.fresh(30.0))
    rate = count / (time.monotonic() - start)
    pool.close()
    return statistics.median(handed) * 1000, rate


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args(arguments)
    for name in TASKS:
        rate, times = episodes_per_second(name, given.contexts, given.seconds)
        print(f"{name}: {rate:.1f} solved episodes/s with {given.contexts} contexts, {times.unsolved} not solved")
        times = steps_and_seeds(name, 60)
        print(
            f"{name}: median re-seed with screenshot {statistics.median(times.resets[1:]) * 1000:.0f} ms, "
            f"step with screenshot {statistics.median(times.steps) * 1000:.0f} ms (1 context)"
        )
    handed, rate = contexts(20)
    print(f"fresh contexts: handed over in {handed:.1f} ms when prepared, {rate:.1f} per second sustained")
    close_pools()


if __name__ == "__main__":
    main()
