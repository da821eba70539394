"""Scripted solutions: what to do next on the page as it is, as canonical actions. For tests and cold starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmturn.envs.gui.browser.env import BrowserEnv
from mmturn.envs.gui.browser.miniwob_experts import EXPERTS
from mmturn.errors import DataError, EnvError
from mmturn.geometry import Point
from mmturn.gui_actions import act, finish
from mmturn.interfaces import Step
from mmturn.tasks.gui.web import read_web_task
from mmturn.types import Action, Observation, Task

_WHERE = """(selector) => { const one = document.querySelector(selector); if (!one) return null;
  const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2, innerHeight]; }"""
_MOST_TURNS = 40
_DONE = "done"
"""Said at the end of a task that asks for no answer: some dialects end with words alone."""


class Expert:
    """Plays one episode of an environment: ``next`` gives the actions of the next turn, looking at the live page."""

    def __init__(self, env: BrowserEnv, task: Task) -> None:
        """Raises DataError for a task without a scripted solution."""
        self._env, self._task = env, task
        page = task.meta.get("browser", {})
        self._name = page.get("miniwob")
        if self._name is not None and self._name not in EXPERTS:
            raise DataError(f"task {task.id}: there is no scripted solution of {self._name}; of: {', '.join(EXPERTS)}")
        self._steps = [] if self._name is not None else list(read_web_task(task).solution)
        if self._name is None and not self._steps:
            raise DataError(f"task {task.id}: meta.browser.solution is missing")

    def next(self, views: int) -> tuple[Action, ...]:
        """Actions of the next turn; ``views``: how many views were shown so far. Raises EnvError when it is lost."""
        if self._name is not None:
            steps = self._ask(EXPERTS[self._name])
            return tuple(self._action(step, views - 1) for step in steps)
        if not self._steps:
            return (finish(_DONE),)
        kind, *words = self._steps[0]
        if kind in ("click", "type", "select"):
            place = self._place(words[0], views - 1)
            if isinstance(place, Action):
                return (place,)
            self._steps.pop(0)
            return _on_element(kind, place, words[1:], views - 1)
        self._steps.pop(0)
        return (self._action((kind, *words), views - 1),)

    def _ask(self, script: str) -> Sequence[Sequence[Any]]:
        steps: Sequence[Sequence[Any]] = self._env.pool.run(self._env.session.evaluate(script), 5.0)
        if not steps:
            raise EnvError(f"task {self._task.id}: the scripted solution does not know how to go on")
        return steps

    def _place(self, selector: str, view: int) -> list[float] | Action:
        """Where an element is, in pixels of the view, or the scroll that brings it into sight."""
        found = self._env.pool.run(self._env.session.evaluate(_WHERE, selector), 5.0)
        if found is None:
            raise EnvError(f"task {self._task.id}: there is no {selector} on the page")
        x, y, height = found
        if not 0 <= y < height:
            middle = self._shown([x, height / 2], view)
            return act("scroll", view, point=middle, dy=y - height / 2, unit="px")
        return self._shown([x, y], view)

    def _shown(self, point: Sequence[float], view: int) -> list[float]:
        """CSS pixels as pixels of a view."""
        scale = self._env.config.scale
        there = self._env.shown_view(view).transform.inverse().point(Point(point[0] * scale, point[1] * scale))
        return [there.x, there.y]

    def _action(self, step: Sequence[Any], view: int) -> Action:
        """A step in words: click x y, drag x y x y, type text, key name+name, scroll x y dy, finish text status."""
        kind, *words = step
        if kind == "click":
            return act("click", view, point=self._shown(words[:2], view), **(words[2] if len(words) > 2 else {}))
        if kind == "drag":
            return act("drag", view, path=[self._shown(words[:2], view), self._shown(words[2:4], view)])
        if kind == "scroll":
            return act("scroll", view, point=self._shown(words[:2], view), dy=words[2], unit="px")
        if kind == "type":
            return act("type", text=words[0])
        if kind == "key":
            return act("key", keys=words[0].split("+"))
        if kind == "finish":
            return finish(words[0] if words else "", words[1] if len(words) > 1 else "success")
        raise DataError(f"task {self._task.id}: a solution has no step {kind!r}")


def _on_element(kind: str, point: list[float], words: Sequence[str], view: int) -> tuple[Action, ...]:
    if kind == "click":
        return (act("click", view, point=point),)
    if kind == "type":
        # In steps that every dialect can say.
        return act("click", view, point=point), act("key", keys=["ctrl", "a"]), act("type", text=words[0])
    # A list opens on a click, goes to what is typed, and closes on enter.
    return (act("click", view, point=point), act("type", text=words[0]), act("key", keys=["enter"]))


def play(
    env: BrowserEnv, task: Task, seed: int, watch: Callable[[tuple[Action, ...]], None] | None = None
) -> tuple[float, Step]:
    """Play a task by its scripted solution: the score at the end, and the last step. ``watch`` sees each turn's
    actions. Raises DataError where there is no solution, EnvError where it does not lead to an end."""
    shown: Observation | None = env.reset(task, seed)
    expert = Expert(env, task)
    views = 0
    for _ in range(_MOST_TURNS):
        assert shown is not None
        views += len(shown.views)
        actions = expert.next(views)
        if watch is not None:
            watch(actions)
        step = env.step(actions)
        shown = step.observation
        if step.terminated:
            return float(step.facts["score"]), step
    raise EnvError(f"task {task.id}: its scripted solution has not ended after {_MOST_TURNS} turns")
