"""The environment ``desktop``: applications on a screen, acted on with the canonical GUI actions."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmturn.envs.gui.desktop.applications import SHIPPED, Application, Running, launch
from mmturn.envs.gui.desktop.display import Display
from mmturn.envs.gui.desktop.pool import DesktopPool, DesktopSettings, desktops_of
from mmturn.envs.gui.desktop.state import state_of
from mmturn.envs.gui.needs import missing_for_desktop
from mmturn.envs.gui.turns import Tally, Todo, check_settings, limit_s, todo_of
from mmturn.errors import ConfigError, DataError, EnvError, ToolError
from mmturn.geometry import Size
from mmturn.grading import match
from mmturn.gui_actions import DESKTOP, VOCABULARY
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.media.views import fit
from mmturn.tasks.gui.checks import final_score, needs_words
from mmturn.tasks.gui.desktop import DesktopTask, read_desktop_task
from mmturn.types import Action, Observation, PixelBudget, Task, ToolSpec, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

_START_S = 20.0
_QUIET_S, _MOST_QUIET_S = 0.15, 2.0
"""The first screenshot is taken when the screen has been still for so long, or after so long."""
_TYPED_S = 0.002
"""What an application may take longer for each character that is typed."""
_LEAST_FREE = 1 << 16
_MOST_WINDOWS = 20


@dataclass(frozen=True)
class DesktopConfig:
    """Settings of the desktop environment."""

    size: tuple[int, int] = (1280, 720)
    """Width and height of the screen in pixels."""
    budget: tuple[int, int] = (3_136, 1_003_520)
    """Least and most pixels of a screenshot as shown."""
    actions: tuple[str, ...] = tuple(spec.name for spec in DESKTOP)
    """Actions that the policy may use."""
    network: bool = False
    """Whether applications have a network; where it may not be taken away they always do (a warning says so)."""
    prewarmed: int = 2
    """Displays that wait to be used."""
    settle_s: float = 0.05
    """Longest wait for the screen to become still between the last action of a turn and its screenshot."""
    wait_s: float = 1.0
    """What the action ``wait`` means where it names no time."""
    max_wait_s: float = 10.0
    """Longest that one action may wait or hold; a longer time is cut."""
    step_timeout_s: float = 30.0
    """Seconds after which a turn's actions are given up and the episode is recorded as failed."""

    def __post_init__(self) -> None:
        check_settings(self, DESKTOP)


