"""The steps that set a guest up, and those before it is judged: each type of a task's ``config`` and ``postconfig``.

Source: the package desktop-env 1.0.2, controllers/setup.py. Differs: what ``download`` names comes from the user's own
files (see ``files``); a launch that the guest refuses is an error, not a line of a log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmturn.envs.gui.osworld.chrome import Chrome
from mmturn.envs.gui.osworld.client import Guest, HTTPStatus
from mmturn.envs.gui.osworld.files import TaskFiles
from mmturn.errors import EnvError, NotRunnable
from mmturn.types import Json

MAX_SLEEP_S = 600.0
"""A longer sleep of a task is cut."""
MOST_TRIES, TRY_PAUSE_S = 200, 0.3
"""How often an ``execute`` with ``until`` is repeated, and seconds between."""
_MOST_FAILURES = 5
Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where steps act, and what stands for the words that they hold."""

    guest: Guest
    files: TaskFiles
    screen: tuple[int, int]
    password: str = ""

    @property
    def home(self) -> str:
        """The home of the guest's user."""
        shown = self.guest.execute(["python3", "-c", "import os; print(os.path.expanduser('~'))"]).output
        return shown.strip().rstrip("/")

    def filled(self, command: str | Sequence[str]) -> str | list[str]:
        """A command with the guest's password and the size of its screen in the places of their names."""
        width, height = self.screen
        words = {
            "{CLIENT_PASSWORD}": self.password,
            "{SCREEN_WIDTH_HALF}": str(width // 2),
            "{SCREEN_HEIGHT_HALF}": str(height // 2),
            "{SCREEN_WIDTH}": str(width),
            "{SCREEN_HEIGHT}": str(height),
        }

        def fill(text: str) -> str:
            for word, value in words.items():
                text = text.replace(word, value)
            return text

        return fill(command) if isinstance(command, str) else [fill(str(part)) for part in command]


def run_steps(steps: Sequence[Mapping[str, Json]], place: Place) -> None:
    """Carry steps out in order. Raises EnvError that names the step, NotRunnable for one that cannot be done here."""
    for number, step in enumerate(steps):
        name, parameters = str(step["type"]), step.get("parameters") or {}
        try:
            if name not in STEPS:
                raise NotRunnable(f"there is no set-up step {name!r:.60} here")
            STEPS[name](place, parameters)
        except NotRunnable:
            raise
        except EnvError as error:
            raise EnvError(f"step {number} ({name}): {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise EnvError(f"step {number} ({name}): its parameters are wrong: {error!r:.200}") from error


def _download(place: Place, parameters: Parameters) -> None:
    for file in parameters["files"]:
        found = place.files.local(file["url"], file["path"])
        if found is None:
            raise NotRunnable(f"the file {file['url']} is not in env.files")
        place.guest.upload(file["path"], found.read_bytes())


def _upload_file(place: Place, parameters: Parameters) -> None:
    for file in parameters["files"]:
        found = place.files.local(file["local_path"], file["local_path"])
        if found is None:
            raise NotRunnable(f"the file {file['local_path']} is not in env.files")
        place.guest.upload(file["path"], found.read_bytes())


def _launch(place: Place, parameters: Parameters) -> None:
    command, shell = parameters["command"], bool(parameters.get("shell", False))
    if isinstance(command, str) and not shell:
        command = command.split()
    try:
        place.guest.post("/setup/launch", {"command": place.filled(command), "shell": shell})
    except HTTPStatus as error:
        if "no such file" in error.said.lower() or "not found" in error.said.lower():
            raise NotRunnable(f"the guest cannot start {command!r:.100}: {error.said:.200}") from error
        raise


def _execute(place: Place, parameters: Parameters) -> None:
    command, until = place.filled(parameters["command"]), parameters.get("until") or {}
    failures = 0
    for _ in range(MOST_TRIES):
        try:
            ran = place.guest.execute(command, bool(parameters.get("shell", False)), "/setup/execute")
        except HTTPStatus:
            # A command that cannot be run is no fault of the guest's; tasks have some that are not meant to succeed.
            failures += 1
            if not until or failures >= _MOST_FAILURES:
                return
        else:
            for key, text in (("stdout", ran.output), ("stderr", ran.error)):
                if parameters.get(key):
                    place.files.place(parameters[key]).write_text(text, encoding="utf-8")
            met = (
                ("returncode" in until and ran.returncode == until["returncode"])
                or ("stdout" in until and until["stdout"] in ran.output)
                or ("stderr" in until and until["stderr"] in ran.error)
            )
            if not until or met:
                return
        time.sleep(TRY_PAUSE_S)
    raise EnvError(f"{parameters['command']!r:.100} was run {MOST_TRIES} times and never came to {dict(until)}")


def _verified(place: Place, parameters: Parameters) -> None:
    values = {key: parameters.get(key, default) for key, default in _VERIFIED.items()}
    place.guest.post("/setup/execute_with_verification", {**values, "command": place.filled(parameters["command"])})


_VERIFIED: Mapping[str, Json] = {"verification": {}, "max_wait_time": 10, "check_interval": 1.0, "shell": False}


def _window(action: str) -> Callable[[Place, Parameters], None]:
    def act(place: Place, parameters: Parameters) -> None:
        values = {
            "window_name": parameters["window_name"],
            "strict": bool(parameters.get("strict", False)),
            "by_class": bool(parameters.get("by_class", False)),
        }
        try:
            place.guest.post(f"/setup/{action}", values)
        except HTTPStatus as error:
            # As in desktop-env: a window that is not there is no error of the set-up.
            if error.status not in (404, 500):
                raise

    return act


def _posted(path: str) -> Callable[[Place, Parameters], None]:
    return lambda place, parameters: _ignore(place.guest.post(path, {"path": parameters["path"]}))


def _ignore(_: bytes) -> None:
    """What the guest says to a step that was carried out is for people."""


def _sleep(place: Place, parameters: Parameters) -> None:
    time.sleep(max(0.0, min(float(parameters["seconds"]), MAX_SLEEP_S)))


def _open_tabs(place: Place, parameters: Parameters) -> None:
    chrome = Chrome(place.guest.address)
    chrome.wait_ready(min(75.0, place.guest.timeout_s))
    chrome.open([str(url) for url in parameters["urls_to_open"]])


def _close_tabs(place: Place, parameters: Parameters) -> None:
    Chrome(place.guest.address).close([str(url) for url in parameters["urls_to_close"]])


STEPS: Mapping[str, Callable[[Place, Parameters], None]] = {
    "download": _download,
    "upload_file": _upload_file,
    "change_wallpaper": _posted("/setup/change_wallpaper"),
    "open": _posted("/setup/open_file"),
    "launch": _launch,
    "execute": _execute,
    "command": _execute,
    "execute_with_verification": _verified,
    "sleep": _sleep,
    "activate_window": _window("activate_window"),
    "close_window": _window("close_window"),
    "chrome_open_tabs": _open_tabs,
    "chrome_close_tabs": _close_tabs,
}
"""Every step by its type."""
