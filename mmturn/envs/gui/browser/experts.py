"""Scripted solutions: what to do next on the page as it is, as canonical actions. For tests and cold starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmturn.envs.gui.browser.env import BrowserEnv
from mmturn.envs.gui.browser.miniwob_experts import EXPERTS
from mmturn.envs.gui.solutions import DONE, on_view, plain_step
from mmturn.errors import DataError, EnvError
from mmturn.gui_actions import act, finish
from mmturn.tasks.gui.web import read_web_task
from mmturn.types import Action, Task

_MOST_SCROLLS = 20
"""Scrolls in a row for one step; what they do not reach lies beside the page, or in a part of it that stands still."""
_WHERE = """(selector) => { const one = document.querySelector(selector); if (!one) return null;
  const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2, innerHeight]; }"""
_FILLED = "(all, id) => Boolean(all[id].value ?? all[id].innerText.trim())"
_LISTED = """(all, selector) => { const one = document.querySelector(selector); if (!one) return null;
  return [all.indexOf(one), one.getBoundingClientRect().y > 0]; }"""


class BrowserExpert:
    """Plays one episode of an environment: ``next`` gives the actions of the next turn, looking at the live page."""

    def __init__(self, env: BrowserEnv, task: Task) -> None:
        """Raises DataError for a task without a scripted solution."""
        self._env, self._task, self._scrolls = env, task, 0
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
            return (finish(DONE),)
        kind, *words = self._steps[0]
        if kind in ("click", "type", "select"):
            place = self._place(words[0], views - 1) if self._env.config.screenshot else self._element(words[0])
            if isinstance(place, Action):
                self._scrolls += 1
                if self._scrolls > _MOST_SCROLLS:
                    raise EnvError(f"task {self._task.id}: {words[0]} cannot be scrolled into sight; set a larger size")
                return (place,)
            self._scrolls = 0
            self._steps.pop(0)
            if isinstance(place, str):
                return (_by_id(kind, place, words[1:], kind == "type" and self._filled(place)),)
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

    def _element(self, selector: str) -> str | Action:
        """The id of an element in the words that are shown, or the scroll that brings it among them."""
        session = self._env.session
        assert session.listed is not None
        found = self._env.pool.run(session.listed.evaluate(_LISTED, selector), 5.0)
        if found is None:
            raise EnvError(f"task {self._task.id}: there is no {selector} on the page")
        index, below = found
        return str(index) if index >= 0 else act("scroll", dy=1 if below else -1, unit="page")

    def _filled(self, element: str) -> bool:
        """Whether something stands in a listed field."""
        listed = self._env.session.listed
        assert listed is not None
        return bool(self._env.pool.run(listed.evaluate(_FILLED, int(element)), 5.0))

    def _shown(self, point: Sequence[float], view: int) -> list[float]:
        """CSS pixels as pixels of a view."""
        scale = self._env.config.scale
        return on_view(self._env.shown_view(view), point[0] * scale, point[1] * scale)

    def _action(self, step: Sequence[Any], view: int) -> Action:
        """A step in words: click x y, drag x y x y, type text, key name+name, scroll x y dy, finish text status."""
        kind, *words = step
        if kind == "click":
            return act("click", view, point=self._shown(words[:2], view), **(words[2] if len(words) > 2 else {}))
        if kind == "drag":
            return act("drag", view, path=[self._shown(words[:2], view), self._shown(words[2:4], view)])
        if kind == "scroll":
            return act("scroll", view, point=self._shown(words[:2], view), dy=words[2], unit="px")
        return plain_step(self._task, step)


def _by_id(kind: str, element: str, words: Sequence[str], filled: bool) -> Action:
    """One action on an element that is named in words; what is typed takes the place of what stands there."""
    if kind == "click":
        return act("click", element=element)
    if kind == "type":
        return act("type", element=element, text=words[0], clear=filled)
    return act("select_option", element=element, option=words[0])


def _on_element(kind: str, point: list[float], words: Sequence[str], view: int) -> tuple[Action, ...]:
    if kind == "click":
        return (act("click", view, point=point),)
    if kind == "type":
        # In steps that every dialect can say.
        return act("click", view, point=point), act("key", keys=["ctrl", "a"]), act("type", text=words[0])
    # A list opens on a click, goes to what is typed, and closes on enter.
    return (act("click", view, point=point), act("type", text=words[0]), act("key", keys=["enter"]))
