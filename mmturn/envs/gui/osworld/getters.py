"""What an evaluator looks up: the ``type`` of its ``result`` and ``expected``.

Source: the package desktop-env 1.0.2, evaluators/getters. A file of the guest is copied into the episode's folder and
its path is what a metric gets; None where there is none. Those of Chrome are in ``browser_getters``.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmturn.envs.gui.osworld import browser_getters
from mmturn.envs.gui.osworld.client import HTTPStatus, fetch
from mmturn.envs.gui.osworld.code import PREFIX, text_lines
from mmturn.envs.gui.osworld.setup import Place
from mmturn.errors import EnvError, NotRunnable
from mmturn.types import Json

Getter = Callable[[Place, Mapping[str, Any]], Any]
_VLC_LOGIN = "Basic OnBhc3N3b3Jk"
"""The empty user with the password ``password``, which OSWorld sets for VLC's web interface."""


def look_up(place: Place, config: Mapping[str, Json]) -> Any:
    """What a getter finds. Raises FileNotFoundError for a file that has to be there, EnvError when the guest fails,
    NotRunnable for a getter that there is not."""
    name = str(config["type"])
    if name not in GETTERS:
        raise NotRunnable(f"there is no getter {name!r:.60} here")
    try:
        return GETTERS[name](place, config)
    except FileNotFoundError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EnvError(f"the getter {name} cannot use {dict(config)!r:.200}: {error!r:.100}") from error
    except OSError as error:
        raise EnvError(f"the getter {name} cannot keep what it found: {error}") from error


def _rule(place: Place, config: Mapping[str, Any]) -> Any:
    return config["rules"]


def named_files(config: Mapping[str, Any]) -> tuple[list[str], list[str], list[int]]:
    """Where from, under which names, and the places of those that a metric gets."""
    several = bool(config.get("multi", False))
    paths = list(config["path"]) if several else [config["path"]]
    names = list(config["dest"]) if several else [config["dest"]]
    return paths, names, [int(place) for place in config.get("gives", [0])]


def _one_or_all(found: Sequence[str | None]) -> Any:
    return found[0] if len(found) == 1 else list(found)


def _vm_file(place: Place, config: Mapping[str, Any]) -> Any:
    paths, names, gives = named_files(config)
    if config.get("time_suffix") and not config.get("multi"):
        stamp = time.strftime(config.get("time_format", "%Y%m%d_%H%M%S"))
        names = [f"{Path(name).stem}_{stamp}{Path(name).suffix}" for name in names]
    found = [copied(place, path, name) for path, name in zip(paths, names, strict=False)]
    return _one_or_all([file for number, file in enumerate(found) if number in gives])


def copied(place: Place, path: str, name: str) -> str | None:
    """A file of the guest, copied here; None: there is none."""
    content = place.guest.file(path)
    if content is None:
        return None
    target = place.files.place(name)
    target.write_bytes(content)
    return str(target)


def _cloud_file(place: Place, config: Mapping[str, Any]) -> Any:
    paths, names, gives = named_files(config)
    found: list[str | None] = []
    for number, (url, name) in enumerate(zip(paths, names, strict=False)):
        file = place.files.local(url, name)
        if file is None:
            raise NotRunnable(f"the file {url} is not in env.files")
        target = place.files.place(name)
        target.write_bytes(file.read_bytes())
        if number in gives:
            found.append(str(target))
    return _one_or_all(found)


def _cache_file(place: Place, config: Mapping[str, Any]) -> str:
    found = place.files.place(config["path"])
    if not found.is_file():
        raise FileNotFoundError(config["path"])
    return str(found)


def _command(part: str) -> Getter:
    def get(place: Place, config: Mapping[str, Any]) -> str | None:
        try:
            ran = place.guest.execute(place.filled(config["command"]), bool(config.get("shell", False)))
        except HTTPStatus:
            return None  # the command could not be started
        return ran.output if part == "output" else ran.error

    return get


def _config_file(*folder: str, key: str = "") -> Getter:
    """A file of an application's settings; its last part from the config where ``key`` names it."""

    def get(place: Place, config: Mapping[str, Any]) -> str | None:
        return copied(place, "/".join((place.home, *folder, *([config[key]] if key else []))), config["dest"])

    return get


def _vlc_playing(place: Place, config: Mapping[str, Any]) -> str | None:
    address = place.guest.address
    url = f"http://{address.host}:{address.vlc_port}/requests/status.xml"
    try:
        content = fetch(url, "GET", None, {"Authorization": _VLC_LOGIN}, place.guest.timeout_s)
    except EnvError:
        return None  # no VLC is running
    target = place.files.place(config["dest"])
    target.write_bytes(content)
    return str(target)


def _wallpaper(place: Place, config: Mapping[str, Any]) -> str:
    target = place.files.place(config["dest"])
    try:
        target.write_bytes(place.guest.post("/wallpaper", {}))
    except HTTPStatus:
        target.write_bytes(b"")  # as desktop-env leaves an empty file
    return str(target)


def _directory(place: Place, config: Mapping[str, Any]) -> Any:
    found = place.guest.ask_json("POST", "/list_directory", {"path": config["path"]})
    return found.get("directory_tree") if isinstance(found, dict) else None


def _vscode(place: Place, config: Mapping[str, Any]) -> Any:
    """VS Code writes what a command of its palette says into a file."""
    lines = [
        PREFIX, 'pyautogui.hotkey("ctrl", "shift", "p")', *text_lines(config["vscode_extension_command"]),
        'pyautogui.press("enter")',
    ]  # fmt: skip
    place.guest.execute(["python", "-c", "\n".join(lines)])
    time.sleep(1.0)
    return copied(place, config["path"], config["dest"])


def _video_player(place: Place, config: Mapping[str, Any]) -> str:
    kinds = " ".join(shlex.quote(f"video/{kind}") for kind in ("mp4", "x-matroska", "mpeg", "webm", "x-msvideo"))
    line = f"for kind in {kinds}; do xdg-mime query default $kind; done"
    found = place.guest.execute(line, shell=True).output.split()
    return max(set(found), key=found.count) if found else "unknown"


GETTERS: Mapping[str, Getter] = {
    "rule": _rule,
    "vm_file": _vm_file,
    "cloud_file": _cloud_file,
    "cache_file": _cache_file,
    "vm_command_line": _command("output"),
    "vm_command_error": _command("error"),
    "vm_terminal_output": lambda place, config: place.guest.terminal(needed=True),
    "vm_screen_size": lambda place, config: place.guest.size("/screen_size"),
    "vm_window_size": lambda place, config: place.guest.size(
        "/window_size", app_class_name=str(config["app_class_name"])
    ),
    "vm_wallpaper": _wallpaper,
    "list_directory": _directory,
    "accessibility_tree": lambda place, config: place.guest.accessibility(),
    "vlc_config": _config_file(".config", "vlc", "vlcrc"),
    "vlc_playing_info": _vlc_playing,
    "default_video_player": _video_player,
    "gimp_config_file": _config_file(".config", "GIMP", "2.10", key="file_name"),
    "vscode_config": _vscode,
    **browser_getters.GETTERS,
}
"""Every getter by its type."""
