"""Browser contexts, ready before they are asked for; a browser that dies is started anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmturn.envs.gui.browser.chromium import Chromium, launch
from mmturn.envs.gui.browser.loop import LoopThread
from mmturn.envs.gui.browser.session import Session
from mmturn.envs.gui.pools import Backoff, Pools
from mmturn.errors import EnvError
from mmturn.geometry import Size

log = logging.getLogger(__name__)
T = TypeVar("T")

_CLOSE_S = 3.0


@dataclass(frozen=True)
class PoolSettings:
    """What the sessions of a pool have in common."""

    size: Size
    """The viewport, in CSS pixels."""
    scale: float = 1.0
    """Screen pixels per CSS pixel."""
    prewarmed: int = 2
    """Fresh sessions that wait to be handed out."""
    kept: int = 8
    """Used sessions that wait to be used again, for pages that allow it."""
    launch_timeout_s: float = 30.0
    """Seconds that a browser may take to start."""
    scratch_in: Path | None = None
    """Folder for the browser's temporary files; None: the temporary folder."""


class Pool:
    """One browser and its sessions. Called from any thread.

    A session belongs to whoever it was handed to until it is given back. Fresh ones were never used before; with a
    ``key`` one is handed out that was used, for pages that keep nothing (see ``miniwob``).
    """

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.loop = LoopThread("mmturn-browser")
        self.launches = 0
        """How often a browser was started."""
        self._chromium: Chromium | None = None
        self._fresh: list[Session] = []
        self._used: list[Session] = []
        self._starting: asyncio.Lock | None = None
        self._refilling: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        self._closed = False

    def fresh(self, timeout_s: float) -> Session:
        """A session that nobody used. Raises EnvError."""
        return self.run(self._take_fresh(), timeout_s)

    def used(self, key: str, timeout_s: float) -> Session:
        """A session that may have been used, best for the same ``key``. Raises EnvError."""
        return self.run(self._take_used(key), timeout_s)

    def give_back(self, session: Session, again: bool = False) -> None:
        """The session is free. ``again``: it may be used again as it is; else it is closed."""
        if not self._closed:
            self.loop.start(self._retire(session, again))

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine on the browser's loop. Raises EnvError for a browser that fails or is too slow, ToolError as
        it comes."""
        from playwright.async_api import Error

        try:
            return self.loop.run(work, timeout_s)
        except TimeoutError as error:
            raise EnvError(f"the browser gave no answer within {timeout_s:g} s") from error
        except Error as error:
            raise EnvError(f"the browser failed: {error.message.splitlines()[0]:.300}") from error
        except OSError as error:
            raise EnvError(f"the browser failed: {error}") from error

    @property
    def scratch(self) -> Path:
        """Folder of the browser's temporary files. Raises EnvError while there is no browser."""
        if self._chromium is None:
            raise EnvError("no browser is running")
        return self._chromium.scratch.path

    def close(self) -> None:
        """End the browser. What is handed out is lost."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TimeoutError):
            self.loop.run(self._end(), 20.0)
        self.loop.close()

    async def _take_fresh(self) -> Session:
        while self._fresh:
            session = self._fresh.pop(0)
            if self._lives(session):
                self._refill()
                return session
        session = await self._open()
        self._refill()
        return session

    async def _take_used(self, key: str) -> Session:
        self._used = [session for session in self._used if self._lives(session)]
        same = [session for session in self._used if session.key == key]
        if same or self._used:
            session = (same or self._used)[-1 if same else 0]
            self._used.remove(session)
            return session
        return await self._take_fresh()

    def _lives(self, session: Session) -> bool:
        browser = session.context.browser
        return browser is not None and browser.is_connected() and session.fault is None and bool(session.tabs)

    async def _open(self) -> Session:
        from playwright.async_api import Error

        chromium = await self._running()
        try:
            return await Session.open(chromium.browser, self.settings.size, self.settings.scale)
        except Error as error:  # that it is gone may not be known yet
            await self._end_of(chromium, f"it opens no session: {error.message.splitlines()[0]:.200}")
        chromium = await self._running()
        return await Session.open(chromium.browser, self.settings.size, self.settings.scale)

    async def _end_of(self, chromium: Chromium, why: str) -> None:
        """A browser that does not work any more is ended, and with it all of its sessions."""
        if chromium is self._chromium and not self._closed:
            log.warning("the browser is ended: %s", why)
            self._chromium, self._fresh, self._used = None, [], []
            await chromium.close()

    async def _running(self) -> Chromium:
        """The browser, started if there is none; after a failure not before a while, longer each time."""
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._chromium is not None and not self._chromium.alive:
                log.warning("the browser is gone; another is started")
                gone, self._chromium = self._chromium, None
                self._fresh, self._used = [], []
                await gone.close()
            if self._chromium is None:
                await asyncio.sleep(self._backoff.wait_s)
                try:
                    self._chromium = await launch(self.settings.launch_timeout_s, self.settings.scratch_in)
                except Exception:
                    self._backoff.failed()
                    raise
                self.launches += 1
                self._backoff.succeeded()
            return self._chromium

    def _refill(self) -> None:
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.ensure_future(self._fill())

    async def _fill(self) -> None:
        try:
            while len(self._fresh) < self.settings.prewarmed and not self._closed:
                self._fresh.append(await self._open())
        except Exception as error:  # whoever needs a session meets it again, and is told
            log.warning("no session could be prepared: %s", error)

    async def _retire(self, session: Session, again: bool) -> None:
        if again and self._lives(session) and len(session.tabs) == 1 and len(self._used) < self.settings.kept:
            self._used.append(session)
            return
        try:
            await asyncio.wait_for(session.close(), _CLOSE_S)
        except Exception as error:
            # Even a page whose script never ends can be closed: it is the browser that does not answer any more.
            chromium = self._chromium
            if chromium is not None and session.context.browser is chromium.browser:
                words = str(error).splitlines()[:1] or [type(error).__name__]
                await self._end_of(chromium, f"a session could not be closed: {words[0]}")

    async def _end(self) -> None:
        if self._refilling is not None:
            self._refilling.cancel()
        if self._chromium is not None:
            await self._chromium.close()
            self._chromium = None


_POOLS: Pools[PoolSettings, Pool] = Pools(Pool)
pool_of = _POOLS.of
"""The pool of this process with some settings; ended with the process."""
close_pools = _POOLS.close
"""End every browser of this process."""
