"""Scripted solutions of desktop tasks: the next step as an action, places looked up in the windows as they are."""

from __future__ import annotations

import re

from mmturn.envs.gui.desktop.env import DesktopEnv
from mmturn.envs.gui.desktop.windows import Window
from mmturn.envs.gui.solutions import DONE, on_view, plain_step
from mmturn.errors import DataError, EnvError
from mmturn.gui_actions import act, finish
from mmturn.tasks.gui.desktop import read_desktop_task
from mmturn.types import Action, Task

_WAIT_S, _MOST_WAITS = 0.2, 50
_PLACE = re.compile(r"(?:(-?[\d.]+)%)?([+-]?[\d.]+)?")
SCREEN = "screen"
"""Stands for the whole screen where a step names a window."""


class DesktopExpert:
    """Plays one episode. Steps of a solution, beside those of every environment (``gui.solutions``):

    ``click window x y [clicks [button]]``, ``drag window x y window x y``, ``scroll window x y notches``, and
    ``await window``, which waits until it is there. A window is the newest whose title has the text, or whose class is
    it; places count from its upper left corner, above 0 into it, as pixels (``120``, ``-10``: its title bar), parts of
    it (``50%``) or both (``100%-20``).
    """

    def __init__(self, env: DesktopEnv, task: Task) -> None:
        """Raises DataError for a task without a scripted solution."""
        self._env, self._task, self._waits = env, task, 0
        self._steps = list(read_desktop_task(task).solution)
        if not self._steps:
            raise DataError(f"task {task.id}: meta.desktop.solution is missing")

    def next(self, views: int) -> tuple[Action, ...]:
        """Actions of the next turn; ``views``: how many views were shown so far. Raises EnvError when it is lost."""
        while self._steps and self._steps[0][0] == "await":
            if self._window(self._steps[0][1]) is None:
                self._waits += 1
                if self._waits > _MOST_WAITS:
                    raise EnvError(f"task {self._task.id}: there is no window {self._steps[0][1]}")
                return (act("wait", duration_s=_WAIT_S),)
            self._steps.pop(0)
        if not self._steps:
            return (finish(DONE),)
        return (self._action(self._steps.pop(0), views - 1),)

    def _action(self, step: tuple[str, ...], view: int) -> Action:
        kind, *words = step
        if kind == "click":
            clicks, button = int(words[3]) if len(words) > 3 else 1, words[4] if len(words) > 4 else "left"
            return act("click", view, point=self._point(words[:3], view), clicks=clicks, button=button)
        if kind == "drag":
            return act("drag", view, path=[self._point(words[:3], view), self._point(words[3:6], view)])
        if kind == "scroll":
            return act("scroll", view, point=self._point(words[:3], view), dy=float(words[3]))
        return plain_step(self._task, step)

    def _point(self, words: list[str], view: int) -> list[float]:
        """A place of a window in pixels of the view."""
        name, x, y = words
        size = self._env.display.size
        window = self._window(name)
        if window is None and name != SCREEN:
            raise EnvError(f"task {self._task.id}: there is no window {name}")
        left, top, width, height = (
            (0, 0, size.width, size.height) if window is None else (window.x, window.y, window.width, window.height)
        )
        return on_view(self._env.shown_view(view), left + self._along(x, width), top + self._along(y, height))

    def _along(self, text: str, length: int) -> float:
        found = _PLACE.fullmatch(text)
        if found is None or not text:
            raise DataError(f"task {self._task.id}: a place must be like 120, 50% or 100%-20, got {text!r:.20}")
        return float(found[1] or 0) / 100 * length + float(found[2] or 0)

    def _window(self, name: str) -> Window | None:
        windows = [one for one in self._env.display.windows() if name == one.kind or name in one.title]
        return windows[-1] if windows and name != SCREEN else None
