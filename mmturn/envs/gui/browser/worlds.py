"""What the pages of an episode are and how it is scored: MiniWoB++'s tasks, and tasks on sites."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mmturn.envs.gui.browser.session import Session
from mmturn.envs.gui.browser.sites import Site, Sites, StaticSite, origin
from mmturn.errors import DataError, EnvError
from mmturn.geometry import Size
from mmturn.grading import match
from mmturn.tasks.gui.checks import final_score, needs_words
from mmturn.tasks.gui.miniwob import FLIGHTS, folder, names, page_of, size_of
from mmturn.tasks.gui.web import WebTask, read_web_task
from mmturn.types import Json, Task

log = logging.getLogger(__name__)

STORAGE_FREE = "miniwob"
"""Sessions with this key show pages that keep nothing, so that they are used again."""
_STATE_S = 10_000

_BEGIN = """([seed, page]) => {
  if (typeof core === 'undefined' || location.href.split('#')[0] !== page) return false;
  window.mmturnBegun = true;
  core.EPISODE_MAX_TIME = 1e9;
  if (core.EP_TIMER !== null) core.endEpisode(0);
  document.activeElement?.blur();
  Math.seedrandom(seed);
  core.startEpisodeReal();
  // Beside the task, out of sight: nothing may scroll it into view.
  core.hideDisplay();
  window.scrollTo(0, 0);
  return true;
}"""
"""Begins an episode on the page that is loaded; false where that is another one."""
_SAYS = "() => { const said = core.getUtterance(); return String(said?.utterance ?? said ?? ''); }"
_READY = "() => WOB_TASK_READY"
_LOOK = """() => window.mmturnBegun === undefined ? [false, 0, ''] :
  [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL, WOB_REWARD_REASON]"""
"""Whoever has gone to another page, or loaded this one anew, can do the task no more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode stands."""

    score: float
    """As the world counts it: MiniWoB++'s raw reward in [-1, 1], a site's task 0 or 1."""
    done: bool
    facts: Mapping[str, Json] = field(default_factory=dict)


class World(Protocol):
    """The pages of one kind of task. Coroutines run on the browser's loop."""

    @property
    def reuse(self) -> str | None:
        """Key of a session that may be used again; None: it must be a fresh one."""
        ...

    @property
    def size(self) -> Size | None:
        """Viewport; None: the environment's."""
        ...

    async def begin(self, session: Session, seed: int) -> str:
        """Show the first page; words for the first observation, empty for none. Raises EnvError."""
        ...

    async def look(self, session: Session) -> Outcome:
        """How it stands after an action."""
        ...

    async def end(self, session: Session, answer: str, status: str) -> Outcome:
        """How it stands when the policy says that it is over."""
        ...


class MiniwobWorld:
    """A task of MiniWoB++. Its reward is the raw one: the time that is taken off the other depends on the machine."""

    def __init__(self, name: str, site: Site) -> None:
        self.name, self._site = name, site

    @property
    def reuse(self) -> str | None:
        """The pages keep nothing, those of airlines excepted."""
        return None if self.name in FLIGHTS else f"{STORAGE_FREE}/{self.name}"

    @property
    def size(self) -> Size:
        """The task's part of the page."""
        return size_of(self.name)

    async def begin(self, session: Session, seed: int) -> str:
        """Seed the page, which is loaded first unless it is there already; the goal that it states."""
        await session.page.mouse.move(0, 0)
        # A number, as the package seeds it: the text "0" would give another instance.
        page = origin(self._site) + page_of(self.name)
        arguments = [seed % 2**31, page]
        same = session.key is not None and session.key == self.reuse and self.name not in RELOADED
        # The policy before may have left the page.
        if not (same and await session.evaluate(_BEGIN, arguments)):
            session.key = None
            session.sites = Sites([self._site])
            await session.goto(page)
            session.key = self.reuse
            if not await session.evaluate(_BEGIN, arguments):
                raise EnvError(f"{page} is no page of MiniWoB++")
        if not await session.evaluate(_READY):
            await session.page.wait_for_function(_READY, timeout=_STATE_S)
        said: str = await session.evaluate(_SAYS)
        return said

    async def look(self, session: Session) -> Outcome:
        """The page's own verdict."""
        done, reward, reason = await session.evaluate(_LOOK)
        facts = {"reason": reason} if isinstance(reason, str) and reason else {}
        return Outcome(float(reward) if done else 0.0, bool(done), facts)

    async def end(self, session: Session, answer: str, status: str) -> Outcome:
        """Whoever ends an episode that the page has not ended has not done the task."""
        found = await self.look(session)
        return Outcome(found.score, True, found.facts)


