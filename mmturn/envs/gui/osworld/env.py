"""The environment ``osworld``: a task of OSWorld's on a guest, acted on with the canonical GUI actions."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from mmturn.envs.gui.desktop.pool import DesktopSettings
from mmturn.envs.gui.needs import missing_for_desktop
from mmturn.envs.gui.osworld.client import read_address
from mmturn.envs.gui.osworld.code import guest_code
from mmturn.envs.gui.osworld.evaluator import Verdict, judge
from mmturn.envs.gui.osworld.files import TaskFiles
from mmturn.envs.gui.osworld.guests import Lent, lend
from mmturn.envs.gui.osworld.needs import missing, missing_applications
from mmturn.envs.gui.osworld.setup import Place, run_steps
from mmturn.envs.gui.osworld.tree import tree_table
from mmturn.envs.gui.turns import Tally, Todo, check_settings, todo_of
from mmturn.errors import ConfigError, DataError, EnvError, NotRunnable, ToolError
from mmturn.geometry import Size
from mmturn.gui_actions import DESKTOP, VOCABULARY
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.media.views import fit
from mmturn.tasks.gui.osworld import OSWorldTask, read_osworld_task
from mmturn.types import Action, Json, Observation, PixelBudget, Task, ToolSpec, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

log = logging.getLogger(__name__)
_MOST_TERMINAL = 10_000


@dataclass(frozen=True)
class OSWorldConfig:
    """Settings of the OSWorld environment."""

    address: tuple[str, ...] = ()
    """Guests, one episode at a time each: host, host:port or host:port:chrome:vnc:vlc. Empty: X desktops of ours."""
    files: str = ""
    """Folder of the files that tasks would download, by address; empty: there are none."""
    reset_command: str = ""
    """A command of yours that puts a guest back before each episode; {host} and {port} stand for it. Empty: none."""
    network: bool = False
    """Whether guests reach the network; without, tasks that need it are not runnable."""
    password: str = "password"
    """Password of the guest's user, for set-up commands that name it."""
    size: tuple[int, int] = (1920, 1080)
    """Width and height of a desktop of ours in pixels; a guest by address has its own."""
    budget: tuple[int, int] = (3_136, 2_116_800)
    """Least and most pixels of a screenshot as shown."""
    observation: Literal["screenshot", "screenshot_a11y_tree"] = "screenshot"
    """What is shown: the screenshot, or with it the accessibility tree as a table."""
    terminal: bool = False
    """Show what the guest's terminal says too."""
    max_tree_chars: int = 20_000
    """Where the table of the accessibility tree is cut."""
    actions: tuple[str, ...] = tuple(spec.name for spec in DESKTOP)
    """Actions that the policy may use."""
    prewarmed: int = 1
    """Desktops of ours that wait to be used."""
    start_s: float = 0.0
    """Seconds between set-up and the first screenshot; OSWorld waits 60."""
    settle_s: float = 2.0
    """Seconds after each action."""
    wait_s: float = 2.0
    """What the action ``wait`` means where it names no time."""
    max_wait_s: float = 10.0
    """Longest that one action may wait or hold; a longer time is cut."""
    call_user_tolerance: int = 3
    """Calls of the user in an episode that are waits, as in UI-TARS's agent; the next says FAIL. -1: all are waits."""
    step_timeout_s: float = 120.0
    """Seconds after which a request to the guest is given up and the episode is recorded as failed."""
    ready_timeout_s: float = 300.0
    """Seconds that a guest may take to become free and to show its screen."""
    setup_tries: int = 5
    """How often a task's set-up is tried."""
    setup_pause_s: float = 5.0
    """Seconds between these."""

    def __post_init__(self) -> None:
        check_settings(self, DESKTOP)
        for address in self.address:
            read_address(address)
        if self.files and not Path(self.files).is_dir():
            raise ConfigError(f"files must be a folder, and there is no {self.files}")
        if self.call_user_tolerance < -1:
            raise ConfigError(f"call_user_tolerance must be -1 or more, got {self.call_user_tolerance}")
        for name in ("start_s", "setup_pause_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("ready_timeout_s", "setup_tries", "max_tree_chars"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass
class _Episode:
    """What an episode holds."""

    task: OSWorldTask
    place: Place
    lent: Lent
    files: TaskFiles
    calls_of_user: int = 0

    def end(self) -> None:
        """Give the guest back and remove the files."""
        self.lent.give_back()
        self.files.clear()


class OSWorldEnv:
    """Sets a guest up, shows its screen, acts on it by generated code, and judges it when the episode ends.

    The task's ``meta.osworld`` is a task's file. Facts of a step: ``actions``, their names; ``points``, where, in
    pixels of the screen; ``outside``, how many of them had to be moved into it; ``time``, when it was done, in seconds
    since 1970; and of the last one ``score``, ``checks`` (name and value of each metric that was computed), ``done``,
    and ``status``, how the policy said that it ended. At a limit ``conclude`` gives ``score`` and ``checks``. FAIL is
    the status ``infeasible``, or ``failure``: OSWorld has one word for both.

    A task that needs what is not there raises NotRunnable before anything is shown.
    """

    Config = OSWorldConfig

    def __init__(self, config: OSWorldConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        if tools:
            raise ConfigError("OSWorld has the canonical GUI actions and no other tools: set tools: []")
        self.config, self.store, self.size_rule = config, store, size_rule
        self.tools: tuple[ToolSpec, ...] = tuple(VOCABULARY[name] for name in config.actions)
        self.desktops = DesktopSettings(Size(*config.size), config.prewarmed, config.network)
        self._episode: _Episode | None = None
        self._release: weakref.finalize | None = None  # type: ignore[type-arg]
        self._views: list[View] = []

    @property
    def place(self) -> Place:
        """The guest of the episode under way. Raises EnvError where there is none."""
        if self._episode is None:
            raise EnvError("step before reset")
        return self._episode.place

    def lacks(self) -> str:
        """What the machine has not got for desktops of ours; guests by address need nothing of it."""
        return "" if self.config.address else missing_for_desktop()

    def reset(self, task: Task, seed: int) -> Observation:
        """Set a guest up. Raises EnvError that names the task, NotRunnable for what is not there."""
        self.close()
        try:
            wanted = read_osworld_task(task)
            folder = Path(self.config.files) if self.config.files else None
            files = TaskFiles(folder, wanted.id)
            lacking = missing(wanted, files, self.config.network)
            if lacking:
                raise NotRunnable("it needs " + "; ".join(lacking))
            return self._begin(wanted, files)
        except (EnvError, DataError) as error:
            self.close()
            words = str(error)
            kind = NotRunnable if isinstance(error, NotRunnable) else EnvError
            raise kind(words if words.startswith("task ") else f"task {task.id}: {words}") from error
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # a step's file may say anything
            self.close()
            raise EnvError(f"task {task.id}: a step or getter of its file is wrong: {error!r:.200}") from error

    def _begin(self, wanted: OSWorldTask, files: TaskFiles) -> Observation:
        config = self.config
        lent = lend(config.address, self.desktops, config.step_timeout_s, config.ready_timeout_s, config.reset_command)
        try:
            place = Place(lent.guest, files, _screen_of(lent.guest.screenshot()), config.password)
        except BaseException:
            lent.give_back()
            raise
        self._episode = _Episode(wanted, place, lent, files)
        self._release = weakref.finalize(self, self._episode.end)
        lacking = missing_applications(wanted, lent.guest, lent.own)
        if lacking:
            raise NotRunnable("it needs " + "; ".join(lacking))
        self._set_up(wanted, place)
        time.sleep(config.start_s)
        return self._shown()

    def _set_up(self, wanted: OSWorldTask, place: Place) -> None:
        for attempt in range(self.config.setup_tries):
            try:
                return run_steps(wanted.config, place)
            except NotRunnable:
                raise
            except EnvError as error:
                if attempt + 1 == self.config.setup_tries:
                    raise
                log.warning("set-up of %s: %s; it is tried again", wanted.id, error)
                time.sleep(self.config.setup_pause_s)
        return None

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out a turn's actions in order; none when one of them is wrong in itself.

        Raises ToolError for an action that cannot be carried out, EnvError when the guest failed.
        """
        place, tally = self.place, Tally()
        todo = todo_of(actions, self.config, self._views)
        codes = [self._code(one) for one in todo]
        tally.facts.pop("score")
        with self._losing():
            for one, code in zip(todo, codes, strict=True):
                if one.name == "finish" or self._given_up(one):
                    return self._finished(one, tally)
                if code:
                    ran = place.guest.execute(["python", "-c", code])
                    if ran.returncode:
                        # A desktop of ours refuses what it has no key for; a guest's pyautogui takes anything.
                        kind = ToolError if self._episode.lent.own else EnvError  # type: ignore[union-attr]
                        raise kind(f"the guest could not carry out {one.name}: {ran.error.strip()[-300:]}")
                tally.note(one.name, one.points, one.outside)
                time.sleep(self.config.settle_s)
            shown = self._shown()
        tally.facts["time"] = time.time()
        return Step(shown, False, tally.facts)

    def conclude(self) -> Mapping[str, Json]:
        """Judge an episode that a limit ended: ``score`` and ``checks``. Raises EnvError when the guest failed."""
        with self._losing():
            return _told(self._judged(said_fail=False))

    def note_shown(self, views: Sequence[View]) -> None:
        """Views that were shown again with an error; ``Action.view`` counts them too."""
        self._views.extend(views)

    def shown_view(self, index: int) -> View:
        """A view of the episode, as ``Action.view`` counts them."""
        return self._views[index]

    def close(self) -> None:
        """Give the guest back, and forget the episode."""
        if self._release is not None:
            self._release()
        self._episode, self._release, self._views = None, None, []

    def _code(self, one: Todo) -> str:
        """The guest's code of an action; empty where it does nothing there."""
        if one.name in ("finish", "screenshot"):
            return ""
        name, arguments = ("wait", {}) if one.name == "call_user" else (one.name, dict(one.arguments))
        if name == "wait" and arguments.get("duration_s") is None:
            arguments["duration_s"] = self.config.wait_s
        return guest_code([(name, arguments)], self.place.screen)

    def _given_up(self, one: Todo) -> bool:
        """Whether the user was called once too often, which is FAIL: nobody answers."""
        if one.name != "call_user" or self._episode is None:
            return False
        self._episode.calls_of_user += 1
        return 0 <= self.config.call_user_tolerance < self._episode.calls_of_user

    def _finished(self, one: Todo, tally: Tally) -> Step:
        tally.note(one.name, one.points, one.outside)
        status = one.arguments.get("status", "infeasible")
        verdict = self._judged(said_fail=status != "success")
        facts = {**tally.facts, **_told(verdict), "status": status, "done": True, "time": time.time()}
        return Step(None, True, facts, answer=str(one.arguments.get("text", "")))

    def _judged(self, said_fail: bool) -> Verdict:
        if self._episode is None:
            raise EnvError("the episode has no guest")
        verdict = judge(self._episode.task, said_fail, self._episode.place)
        self._episode.place.guest.screenshot()  # steps and getters of a guest that has died come to nothing
        return verdict

    def _shown(self) -> Observation:
        """The screen as a view, with the words that are asked for behind it."""
        guest = self.place.guest
        shot = self.store.put_bytes(guest.screenshot(), "the guest's screenshot")
        view = fit(shot, self.size_rule, PixelBudget(*self.config.budget))
        words = []
        if self.config.observation == "screenshot_a11y_tree":
            words.append(tree_table(guest.accessibility() or "<none/>", self.config.max_tree_chars))
        if self.config.terminal:
            words.append((guest.terminal() or "")[-_MOST_TERMINAL:])
        self._views.append(view)
        said = "\n".join(filter(None, words))
        return Observation((view, f"{said}\n") if said else (view,))

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """A guest that failed is given back at once."""
        try:
            yield
        except EnvError:
            self.close()
            raise


def _told(verdict: Verdict) -> dict[str, Json]:
    return {"score": verdict.score, "checks": [[name, value] for name, value in verdict.checks]}


def _screen_of(shot: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(shot)) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise EnvError(f"the guest's screenshot is no image: {error}") from error
