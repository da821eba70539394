"""What OSWorld's guest interface asks of an X desktop, done on one of ours."""

from __future__ import annotations

import io
import mimetypes
import os
import re
import shutil
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from mmturn.envs.gui.desktop.display import Display
from mmturn.envs.gui.desktop.windows import Window
from mmturn.envs.gui.osworld.client import Ran
from mmturn.envs.gui.osworld.tree import UBUNTU
from mmturn.errors import EnvError, ParseError, ToolError
from mmturn.geometry import Transform
from mmturn.grammars.gui.pyautogui import PyautoguiConfig, PyautoguiGrammar
from mmturn.gui_actions import DESKTOP
from mmturn.types import Action, ImageRef, Json, View

HOME = str(PurePosixPath("/", "home", "user"))
"""The home that OSWorld's tasks name; on a desktop of ours it is the episode's."""
_PYTHONS = ("python", "python3")
_MOST_FILES = 10_000
_OPENERS = {"folder": ("pcmanfm", "--no-desktop"), "text": ("mousepad",)}
_SETTLE_S = 0.5
"""Longest wait for the screen to become still behind what was done."""
_NO_PROGRAM = re.compile(r"^/bin/sh: (?:line )?\d+: ([\w.+-]+): (?:(?:command )?not found|Permission denied)$", re.M)
"""What the shell says of a program that a task's own line names; that of a script has the script's name before it.
Permission is denied where a folder of PATH is closed to the applications' user."""
_WRITE = 'mkdir -p "$(dirname "$1")" && cat > "$1"'


class NotThere(Exception):
    """A file, window or program that is not there; the interface answers 404 or 500."""


class Lacking(NotThere):
    """What is not there is something of the desktop itself, which ``what`` names: no task that needs it can run."""

    def __init__(self, what: str, words: str = "") -> None:
        super().__init__(words or f"this desktop does not have {what}")
        self.what = what


