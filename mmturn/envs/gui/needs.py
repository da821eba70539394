"""What GUI environments need of the machine: Debian packages (``debian.txt``), a Chromium, Playwright."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol, runtime_checkable

from mmturn.errors import EnvError

CHROMIUMS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
"""Names of executables, the quickest first."""
DESKTOP_PROGRAMS = ("Xvfb", "openbox", "xclip", "mousepad", "galculator", "pcmanfm", "xterm")
"""Executables of the desktop environment: the server, the window manager, the clipboard, the applications."""
INSTALL_DESKTOP = "make setup-gui (or: pip install 'mmturn[gui]' and apt install {packages})"
INSTALL = "make setup-gui (or: pip install 'mmturn[gui]' and apt install chromium-headless-shell)"


@runtime_checkable
class Needs(Protocol):
    """What an environment adds that needs more of the machine than Python packages."""

    def lacks(self) -> str:
        """What is missing here, with what to install; empty: nothing. Asked before rollouts begin."""
        ...


def packages() -> dict[str, tuple[str, ...]]:
    """The Debian packages of each part: ``browser`` for the environments, ``pages`` for the tests of mmturn's pages."""
    parts: dict[str, tuple[str, ...]] = {}
    for line in (Path(__file__).parent / "debian.txt").read_text(encoding="utf-8").splitlines():
        part, _, package = line.split("#")[0].strip().partition(" ")
        if package:
            parts[part] = (*parts.get(part, ()), package.strip())
    return parts


def missing_packages(part: str) -> tuple[str, ...] | None:
    """Those of a part that dpkg does not have installed; None on a machine without dpkg."""
    if shutil.which("dpkg-query") is None:
        return None
    wanted = packages()[part]
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return tuple(package for package in wanted if package not in installed)


def find_chromium() -> str | None:
    """Path of a Chromium: the one that MMTURN_CHROMIUM names, else the first of ``CHROMIUMS``; None: there is none."""
    wanted = os.environ.get("MMTURN_CHROMIUM", "")
    return shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, CHROMIUMS)), None)


def missing_for_browser() -> str:
    """What the browser environment lacks here, with what to install; empty: nothing."""
    if importlib.util.find_spec("playwright") is None:
        return f"the browser environment needs the package playwright: {INSTALL}"
    if find_chromium() is None:
        names = os.environ.get("MMTURN_CHROMIUM") or ", ".join(CHROMIUMS)
        return f"the browser environment needs a Chromium, and there is no {names}: {INSTALL}"
    return ""


def chromium() -> str:
    """Path of a Chromium that Playwright can drive. Raises EnvError that says what to install."""
    missing, found = missing_for_browser(), find_chromium()
    if missing or found is None:
        raise EnvError(missing)
    return found


def missing_for_desktop() -> str:
    """What the desktop environment lacks here, with what to install; empty: nothing."""
    lacking = [name for name in DESKTOP_PROGRAMS if shutil.which(name) is None]
    if importlib.util.find_spec("Xlib") is None:
        lacking.insert(0, "the package python-xlib")
    install = INSTALL_DESKTOP.format(packages=" ".join(packages()["desktop"]))
    return f"the desktop environment needs {', '.join(lacking)}: {install}" if lacking else ""


def desktop_programs() -> None:
    """Raises EnvError that says what to install where a desktop cannot be started."""
    missing = missing_for_desktop()
    if missing:
        raise EnvError(missing)
