"""How fast the desktop environment is: steps with their screenshot, resets, displays handed over and started."""

from __future__ import annotations

import statistics
import time

from mmturn.envs.gui.desktop.env import DesktopConfig, DesktopEnv
from mmturn.envs.gui.desktop.pool import DesktopPool, DesktopSettings, close_desktops
from mmturn.geometry import Size
from mmturn.gui_actions import act
from mmturn.media import ImageStore
from mmturn.tasks.gui.desktop import shipped_desktop_tasks


def steps_and_resets(steps: int, resets: int) -> tuple[float, float, float]:
    """Median milliseconds of a click and of a typed word in an editor, screenshot included, and of a reset."""
    env = DesktopEnv(DesktopConfig(), ImageStore(), lambda size, budget: size, [])
    task = next(task for task in shipped_desktop_tasks() if task.id == "append-line").task()
    began = []
    for _ in range(resets):
        start = time.monotonic()
        env.reset(task, 0)
        began.append(time.monotonic() - start)
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(steps):
        for kind, action in enumerate((act("click", 0, point=[400 + number, 300]), act("type", text="word "))):
            start = time.monotonic()
            env.step((action,))
            took[kind].append(time.monotonic() - start)
    env.close()
    click, word, reset = (statistics.median(times) * 1000 for times in (*took, began))
    return click, word, reset


def displays(count: int) -> tuple[float, float]:
    """Milliseconds until a prepared display is handed over, and displays per second, one after the other."""
    pool = DesktopPool(DesktopSettings(Size(1280, 720), prewarmed=4))
    pool.give_back(pool.fresh(30.0))
    time.sleep(3.0)
    handed = []
    for _ in range(4):
        start = time.monotonic()
        display = pool.fresh(30.0)
        handed.append(time.monotonic() - start)
        pool.give_back(display)
    start = time.monotonic()
    for _ in range(count):
        pool.give_back(pool.fresh(30.0))
    rate = count / (time.monotonic() - start)
    pool.close()
    return statistics.median(handed) * 1000, rate


def desktop() -> None:
    """Measure and print."""
    click, word, reset = steps_and_resets(40, 6)
    print(f"desktop: median step with screenshot {click:.0f} ms (a click), {word:.0f} ms (a typed word)")
    print(f"desktop: median reset with files, an editor and a screenshot {reset:.0f} ms")
    handed, rate = displays(20)
    print(f"fresh desktops: handed over in {handed:.1f} ms when prepared, {rate:.1f} per second sustained")
    close_desktops()
