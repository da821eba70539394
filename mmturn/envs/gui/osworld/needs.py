"""What a task needs that is not here: known before a guest is asked, or from the guest itself."""

from __future__ import annotations

import shlex
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from mmturn.envs.gui.osworld import browser_getters
from mmturn.envs.gui.osworld.client import Guest
from mmturn.envs.gui.osworld.files import TaskFiles
from mmturn.envs.gui.osworld.getters import GETTERS, named_files
from mmturn.envs.gui.osworld.metrics import METRICS
from mmturn.envs.gui.osworld.setup import STEPS
from mmturn.tasks.gui.osworld import OSWorldTask

_ACCOUNTS = {"googledrive": "an account at Google Drive", "login": "an account to log in with"}
_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "chrome": ("google-chrome", "chromium", "chromium-browser"),
    "gimp": ("gimp",),
    "libreoffice_calc": ("libreoffice", "soffice"),
    "libreoffice_impress": ("libreoffice", "soffice"),
    "libreoffice_writer": ("libreoffice", "soffice"),
    "thunderbird": ("thunderbird",),
    "vlc": ("vlc",),
    "vs_code": ("code",),
}
"""Programs of the applications that tasks name, one of which is enough."""
_OF_GETTERS: Mapping[str, str] = {
    **{name: "chrome" for name in browser_getters.GETTERS if name != "shortcuts_on_desktop"},
    "vlc_config": "vlc",
    "vlc_playing_info": "vlc",
    "gimp_config_file": "gimp",
    "vscode_config": "vs_code",
}
"""Whose tabs and settings getters look up."""
_LOCAL = ("", "localhost", "127.0.0.1")
_WEB = ("http", "https")
_OWN_PAGES = ("about:", "chrome:", "data:", "file:", "view-source:file:")


def missing(task: OSWorldTask, files: TaskFiles, network: bool) -> tuple[str, ...]:
    """What a task needs of mmturn, of the user's files and of the network that there is not; empty: nothing."""
    found: dict[str, None] = {}
    if task.proxy and not network:
        found["the network (it asks for OSWorld's proxy; env.network says that the guest has one)"] = None
    for step in (*task.config, *task.postconfig):
        found.update(dict.fromkeys(_of_step(str(step["type"]), step.get("parameters") or {}, files, network)))
    for check in task.checks:
        if check.func not in METRICS:
            found[f"the metric {check.func}"] = None
        for config in filter(None, (check.result, check.expected)):
            found.update(dict.fromkeys(_of_getter(config, files)))
    return tuple(found)


def _of_step(kind: str, parameters: Mapping[str, Any], files: TaskFiles, network: bool) -> Iterator[str]:
    if kind in _ACCOUNTS:
        yield _ACCOUNTS[kind]
    elif kind not in STEPS:
        yield f"the set-up step {kind}"
    elif kind == "download":
        yield from (
            f"the file {file.get('url')} in env.files"
            for file in parameters.get("files", ())
            if files.local(str(file.get("url")), str(file.get("path"))) is None
        )
    elif kind == "chrome_open_tabs" and not network:
        far = (url for url in parameters.get("urls_to_open", ()) if _is_far(str(url)))
        yield from (f"the network, for {url} (env.network says that the guest has one)" for url in far)


def _is_far(url: str) -> bool:
    if url.startswith(_OWN_PAGES):
        return False
    split = urllib.parse.urlsplit(url if "://" in url else f"https://{url}")
    return split.scheme in _WEB and (split.hostname or "") not in _LOCAL


def _of_getter(config: Mapping[str, Any], files: TaskFiles) -> Iterator[str]:
    kind = str(config["type"])
    if kind not in GETTERS:
        yield f"the getter {kind}"
    elif kind == "cloud_file" and {"path", "dest"} <= set(config):
        paths, names, _ = named_files(config)
        pairs = zip(paths, names, strict=False)
        yield from (f"the file {url} in env.files" for url, name in pairs if files.local(url, name) is None)


def missing_applications(task: OSWorldTask, guest: Guest, own: bool) -> tuple[str, ...]:
    """Applications that a task names or launches and the guest does not have; of a desktop of our ``own`` also those
    whose settings its evaluator looks up. Raises EnvError when the guest fails."""
    kinds = [str(config["type"]) for check in task.checks for config in (check.result, check.expected) if config]
    named = (*task.apps, *(_OF_GETTERS[kind] for kind in kinds if own and kind in _OF_GETTERS))
    wanted: dict[str, tuple[str, ...]] = {app: _PROGRAMS[app] for app in named if app in _PROGRAMS}
    for step in task.config:
        command = (step.get("parameters") or {}).get("command")
        if step["type"] != "launch" or not command or step["parameters"].get("shell"):
            continue
        name = str((command.split() if isinstance(command, str) else command)[0])
        if "/" not in name:
            wanted.setdefault(name, (name,))
    if not wanted or guest.platform() != "Linux":
        return ()
    programs = sorted({program for several in wanted.values() for program in several})
    line = f'for name in {" ".join(map(shlex.quote, programs))}; do command -v "$name"; done; true'
    there = {PurePosixPath(path).name for path in guest.execute(line, shell=True).output.split()}
    return tuple(f"the application {app}" for app, several in wanted.items() if not there & set(several))
