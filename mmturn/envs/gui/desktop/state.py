"""What checks of a desktop's tasks look at: the files of the home folder, the windows, the clipboard."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from mmturn.envs.gui.desktop.display import Display
from mmturn.envs.gui.desktop.windows import Window
from mmturn.tasks.gui.checks import Check
from mmturn.types import Json

MOST_FILES, MOST_BYTES = 1000, 1 << 20
"""Files that are looked at, and the length up to which their text is read."""


def state_of(display: Display, windows: Sequence[Window], checks: Sequence[Check]) -> Json:
    """What the checks ask for, ``windows`` as they are now.

    ``files``, each with path, kind ``file``, ``folder`` or ``other``, size in bytes and text (null where it is none);
    ``windows`` as ``Window`` describes them; ``clipboard``; ``primary``, the marked text; ``screen``, width and height.
    Raises EnvError.
    """
    asked = {check.path.partition(".")[0].partition("[")[0] for check in checks}
    everything = "" in asked
    state: dict[str, Json] = {"screen": {"width": display.size.width, "height": display.size.height}}
    if everything or "files" in asked:
        state["files"] = list(files_of(display.home))
    if everything or "windows" in asked:
        state["windows"] = [asdict(window) for window in windows]
    for selection in ("clipboard", "primary"):
        if everything or selection in asked:
            state[selection] = display.clipboard(selection)
    return state


def files_of(home: Path) -> Iterator[dict[str, Json]]:
    """The files below a folder, sorted by path. Links are not followed: they may point out of it."""
    found = 0
    for folder, folders, names in os.walk(home):
        folders.sort()
        for name in sorted([*folders, *names]):
            found += 1
            if found > MOST_FILES:
                return
            place = Path(folder, name)
            try:
                yield {"path": place.relative_to(home).as_posix(), **_looked_at(place)}
            except OSError:
                continue  # gone meanwhile


def _looked_at(place: Path) -> dict[str, Json]:
    status = place.lstat()
    if stat.S_ISDIR(status.st_mode):
        return {"kind": "folder", "size": 0, "text": None}
    if not stat.S_ISREG(status.st_mode):
        return {"kind": "other", "size": 0, "text": None}
    text = None
    if status.st_size <= MOST_BYTES:
        # Neither a link nor a pipe that took its place since.
        file = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(file, "rb") as opened:
            data = opened.read(MOST_BYTES)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = None
    return {"kind": "file", "size": status.st_size, "text": text}