RELOADED = frozenset({
    "choose-date", "choose-date-easy", "choose-date-medium", "choose-date-nodelay", "book-flight",
    "book-flight-nodelay", "drag-cube", "search-engine", "phone-book", "social-media", "social-media-all",
    "social-media-some", "order-food", "scroll-text", "scroll-text-2", "stock-market", "terminal",
})  # fmt: skip
"""Tasks whose page remembers something of the instance before, so that it is loaded anew for each."""


class SiteWorld:
    """A task on a site: checks of the state, and of what the policy says at the end."""

    reuse = None
    size = None

    def __init__(self, task: Task, web: WebTask, site: Site, others: Sequence[Site]) -> None:
        self._task, self._web, self._site, self._others = task, web, site, others

    async def begin(self, session: Session, seed: int) -> str:
        """Show the start page. Sites may vary by the seed, which the first address says (``?seed=``)."""
        session.sites = Sites([self._site, *self._others])
        start = self._web.start
        path, mark, fragment = start.partition("#")
        joiner = "&" if "?" in path else "?"
        await session.goto(f"{origin(self._site)}{path}{joiner}seed={seed % 2**31}{mark}{fragment}")
        return ""

    async def look(self, session: Session) -> Outcome:
        """The checks, one by one; 1.0 when all hold and nothing has to be said."""
        held = await self._held(session)
        met = bool(held) and all(held) and not needs_words(self._web)
        return Outcome(float(met), met and self._web.ends_when_met, {"checks": held})

    async def end(self, session: Session, answer: str, status: str) -> Outcome:
        """The checks and the answer; giving up is right where the task is infeasible, and nowhere else."""
        held = await self._held(session)
        answered = self._web.answer is not None and match(answer, self._task)
        score = final_score(self._web, held, status, answered)
        return Outcome(score, True, {"checks": held})

    async def _held(self, session: Session) -> list[bool]:
        state = await self._state(session) if self._web.checks else None
        return [check.holds(state) for check in self._web.checks]

    async def _state(self, session: Session) -> Json:
        """Of the site's own tabs the newest that has one: a page that is not found, say, has none."""
        from playwright.async_api import Error

        for page in reversed([page for page in session.tabs if session.sites.at(page.url) is self._site]):
            try:
                state = await session.evaluate(self._site.state, page=page)
            except Error as error:
                await session.evaluate("() => 0", page=page)  # a browser that is gone is another matter
                log.warning("%s: the state of %s cannot be read: %s", self._task.id, page.url, error)
                continue
            if state is not None:
                return state
        return None


def world_of(task: Task, sites: Mapping[str, Site]) -> World:
    """The world that a task's ``meta.browser`` names. Raises EnvError that names the task and the key."""
    page = task.meta.get("browser")
    if isinstance(page, Mapping) and "miniwob" in page:
        name = page["miniwob"]
        if name not in names():
            raise EnvError(f"task {task.id}: meta.browser.miniwob: MiniWoB++ has no task {name!r:.60}")
        unknown = sorted(set(page) - {"miniwob", "seed"})
        if unknown:
            raise EnvError(f"task {task.id}: meta.browser has unknown keys {', '.join(unknown)}; known: miniwob, seed")
        seed = page.get("seed")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise EnvError(f"task {task.id}: meta.browser.seed must be a whole number, got {seed!r:.40}")
        return MiniwobWorld(name, StaticSite("miniwob", folder()))
    try:
        web = read_web_task(task)
    except DataError as error:
        raise EnvError(str(error)) from error
    if web.site not in sites:
        raise EnvError(f"task {task.id}: meta.browser.site: there is no site {web.site!r:.60}; there are {list(sites)}")
    others = [site for name, site in sites.items() if name != web.site]
    return SiteWorld(task, web, sites[web.site], others)


def seed_of_task(task: Task, seed: int) -> int:
    """The task's own seed where it states one, else the episode's."""
    page = task.meta.get("browser")
    own = page.get("seed") if isinstance(page, Mapping) else None
    return own if isinstance(own, int) and not isinstance(own, bool) else seed
