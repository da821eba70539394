"""The environment ``browser``: a page seen as a screenshot, acted on with the canonical GUI actions."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mmturn.envs.gui.browser.acting import carry_out
from mmturn.envs.gui.browser.elements import accessibility_text, elements_text
from mmturn.envs.gui.browser.pool import Pool, PoolSettings, pool_of
from mmturn.envs.gui.browser.session import Session
from mmturn.envs.gui.browser.sites import Site
from mmturn.envs.gui.browser.worlds import Outcome, World, seed_of_task, world_of
from mmturn.envs.gui.needs import missing_for_browser
from mmturn.envs.gui.sites import shipped_sites
from mmturn.envs.gui.turns import Tally, Todo, check_settings, limit_s, todo_of
from mmturn.errors import ConfigError, EnvError, ToolError
from mmturn.geometry import Size
from mmturn.gui_actions import BROWSER, VOCABULARY
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.media.views import fit
from mmturn.types import Action, Observation, PixelBudget, Task, ToolSpec, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

_MOST_NOTES = 10
_LAUNCH_S = 30.0


@dataclass(frozen=True)
class BrowserConfig:
    """Settings of the browser environment."""

    size: tuple[int, int] = (1280, 720)
    """Width and height of the page in CSS pixels; MiniWoB++'s tasks have their own."""
    scale: float = 1.0
    """Pixels of the screenshot per CSS pixel."""
    budget: tuple[int, int] = (3_136, 1_003_520)
    """Least and most pixels of a screenshot as shown."""
    text: Literal["none", "elements", "dom", "accessibility"] = "none"
    """Words beside the screenshot: the elements with their ids, which actions may then name; with ``dom`` what is
    written between them too; the accessibility tree."""
    screenshot: bool = True
    """Show the page as a picture; False: in words alone, which ``text`` then has to name."""
    say_goal: bool = True
    """Say in words what a MiniWoB++ page asks for, beside its picture."""
    actions: tuple[str, ...] = tuple(spec.name for spec in BROWSER)
    """Actions that the policy may use."""
    prewarmed: int = 2
    """Browser contexts that wait to be used."""
    settle_s: float = 0.0
    """Seconds between the last action of a turn and its screenshot."""
    wait_s: float = 1.0
    """What the action ``wait`` means where it names no time."""
    max_wait_s: float = 10.0
    """Longest that one action may wait or hold; a longer time is cut."""
    step_timeout_s: float = 30.0
    """Seconds after which a turn's actions are given up and the episode is recorded as failed."""

    def __post_init__(self) -> None:
        if not 0.25 <= self.scale <= 4:
            raise ConfigError(f"scale must be from 0.25 to 4, got {self.scale}")
        check_settings(self, BROWSER)
        if not self.screenshot and self.text == "none":
            raise ConfigError(
                "text must be elements, dom or accessibility where screenshot is false: else nothing is shown"
            )


@dataclass
class _Held:
    """What an environment holds of a pool, so that it is given back even when the environment is just forgotten."""

    pool: Pool
    session: Session | None = None
    again: bool = False

    def give_back(self) -> None:
        """The session is free; ``again`` says whether another episode may use it."""
        session, self.session = self.session, None
        if session is not None:
            self.pool.give_back(session, self.again)