class Machine:
    """One display, asked by a server of several threads.

    Commands run as the display's throw-away user. Python that calls pyautogui is not run but read into canonical
    actions, which the display carries out: a turn's generated code needs no interpreter, and has none to escape from.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self._lock = threading.Lock()

    def here(self, text: str) -> str:
        """A path or command with the home that tasks name made the episode's."""
        return text.replace(HOME, str(self.display.home))

    def screenshot(self) -> bytes:
        """The screen as PNG. Raises EnvError for a display that is gone, whose last picture could still be read."""
        with self._lock:
            if not self.display.alive:
                raise EnvError("the display is gone: its X server or its window manager has ended")
            image = self.display.screenshot()
        data = io.BytesIO()
        image.save(data, "PNG", compress_level=1)
        return data.getvalue()

    def execute(self, command: str | Sequence[str], shell: bool, timeout_s: float, folder: str = "") -> Ran:
        """Run a command as the applications' user. Raises NotThere where there is no such program."""
        acted = self._acted(command)
        if acted is not None:
            return acted
        words = self._words(command, shell)
        done = self.display.run(self._found(words), timeout_s, cwd=self._folder(folder))
        output, error = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
        lacking = _NO_PROGRAM.search(error) if shell and "||" not in words[2] else None
        return Ran(output, error, done.returncode, f"the program {lacking[1]}" if lacking else "")

    def launch(self, command: str | Sequence[str], shell: bool) -> None:
        """Start a program and leave it. Raises NotThere."""
        words = self._found(self._words(command, shell))
        program = words[2].split()[0] if shell and words[2].strip() else ""
        if re.fullmatch(r"[\w.+-]+", program) and self.display.run(["sh", "-c", f"command -v {program}"]).returncode:
            raise Lacking(f"the program {program}")
        self.display.spawn(words)

    def open(self, path: str) -> None:
        """Show a file in the editor, or a folder in the file manager. Raises NotThere."""
        place = self.here(path)
        kind = "folder" if self._test("-d", place) else "text" if self._test("-f", place) else ""
        if not kind:
            raise NotThere(f"there is no file {path}")
        if kind == "text" and not _is_text(path):
            raise Lacking(f"an application that opens {PurePosixPath(path).name}")
        self.display.spawn([*_OPENERS[kind], place])

    def read(self, path: str, timeout_s: float) -> bytes:
        """The content of a file that the applications' user may read. Raises NotThere."""
        place = self.here(path)
        if not self._test("-f", place):
            raise NotThere(f"there is no file {path}")
        done = self.display.run(["cat", "--", place], timeout_s)
        if done.returncode:
            raise NotThere(done.stderr.decode("utf-8", "replace").strip())
        return done.stdout

    def write(self, path: str, content: bytes, timeout_s: float) -> None:
        """Write a file as the applications' user, with the folders above it. Raises NotThere where that is refused."""
        done = self.display.run(["/bin/sh", "-c", _WRITE, "sh", self.here(path)], timeout_s, input=content)
        if done.returncode:
            raise NotThere(done.stderr.decode("utf-8", "replace").strip())

    def tree(self, path: str, timeout_s: float) -> dict[str, Json]:
        """A folder with what is in it. Raises NotThere."""
        place = self.here(path)
        if not self._test("-d", place):
            raise NotThere(f"there is no folder {path}")
        done = self.display.run(["find", place, "-mindepth", "1", "-printf", r"%y\t%P\0"], timeout_s)
        root: dict[str, Json] = {"type": "directory", "name": PurePosixPath(place).name, "children": []}
        folders = {"": root}
        lines = done.stdout.decode("utf-8", "replace").split("\0")[:-1]
        for line in sorted(lines, key=lambda one: one[2:])[:_MOST_FILES]:
            kind, _, below = line.partition("\t")
            node: dict[str, Json] = {"type": "directory" if kind == "d" else "file", "name": PurePosixPath(below).name}
            if kind == "d":
                node["children"] = []
                folders[below] = node
            above, _, _ = below.rpartition("/")
            folders[above]["children"].append(node)
        return root

    def windows(self) -> list[Window]:
        """The windows of applications."""
        with self._lock:
            return self.display.windows()

    def window(self, name: str, strict: bool, by_class: bool) -> Window:
        """A window by its title or its class: all of it, or (not ``strict``) a part. Raises NotThere."""
        wanted = name.lower()
        for window in self.windows():
            found = window.kind if by_class else window.title
            if found == name or (not strict and wanted in found.lower()) or (by_class and found == wanted):
                return window
        raise NotThere(f"there is no window {name!r}")

    def activate(self, window: Window) -> None:
        """Give a window the keyboard."""
        self._message(window, "_NET_ACTIVE_WINDOW")

    def close(self, window: Window) -> None:
        """Ask a window's application to close it."""
        self._message(window, "_NET_CLOSE_WINDOW")

    def accessibility(self) -> str:
        """The windows as an accessibility tree: an application and a frame each, with place and size. There is no more
        in it, since the desktop's applications run without an accessibility bus."""
        for prefix, name in UBUNTU.items():
            if prefix not in ("class", "role"):
                ET.register_namespace(prefix, name)
        root = ET.Element("desktop-frame", {"name": "main"})
        for window in self.windows():
            application = ET.SubElement(root, "application", {"name": window.kind})
            ET.SubElement(application, "frame", {"name": window.title, **_states(window)})
        return ET.tostring(root, encoding="unicode")

    def _words(self, command: str | Sequence[str], shell: bool) -> list[str]:
        if not command:
            raise NotThere("the command is empty")
        if isinstance(command, str):
            text = self.here(command)
            words = ["/bin/sh", "-c", text] if shell else text.split()
        else:
            words = [self.here(str(word)) for word in command]
            # As subprocess has it: a list with a shell is its first word and arguments of the shell.
            words = ["/bin/sh", "-c", *words] if shell else words
        if not words:
            raise NotThere("the command is empty")
        return words

    def _found(self, words: Sequence[str]) -> list[str]:
        """The command with its program where it is: Python is the system's, since ours may be closed to other users.
        Raises NotThere."""
        name, *rest = words
        if name in _PYTHONS:
            return [shutil.which("python3", path=os.defpath) or sys.executable, *rest]
        if "/" not in name and self._which(name) is None:
            raise Lacking(f"the program {name}", f"[Errno 2] No such file or directory: {name!r}")
        return [name, *rest]

    def _which(self, name: str) -> str | None:
        return shutil.which(name, path=self.display.environment["PATH"])

    def _folder(self, folder: str) -> Any:
        return None if not folder else PurePosixPath(self.here(folder))

    def _test(self, what: str, path: str) -> bool:
        return self.display.run(["test", what, path]).returncode == 0

    def _acted(self, command: str | Sequence[str]) -> Ran | None:
        """What came of a command that is Python calling pyautogui; None for any other."""
        if isinstance(command, str) or len(command) != 3:
            return None
        name, flag, code = map(str, command)
        if name not in _PYTHONS or flag != "-c" or "pyautogui" not in code:
            return None
        try:
            actions = self._actions(code)
        except ParseError as error:
            words = f"pyautogui is read here and not run, and this cannot be read: {error}"
            return Ran("", words, 1, f"a Python for this: {words}")
        try:
            with self._lock:
                for action in actions:
                    if action.name != "key_up" or action.arguments["key"] in self.display.keyboard.held:
                        self.display.act(action)
                self.display.settle(_SETTLE_S)
        except ToolError as error:
            return Ran("", str(error), 1)
        return Ran("", "", 0)

    def _actions(self, code: str) -> tuple[Action, ...]:
        size = self.display.size
        screen = View(ImageRef("0" * 64, size), Transform(), size)
        return PyautoguiGrammar(PyautoguiConfig()).parse(code, [screen], DESKTOP, 0)

    def _message(self, window: Window, name: str) -> None:
        from Xlib import X
        from Xlib.protocol import event

        connection = self.display.connection
        with self._lock:
            root = connection.screen().root
            target = connection.create_resource_object("window", window.id)
            # 2: a pager asks, so that the window manager obeys.
            data = (32, [2, X.CurrentTime, 0, 0, 0] if name == "_NET_ACTIVE_WINDOW" else [X.CurrentTime, 2, 0, 0, 0])
            message = event.ClientMessage(window=target, client_type=connection.get_atom(name), data=data)
            root.send_event(message, event_mask=X.SubstructureRedirectMask | X.SubstructureNotifyMask)
            connection.sync()


def _is_text(path: str) -> bool:
    """Whether an editor can show it, by its name."""
    kind = mimetypes.guess_type(path)[0]
    return kind is None or kind.startswith("text/") or kind.endswith(("json", "xml", "javascript", "x-sh", "x-yaml"))


def _states(window: Window) -> Mapping[str, str]:
    states = {"visible": True, "showing": not window.minimized, "active": window.active, "enabled": True}
    found = {f"{{{UBUNTU['st']}}}{name}": "true" for name, holds in states.items() if holds}
    found[f"{{{UBUNTU['cp']}}}screencoord"] = f"({window.x}, {window.y})"
    found[f"{{{UBUNTU['cp']}}}size"] = f"({window.width}, {window.height})"
    return found
