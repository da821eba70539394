"""The applications of a desktop by name: how they are started, and when they are there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mmturn.envs.gui.desktop.display import Display
from mmturn.errors import EnvError

_POLL_S = 0.01


@dataclass(frozen=True)
class Application:
    """A program with a window."""

    command: tuple[str, ...]
    """The program and its first arguments; the task's files follow."""
    kind: str
    """Class of its window, in small letters."""
    folder: bool = False
    """Without a file it opens the home folder."""


SHIPPED: Mapping[str, Application] = {
    "editor": Application(("mousepad",), "mousepad"),
    "calculator": Application(("galculator",), "galculator"),
    "files": Application(("pcmanfm", "--no-desktop"), "pcmanfm", folder=True),
    "terminal": Application(("xterm", "-u8", "-fa", "DejaVu Sans Mono", "-fs", "11"), "xterm"),
}
"""Applications that every desktop has."""


@dataclass
class Running:
    """A started application."""

    name: str
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raises EnvError for one that was killed or has crashed; it may end of itself."""
        status = self.process.poll()
        if status is not None and status < 0:
            raise EnvError(f"the application {self.name} was ended by signal {-status}")


def launch(display: Display, name: str, application: Application, opened: tuple[str, ...], limit_s: float) -> Running:
    """Start an application and wait for its window. Raises EnvError when there is none in time."""
    before = {window.id for window in display.windows()}
    paths = [str(display.home / path) for path in opened]
    if not paths and application.folder:
        paths = [str(display.home)]
    running = Running(name, display.spawn([*application.command, *paths]))
    until = time.monotonic() + limit_s
    while not any(one.kind == application.kind and one.id not in before for one in display.windows()):
        running.check()
        if running.process.poll() is not None or time.monotonic() > until:
            raise EnvError(f"the application {name} showed no window within {limit_s:g} s")
        time.sleep(_POLL_S)
    return running
