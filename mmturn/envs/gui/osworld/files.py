"""Files of tasks on this machine: those that a task would fetch, found in the user's folder, and those of one episode.

Nothing is fetched: a task's file names addresses, and what is not in the user's folder makes it not runnable.
"""

from __future__ import annotations

import urllib.parse
import uuid
from pathlib import Path

from mmturn.envs.gui.scratch import Scratch
from mmturn.errors import EnvError


class TaskFiles:
    """Finds what a task calls by an address, and holds what its evaluator looks at until ``clear``.

    ``folder``: a copy of the files, by their address: ``<host>/<path>``, or the path behind ``/resolve/<revision>/`` as
    in a clone of the repository of a hub, or OSWorld's own cache, ``<task>/<name>``. None: there are none.
    """

    def __init__(self, folder: Path | None, task: str) -> None:
        self.folder, self.task = folder, task
        self._work: Scratch | None = None

    def local(self, url: str, name: str = "") -> Path | None:
        """The file behind an address; ``name``: what the task calls it. None: it is not here."""
        if self.folder is None:
            return None
        split = urllib.parse.urlsplit(url)
        path = urllib.parse.unquote(split.path).lstrip("/")
        _, resolved, behind = path.partition("/resolve/")
        base = Path(name.replace("\\", "/")).name
        places = [f"{split.hostname or ''}/{path}".lstrip("/"), *([behind.partition("/")[2]] if resolved else [])]
        if base:
            places += [f"{self.task}/{uuid.uuid5(uuid.NAMESPACE_URL, url)}_{base}", f"{self.task}/{base}"]
        found = (inside(self.folder, place) for place in places if place.strip("/"))
        return next((file for file in found if file is not None and file.is_file()), None)

    @property
    def work(self) -> Path:
        """A folder of this episode. Raises EnvError where none can be made."""
        if self._work is None:
            try:
                self._work = Scratch()
            except OSError as error:
                raise EnvError(f"there is no place for the task's files: {error}") from error
        return self._work.path

    def place(self, name: str) -> Path:
        """Where the episode keeps a file that the task calls ``name``. Raises EnvError for one outside its folder."""
        found = inside(self.work, name)
        if found is None or found == self.work:
            raise EnvError(f"the task would write a file {name!r:.80}, which is no name of a file")
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def clear(self) -> None:
        """Remove the episode's folder."""
        if self._work is not None:
            self._work.clear()
            self._work = None


def inside(folder: Path, name: str) -> Path | None:
    """A path below a folder; None for one that would leave it."""
    if "\0" in name:
        return None
    root = folder.resolve()
    found = (root / name).resolve()
    return found if found.is_relative_to(root) else None