class DesktopEnv:
    """Shows a desktop, carries out canonical GUI actions, and ends when the task's checks or the policy say so.

    The task's ``meta.desktop`` says what runs and what is checked (``tasks.gui.desktop``). Facts of a step: ``score``,
    0 or 1 as things stand; ``done``, whether the checks ended it; ``actions``, their names; ``points``, where, in
    pixels of the screen; ``outside``, how many of them had to be moved into it; ``windows``, their titles; ``checks``
    one by one; ``status``, how the policy said that it ended.
    """

    Config = DesktopConfig
    own_applications: Mapping[str, Application] = {}
    """Applications of a subclass by name, beside the shipped ones; subclasses set it (see docs/gui-desktop.md)."""

    def __init__(self, config: DesktopConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        if tools:
            raise ConfigError("the desktop has the canonical GUI actions and no other tools: set tools: []")
        self.config, self.store, self.size_rule = config, store, size_rule
        self.tools: tuple[ToolSpec, ...] = tuple(VOCABULARY[name] for name in config.actions)
        self.applications: Mapping[str, Application] = {**SHIPPED, **self.own_applications}
        self.settings = DesktopSettings(Size(*config.size), config.prewarmed, config.network)
        self._display: Display | None = None
        self._release: weakref.finalize | None = None  # type: ignore[type-arg]
        self._running: list[Running] = []
        self._task: tuple[Task, DesktopTask] | None = None
        self._views: list[View] = []

    @property
    def pool(self) -> DesktopPool:
        """Where its displays come from: one pool for all environments of this process with these settings."""
        return desktops_of(self.settings)

    @property
    def display(self) -> Display:
        """The display of the episode under way. Raises EnvError where there is none."""
        if self._display is None:
            raise EnvError("step before reset")
        return self._display

    def lacks(self) -> str:
        """What the machine has not got for it."""
        return missing_for_desktop()

    def reset(self, task: Task, seed: int) -> Observation:
        """Put the task's files in place and start its applications. Raises EnvError that names the task."""
        self.close()
        try:
            wanted = read_desktop_task(task)
            unknown = [name for name, *_ in wanted.applications if name not in self.applications]
            if unknown:
                known = ", ".join(self.applications)
                raise EnvError(f"meta.desktop.applications: there is no {unknown[0]!r:.40}; there are {known}")
            pool = self.pool
            display = pool.fresh(self.settings.launch_timeout_s)
            self._display, self._release = display, weakref.finalize(self, pool.give_back, display)
            with self._watched(self.config.step_timeout_s + _START_S):
                self._begin(display, wanted)
                shown = self._shown(display)
        except (EnvError, DataError) as error:
            self.close()
            words = str(error)
            raise EnvError(words if words.startswith("task ") else f"task {task.id}: {words}") from error
        self._task = (task, wanted)
        return shown

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out a turn's actions in order; none when one of them is wrong in itself.

        Raises ToolError for an action that cannot be carried out, EnvError when the display or an application failed.
        One that fails behind others that were carried out is told with the next screenshot.
        """
        display = self.display
        todo = todo_of(actions, self.config, self._views)
        typed = sum(len(str(one.arguments.get("text", ""))) for one in todo)
        try:
            with self._watched(limit_s(todo, self.config) + typed * 10 * _TYPED_S):
                return self._carried_out(display, todo, self.config.settle_s + typed * _TYPED_S)
        except ToolError:
            raise
        except Exception:
            self.close()
            raise

    def note_shown(self, views: Sequence[View]) -> None:
        """Views that were shown again with an error; ``Action.view`` counts them too."""
        self._views.extend(views)

    def shown_view(self, index: int) -> View:
        """A view of the episode, as ``Action.view`` counts them."""
        return self._views[index]

    def close(self) -> None:
        """End the display, and forget the episode."""
        if self._release is not None:
            self._release()
        self._display, self._release, self._task = None, None, None
        self._running, self._views = [], []

    def _begin(self, display: Display, wanted: DesktopTask) -> None:
        try:
            for path, text in wanted.files.items():
                _put(display, path, text)
        except OSError as error:
            raise EnvError(f"the task's files cannot be written: {error}") from error
        if wanted.clipboard is not None:
            display.set_clipboard(wanted.clipboard)
        for name, *opened in wanted.applications:
            running = launch(display, name, self.applications[name], tuple(opened), _START_S)
            self._running.append(running)
        display.settle(_MOST_QUIET_S, _QUIET_S)
        self._check(display)

    def _carried_out(self, display: Display, todo: Sequence[Todo], settle_s: float) -> Step:
        assert self._task is not None
        task, wanted = self._task
        tally, refused = Tally(), ""
        ended: Todo | None = None
        for index, one in enumerate(todo):
            if one.name == "finish":
                tally.note(one.name, one.points, one.outside)
                ended = one
                break
            try:
                display.carry_out(one.name, one.arguments, self.config.wait_s)
            except ToolError as error:
                if index == 0:
                    raise
                refused = f"Error: {error}"
                break
            tally.note(one.name, one.points, one.outside)
        if len(todo) > 1 or ended is None:
            display.settle(settle_s)
        self._check(display)
        shown = None if ended is not None else self._shown(display, refused)
        windows = display.windows()
        state = state_of(display, windows, wanted.checks) if wanted.checks else None
        held = [check.holds(state) for check in wanted.checks]
        met = bool(held) and all(held) and not needs_words(wanted)
        facts = tally.facts
        facts.update(checks=held, score=float(met), done=met and wanted.ends_when_met)
        facts["windows"] = [window.title[:200] for window in windows[:_MOST_WINDOWS]]
        if ended is None:
            return Step(None if facts["done"] else shown, facts["done"], facts)
        answer, status = str(ended.arguments.get("text", "")), ended.arguments["status"]
        answered = wanted.answer is not None and match(answer, task)
        facts.update(status=status, done=True, score=final_score(wanted, held, status, answered))
        return Step(None, True, facts, answer=answer)

    def _check(self, display: Display) -> None:
        """Raises EnvError for a display or an application that is gone, or a disk that is full."""
        if not display.alive:
            raise EnvError("the display is gone: its X server or its window manager has ended")
        for running in self._running:
            running.check()
        room = os.statvfs(display.scratch.path)
        if room.f_bavail * room.f_frsize < _LEAST_FREE:
            raise EnvError(f"the disk of {display.scratch.path} is full")

    def _shown(self, display: Display, words: str = "") -> Observation:
        """The screen as a view, with words behind it."""
        shot = self.store.put_image(display.screenshot())
        view = fit(shot, self.size_rule, PixelBudget(*self.config.budget))
        self._views.append(view)
        return Observation((view, words) if words else (view,))

    @contextlib.contextmanager
    def _watched(self, limit_s: float) -> Iterator[None]:
        """Whatever takes longer loses its display, and with it ends."""
        display, late = self.display, threading.Event()

        def give_up() -> None:
            late.set()
            display.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except EnvError as error:
            if late.is_set():
                raise EnvError(f"the desktop gave no answer within {limit_s:g} s") from error
            raise
        finally:
            timer.cancel()
        if late.is_set():
            raise EnvError(f"the desktop gave no answer within {limit_s:g} s")


def _put(display: Display, path: str, text: str | None) -> None:
    """A file (or a folder) of the applications' user."""
    place = display.home / path
    folders = [folder for folder in (place, *place.parents) if display.home in folder.parents]
    for folder in reversed(folders if text is None else folders[1:]):
        if not folder.is_dir():
            folder.mkdir()
            display.own(folder)
    if text is not None:
        place.write_text(text, encoding="utf-8", newline="")
        display.own(place)
