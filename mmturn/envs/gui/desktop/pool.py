"""Displays, ready before they are asked for."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from mmturn.envs.gui.desktop.display import Display
from mmturn.envs.gui.pools import Backoff, Pools
from mmturn.errors import EnvError
from mmturn.geometry import Size

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DesktopSettings:
    """What the displays of a pool have in common."""

    size: Size
    """The screen, in pixels."""
    prewarmed: int = 2
    """Displays that wait to be handed out."""
    network: bool = False
    """Whether applications have a network."""
    launch_timeout_s: float = 30.0
    """Seconds that a display may take to start."""
    scratch_in: Path | None = None
    """Folder for the displays' files; None: the temporary folder."""


class DesktopPool:
    """Displays that nobody used before; each is ended when it is given back. Called from any thread."""

    def __init__(self, settings: DesktopSettings) -> None:
        self.settings = settings
        self.launches = 0
        """How often a display was started."""
        self._lock = threading.Lock()
        self._ready: list[Display] = []
        self._out: set[Display] = set()
        self._backoff = Backoff()
        self._filling = False
        self._closed = False

    def fresh(self, timeout_s: float) -> Display:
        """A display. Raises EnvError where none can be started."""
        dead: list[Display] = []
        found: Display | None = None
        with self._lock:
            while self._ready and found is None:
                display = self._ready.pop(0)
                found = display if display.alive else None
                if found is None:
                    dead.append(display)
            if found is not None:
                self._out.add(found)
        for display in dead:
            log.warning("a display that waited is gone; another is started")
            display.close()
        if found is None:
            found = self._started(timeout_s)
            with self._lock:
                self._out.add(found)
        self._refill()
        return found

    def give_back(self, display: Display) -> None:
        """End a display; once more does nothing."""
        with self._lock:
            if display not in self._out:
                return
            self._out.discard(display)
        display.close()

    def close(self) -> None:
        """End all displays, those that are handed out too."""
        with self._lock:
            self._closed = True
            displays, self._ready = [*self._ready, *self._out], []
            self._out.clear()
        for display in displays:
            display.close()
        while self._filling:  # one that is just being started is ended by who starts it
            time.sleep(0.01)

    def _started(self, timeout_s: float) -> Display:
        """A new display; after a failure not before a while, longer each time."""
        wait_s = self._backoff.wait_s
        if wait_s > timeout_s:
            raise EnvError(f"displays do not start; the next attempt is made in {wait_s:.0f} s")
        time.sleep(wait_s)
        settings = self.settings
        try:
            display = Display(
                settings.size, scratch_in=settings.scratch_in, network=settings.network,
                timeout_s=min(timeout_s, settings.launch_timeout_s),
            )  # fmt: skip
        except EnvError:
            self._backoff.failed()
            raise
        self._backoff.succeeded()
        self.launches += 1
        return display

    def _refill(self) -> None:
        with self._lock:
            if self._filling or self._closed or len(self._ready) >= self.settings.prewarmed:
                return
            self._filling = True
        try:
            threading.Thread(target=self._fill, name="mmturn-desktops", daemon=True).start()
        except RuntimeError:  # the process is ending
            self._filling = False

    def _fill(self) -> None:
        try:
            while not self._closed and len(self._ready) < self.settings.prewarmed:
                display = self._started(self.settings.launch_timeout_s)
                with self._lock:
                    if not self._closed:
                        self._ready.append(display)
                        continue
                display.close()
        except EnvError as error:  # whoever needs a display meets it again, and is told
            log.warning("no display could be prepared: %s", error)
        finally:
            self._filling = False


_POOLS: Pools[DesktopSettings, DesktopPool] = Pools(DesktopPool)
desktops_of = _POOLS.of
"""The pool of this process with some settings; ended with the process."""
close_desktops = _POOLS.close
"""End every display of this process."""
