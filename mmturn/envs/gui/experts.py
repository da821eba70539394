"""Tasks of GUI environments played by their scripted solutions, for tests and cold starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mmturn.envs.gui.browser.env import BrowserEnv
from mmturn.envs.gui.browser.experts import BrowserExpert
from mmturn.envs.gui.desktop.env import DesktopEnv
from mmturn.envs.gui.desktop.experts import DesktopExpert
from mmturn.errors import EnvError
from mmturn.interfaces import Step
from mmturn.types import Action, Observation, Task

_MOST_TURNS = 60
ScriptedEnv = BrowserEnv | DesktopEnv
"""Environments whose tasks may have a scripted solution."""


class Expert(Protocol):
    """Plays one episode, looking at the world as it is."""

    def next(self, views: int) -> tuple[Action, ...]:
        """Actions of the next turn; ``views``: how many views were shown so far. Raises EnvError when it is lost."""
        ...


def expert(env: ScriptedEnv, task: Task) -> Expert:
    """Who plays a task of an environment. Raises DataError for a task without a scripted solution."""
    return BrowserExpert(env, task) if isinstance(env, BrowserEnv) else DesktopExpert(env, task)


def play(
    env: ScriptedEnv, task: Task, seed: int, watch: Callable[[tuple[Action, ...]], None] | None = None
) -> tuple[float, Step]:
    """Play a task by its scripted solution: the score at the end, and the last step. ``watch`` sees each turn's
    actions. Raises DataError where there is no solution, EnvError where it does not lead to an end."""
    shown: Observation | None = env.reset(task, seed)
    player = expert(env, task)
    views = 0
    for _ in range(_MOST_TURNS):
        assert shown is not None
        views += len(shown.views)
        actions = player.next(views)
        if watch is not None:
            watch(actions)
        step = env.step(actions)
        shown = step.observation
        if step.terminated:
            return float(step.facts["score"]), step
    raise EnvError(f"task {task.id}: its scripted solution has not ended after {_MOST_TURNS} turns")