class BrowserEnv:
    """Shows a page, carries out canonical GUI actions, and ends when the page or the policy says so.

    The task's ``meta.browser`` names a MiniWoB++ task or a site (``tasks.gui``). Facts of a step: ``score``, what the
    world gives as things stand (MiniWoB++'s raw reward, a site's 0 or 1); ``done``, whether the world ended it;
    ``actions``, their names; ``points``, where, in pixels of the screenshot; ``outside``, how many of them had to be
    moved into the screen; ``url``; ``checks``, of a site's task one by one; ``dialogs``, what alerts said; ``blocked``,
    addresses that were asked for in vain; ``status``, how the policy said that it ended; ``reason``, MiniWoB++'s.
    """

    Config = BrowserConfig
    own_sites: Mapping[str, Site] = {}
    """Sites of a subclass by name, beside the shipped ones; subclasses set it (see docs/gui-browser.md)."""

    def __init__(self, config: BrowserConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        if tools:
            raise ConfigError("the browser has the canonical GUI actions and no other tools: set tools: []")
        self.config, self.store, self.size_rule = config, store, size_rule
        self.tools: tuple[ToolSpec, ...] = tuple(VOCABULARY[name] for name in config.actions)
        self.sites: Mapping[str, Site] = {**shipped_sites(), **self.own_sites}
        self._settings = PoolSettings(Size(*config.size), config.scale, config.prewarmed, launch_timeout_s=_LAUNCH_S)
        self._held: _Held | None = None
        self._world: World | None = None
        self._views: list[View] = []

    @property
    def pool(self) -> Pool:
        """Where its sessions come from: one browser for all environments of this process with these settings."""
        return pool_of(self._settings)

    @property
    def session(self) -> Session:
        """The page of the episode under way. Raises EnvError where there is none."""
        if self._held is None or self._held.session is None:
            raise EnvError("step before reset")
        return self._held.session

    def lacks(self) -> str:
        """What the machine has not got for it."""
        return missing_for_browser()

    def reset(self, task: Task, seed: int) -> Observation:
        """Open the task's first page. Raises EnvError that names the task."""
        self.close()
        world = world_of(task, self.sites)
        pool, limit = self.pool, self.config.step_timeout_s
        # A prepared session may be of a browser that has died since; a second one is of a new browser.
        for attempt in (1, 2):
            session = pool.used(world.reuse, limit) if world.reuse else pool.fresh(max(limit, _LAUNCH_S))
            self._hold(pool, session)
            try:
                said, shot, words = pool.run(self._begin(world, session, seed_of_task(task, seed)), limit)
                break
            except EnvError as error:
                gone = not session.tabs or session.context.browser is None or not session.context.browser.is_connected()
                self._drop()
                if attempt == 2 or not gone:
                    raise EnvError(f"task {task.id}: {error}") from error
        self._world = world
        self._held.again = world.reuse is not None  # type: ignore[union-attr]
        goal = said if self.config.say_goal else ""
        return self._shown(shot, "\n".join(filter(None, (goal, words))))

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out a turn's actions in order; none when one of them is wrong in itself.

        Raises ToolError for an action that cannot be carried out, EnvError when the browser or the site failed. One
        that fails behind others that were carried out is told with the next screenshot.
        """
        session, world = self.session, self._world
        assert world is not None
        todo = todo_of(actions, self.config, self._views, self.config.scale)
        try:
            step, shot, words = self.pool.run(self._carried_out(session, world, todo), limit_s(todo, self.config))
        except ToolError:
            raise
        except Exception:
            self._drop()
            raise
        if shot is None:
            return step
        return Step(self._shown(shot, words), terminated=False, facts=step.facts)

    def note_shown(self, views: Sequence[View]) -> None:
        """Views that were shown again with an error; ``Action.view`` counts them too."""
        self._views.extend(views)

    def shown_view(self, index: int) -> View:
        """A view of the episode, as ``Action.view`` counts them."""
        return self._views[index]

    def close(self) -> None:
        """Give the page back, and forget the episode."""
        if self._held is not None:
            self._held.give_back()
        self._held, self._world, self._views = None, None, []

    def _hold(self, pool: Pool, session: Session) -> None:
        self._held = _Held(pool, session)
        weakref.finalize(self, self._held.give_back)

    def _drop(self) -> None:
        """The page is lost: nobody uses it again."""
        if self._held is not None:
            self._held.again = False
        self.close()

    async def _begin(self, world: World, session: Session, seed: int) -> tuple[str, bytes, str]:
        session.forget()
        await session.let_go()
        size = world.size or Size(*self.config.size)
        if size != session.size:
            await session.page.set_viewport_size({"width": size.width, "height": size.height})
            session.size = size
        said = await world.begin(session, seed)
        return said, await self._shot(session), await self._words(session)

    async def _carried_out(
        self, session: Session, world: World, todo: Sequence[Todo]
    ) -> tuple[Step, bytes | None, str]:
        """The outcome, and the screenshot with its words unless the episode is over."""
        tally, refused = Tally(), ""
        session.dialogs.clear()
        blocked = len(session.blocked)
        outcome = Outcome(0.0, False)
        for index, (name, arguments, points, outside) in enumerate(todo):
            if name == "finish":
                outcome = await world.end(session, str(arguments.get("text", "")), arguments["status"])
                tally.note(name, points, outside)
                tally.facts["status"] = arguments["status"]
                await self._tell(session, tally, outcome, blocked)
                answer = str(arguments.get("text", ""))
                return Step(None, True, tally.facts, answer=answer), None, ""
            try:
                await carry_out(session, name, arguments, self.config.wait_s)
            except ToolError as error:
                if index == 0:
                    raise
                refused = f"Error: {error}"
                break
            tally.note(name, points, outside)
            outcome = await world.look(session)
            if outcome.done:
                await self._tell(session, tally, outcome, blocked)
                return Step(None, True, tally.facts), None, ""
        await asyncio.sleep(self.config.settle_s)
        shot = await self._shot(session)
        outcome = await world.look(session)
        await self._tell(session, tally, outcome, blocked)
        if outcome.done:
            return Step(None, True, tally.facts), None, ""
        said = [refused, *session.dialogs[:_MOST_NOTES], await self._words(session)]
        return Step(None, False, tally.facts), shot, "\n".join(filter(None, said))

    async def _tell(self, session: Session, tally: Tally, outcome: Outcome, blocked: int) -> None:
        """The facts of a turn."""
        facts = tally.facts
        facts.update({"score": outcome.score, "done": outcome.done, **outcome.facts})
        facts["url"] = session.page.url[:500]
        if session.dialogs:
            facts["dialogs"] = session.dialogs[:_MOST_NOTES]
        if session.blocked[blocked:]:
            facts["blocked"] = session.blocked[blocked:][:_MOST_NOTES]

    async def _shot(self, session: Session) -> bytes:
        """The screenshot; nothing, for a page that has loaded, where none is shown."""
        if self.config.screenshot:
            return await session.screenshot()
        await session.loaded()
        return b""

    async def _words(self, session: Session) -> str:
        """The page in words, its last line closed, since a task's words may follow it."""
        if self.config.text == "none":
            return ""
        if self.config.text == "accessibility":
            words = await accessibility_text(session)
        else:
            words = await elements_text(session, between=self.config.text == "dom")
        return f"{words}\n" if words else ""

    def _shown(self, shot: bytes, words: str) -> Observation:
        """A screenshot as a view, with words behind it; or words alone."""
        if not self.config.screenshot:
            return Observation((words or "The page shows nothing that could be acted on.\n",))
        view = fit(self.store.put_bytes(shot, "the screenshot"), self.size_rule, PixelBudget(*self.config.budget))
        self._views.append(view)
        return Observation((view, words) if words else (view,))
