"""One virtual X display: its screen, its input, its home folder, its windows, and the end of all of that."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mmturn.envs.gui.desktop.acting import Pointer, carry_out
from mmturn.envs.gui.desktop.frames import Frames
from mmturn.envs.gui.desktop.jail import prefix
from mmturn.envs.gui.desktop.keyboard import Keyboard
from mmturn.envs.gui.desktop.server import start_server
from mmturn.envs.gui.desktop.windows import Window, manager_is_ready, windows_of
from mmturn.envs.gui.needs import desktop_programs
from mmturn.envs.gui.scratch import Scratch
from mmturn.errors import EnvError, ToolError
from mmturn.geometry import Size
from mmturn.gui_actions import settled
from mmturn.types import Action

_POLL_S = 0.01
_CLIPBOARD_S = 2.0
_ASSOCIATIONS = "[Default Applications]\ntext/plain=org.xfce.mousepad.desktop\n"
"""What the file manager opens a text with."""
_SELECTIONS = ("clipboard", "primary")
_KEPT = ("PATH", "TZ")
"""Variables of ours that applications see too: no keys, tokens or addresses are among them."""


class Display:
    """An X display with a window manager, owned by whoever started it. One thread at a time may use it.

    Applications run as a throw-away user where we are root, with a home of their own, and without a network unless one
    is asked for. ``close`` leaves neither a process nor a file. What fails raises EnvError: the display is then lost.
    """

    def __init__(
        self, size: Size, *, scratch_in: Path | None = None, network: bool = False, timeout_s: float = 30.0
    ) -> None:
        """Start it: ``size`` of the screen in pixels; ``scratch_in``: where its files go (the temporary folder);
        ``network``: whether applications have one; ``timeout_s``: how long the start may take. Raises EnvError."""
        desktop_programs()
        self.size = size
        self._network = network
        self._started: list[subprocess.Popen[bytes]] = []
        try:
            self.scratch = Scratch(scratch_in)
        except OSError as error:
            raise EnvError(f"the display has no place for its files: {error}") from error
        self._frames: Frames | None = None
        self.closed = False
        try:
            with self._failing():
                self._start(timeout_s)
        except BaseException:
            self.close()
            raise

    def _start(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        self._server = start_server(self.scratch, self.size, timeout_s)
        self._started.append(self._server.process)
        self.connection = self._server.connection
        self._frames = Frames(self.scratch.path / "fb")
        self.home = self.scratch.path / "home"
        """Home folder of the applications' user."""
        self.environment: Mapping[str, str] = self._variables()
        """Variables that applications are started with."""
        associations = self.scratch.path / "config" / "mimeapps.list"
        associations.write_text(_ASSOCIATIONS, encoding="ascii")
        self.own(associations)
        self._manager = self.spawn(["openbox", "--sm-disable"])
        while not manager_is_ready(self.connection):
            if self._manager.poll() is not None or time.monotonic() > until:
                raise EnvError("the window manager did not start")
            time.sleep(_POLL_S)
        self.keyboard, self.pointer = Keyboard(self.connection), Pointer(self.connection, self.size)

    @property
    def name(self) -> str:
        """As ``DISPLAY`` says it: ``:123``."""
        return f":{self._server.number}"

    @property
    def alive(self) -> bool:
        """Whether the server and the window manager run."""
        return not self.closed and self._server.process.poll() is None and self._manager.poll() is None

    @property
    def user(self) -> int | None:
        """Id of the applications' user; None: ours."""
        return self._server.user

    def screenshot(self) -> Image.Image:
        """What is on the screen, with the pointer, as an RGB image."""
        with self._failing():
            return self.frames.image()

    @property
    def frames(self) -> Frames:
        """The screen's pixels. Raises EnvError for a display that is closed."""
        if self._frames is None or self.closed:
            raise EnvError("the display is closed")
        return self._frames

    def act(self, action: Action, default_wait_s: float = 1.0) -> None:
        """Carry out one canonical action, points in pixels of the screen. Raises ToolError where it cannot be done."""
        if action.kind == "answer":
            raise ToolError("the end of an episode is nothing that a display does")
        self.carry_out(action.name, settled(action), default_wait_s)

    def carry_out(self, name: str, arguments: Mapping[str, Any], default_wait_s: float = 1.0) -> None:
        """``act`` with what ``gui_actions.settled`` gives."""
        with self._failing():
            carry_out(self.keyboard, self.pointer, name, arguments, default_wait_s)
            self.connection.sync()

    def settle(self, limit_s: float, still_s: float = 0.02) -> None:
        """Wait until the screen has not changed for ``still_s``, at most ``limit_s`` seconds."""
        if limit_s <= 0:
            return
        with self._failing():
            until = time.monotonic() + limit_s
            before, since = self.frames.raw(), time.monotonic()
            while time.monotonic() < until and time.monotonic() - since < still_s:
                time.sleep(min(_POLL_S, max(until - time.monotonic(), 0.0)))
                now = self.frames.raw()
                if now != before:
                    before, since = now, time.monotonic()

    def windows(self) -> list[Window]:
        """The windows of applications, the oldest first."""
        with self._failing():
            return windows_of(self.connection)

    def spawn(self, command: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
        """Start a program of ours (never of a policy) as the applications' user, in its home. Settings are those of
        ``subprocess.Popen``."""
        process = subprocess.Popen(
            self.command(command),
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
               "cwd": self.home, "env": dict(self.environment), "start_new_session": True, **settings},
        )  # fmt: skip
        self._started = [one for one in self._started if one.poll() is None] + [process]
        return process

    def command(self, command: Sequence[str]) -> list[str]:
        """The words that run a program as the applications' user does."""
        return [*prefix(self.user, self._network), *command]

    def run(
        self, command: Sequence[str], timeout_s: float = 10.0, *, input: bytes | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program as ``spawn`` does and wait for its end. Raises EnvError when it takes too long."""
        process = self.spawn(
            command, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=cwd or self.home,
        )  # fmt: skip
        try:
            out, error = process.communicate(input, timeout_s)
        except subprocess.TimeoutExpired as late:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.communicate()
            raise EnvError(f"{command[0]} did not end within {timeout_s:g} s") from late
        return subprocess.CompletedProcess(list(command), process.returncode, out, error)

    def clipboard(self, selection: str = "clipboard") -> str:
        """The text in a selection (``clipboard`` or ``primary``); empty where there is none."""
        done = self.run(["xclip", "-o", "-selection", _selection(selection), "-t", "UTF8_STRING"], _CLIPBOARD_S)
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""

    def set_clipboard(self, text: str, selection: str = "clipboard") -> None:
        """Put a text into a selection."""
        holder = self.spawn(["xclip", "-i", "-selection", _selection(selection)], stdin=subprocess.PIPE)
        assert holder.stdin is not None
        with self._failing():
            holder.stdin.write(text.encode("utf-8", "replace"))
            holder.stdin.close()
        try:
            failed = holder.wait(_CLIPBOARD_S) != 0
        except subprocess.TimeoutExpired:
            failed = True
        if failed:
            raise EnvError("the clipboard cannot be set")

    def own(self, path: Path) -> None:
        """Give a file or folder to the applications' user."""
        if self.user is not None:
            os.chown(path, self.user, self.user, follow_symlinks=False)

    def kill(self) -> None:
        """Kill every process of the display, from any thread: calls that wait for it raise EnvError."""
        self.scratch.kill()

    def close(self) -> None:
        """Kill what runs, remove what was written."""
        if self.closed:
            return
        self.closed = True
        if self._frames is not None:
            self._frames.close()
        connection = getattr(self, "connection", None)
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()
        self.scratch.clear()
        for process in self._started:  # their corpses too
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_CLIPBOARD_S)

    def _variables(self) -> dict[str, str]:
        folder, home = self.scratch.path, str(self.home)
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {
            "PATH": os.defpath, **kept, **self.scratch.environment,
            "DISPLAY": self.name, "XAUTHORITY": str(folder / "authority"), "HOME": home,
            "USER": "user", "LOGNAME": "user", "SHELL": "/bin/sh", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8",
            "TMPDIR": str(folder / "tmp"), "XDG_RUNTIME_DIR": str(folder / "run"),
            "XDG_CONFIG_HOME": str(folder / "config"), "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_DATA_HOME": str(folder / "data"), "XDG_STATE_HOME": str(folder / "data"),
            # No session bus: applications would start daemons on it, and talk to those of others.
            "DBUS_SESSION_BUS_ADDRESS": "disabled:", "NO_AT_BRIDGE": "1", "GTK_A11Y": "none",
            "GSETTINGS_BACKEND": "keyfile", "GTK_THEME": "Adwaita", "GIO_USE_VFS": "local",
        }  # fmt: skip

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """A display that is gone is an EnvError, whoever notices."""
        from Xlib.error import ConnectionClosedError, DisplayError, XError

        try:
            yield
        except (ConnectionClosedError, DisplayError, XError) as error:
            raise EnvError(f"the X server failed: {error}") from error
        except OSError as error:
            raise EnvError(f"the display failed: {error}") from error


def _selection(name: str) -> str:
    if name not in _SELECTIONS:
        raise ValueError(f"a selection is one of {', '.join(_SELECTIONS)}, got {name!r}")
    return name
