"""The X server of one display: Xvfb with a cookie, a screen in a file, and no network."""

from __future__ import annotations

import os
import random
import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmturn.envs.gui.desktop.jail import prefix, user_of
from mmturn.envs.gui.scratch import Scratch, display_paths
from mmturn.errors import EnvError
from mmturn.geometry import Size

if TYPE_CHECKING:
    from Xlib.display import Display as Connection

_FAMILY_LOCAL = 256
_NUMBERS = (100, 4000)
_TRIES = 20
_POLL_S = 0.01
_ENVIRONMENT_LOCK = threading.Lock()
FOLDERS = ("home", "run", "tmp", "config", "cache", "data", "fb")
"""Folders of an episode's user below the scratch folder."""


@dataclass
class Server:
    """A running X server."""

    number: int
    user: int | None
    process: subprocess.Popen[bytes]
    connection: Connection


def start_server(scratch: Scratch, size: Size, timeout_s: float) -> Server:
    """Start Xvfb on a display of its own. Raises EnvError, OSError (a full disk)."""
    for number in _free_numbers():
        user = user_of(number, scratch.home)
        scratch.claim(number, user)
        _own_folders(scratch.path, user)
        authority = _authority(scratch.path, number, user)
        log = scratch.path / "xvfb.log"
        command = [
            *prefix(user, network=False), "Xvfb", f":{number}", "-screen", "0", f"{size.width}x{size.height}x24",
            "-fbdir", str(scratch.path / "fb"), "-auth", str(authority), "-nolisten", "tcp", "-noreset", "-dpi", "96",
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, **scratch.environment},
            )  # fmt: skip
        connection = _connected(process, number, authority, timeout_s)
        if connection is not None:
            return Server(number, user, process, connection)
        said = log.read_bytes().decode("utf-8", "replace").strip()
        if "already active" not in said:
            raise EnvError(f"the X server did not start: {said[-300:] or f'exit status {process.poll()}'}")
    raise EnvError("there is no free number for an X display")


def _free_numbers() -> Iterator[int]:
    for _ in range(_TRIES):
        number = random.SystemRandom().randint(*_NUMBERS)
        if not any(path.exists() for path in display_paths(number)):
            yield number


def _own_folders(folder: Path, user: int | None) -> None:
    for name in FOLDERS:
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            os.chown(folder / name, user, user)


def _authority(folder: Path, number: int, user: int | None) -> Path:
    """A file with the display's cookie, for the server, for us and for the applications."""
    path = folder / "authority"
    name, cookie = b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16)
    words = (socket.gethostname().encode(), str(number).encode(), name, cookie)
    entry = struct.pack(">H", _FAMILY_LOCAL) + b"".join(struct.pack(">H", len(word)) + word for word in words)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(entry)
    if user is not None:
        os.chown(path, user, user)
    return path


def _connected(process: subprocess.Popen[bytes], number: int, authority: Path, timeout_s: float) -> Connection | None:
    """A connection as soon as the server takes one; None when it has ended. Raises EnvError when it is too slow."""
    from Xlib.display import Display as Connection
    from Xlib.error import ConnectionClosedError, DisplayConnectionError

    until = time.monotonic() + timeout_s
    while process.poll() is None:
        try:
            # The library reads the cookie from the file that the environment of the process names.
            with _ENVIRONMENT_LOCK:
                before = os.environ.get("XAUTHORITY")
                os.environ["XAUTHORITY"] = str(authority)
                try:
                    return Connection(f":{number}")
                finally:
                    if before is None:
                        del os.environ["XAUTHORITY"]
                    else:
                        os.environ["XAUTHORITY"] = before
        except (DisplayConnectionError, ConnectionClosedError, OSError):
            if time.monotonic() > until:
                process.kill()
                process.wait()
                raise EnvError(f"the X server did not answer within {timeout_s:g} s") from None
            time.sleep(_POLL_S)
    return None
