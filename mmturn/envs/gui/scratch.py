"""Temporary folders of GUI environments that never outlive their owner for long: what one that was killed left behind,
folders and processes, is cleared away by the next that starts."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

MARK = "MMTURN_GUI_SCRATCH"
"""Environment variable of every process that belongs to a scratch folder: its path."""
_TRIES = 10
_CLAIM = "display"
"""File of a folder: the number of its X display, and the user of its applications."""
_SHARED = ("/tmp", "/tmp/.ICE-unix", "/var/tmp", "/dev/shm", "/run/lock")
"""Where any user may write."""


class Scratch:
    """A folder of this process for what its browsers or displays write, and a mark for their processes.

    ``<temporary folder>/mmturn-gui-<user>/<pid namespace>-<pid>-<start time>-<number>``: the owner is known by its id
    and when it started, so that a new process with an old id is not taken for it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """``parent``: where (default: the temporary folder). Clears away first what dead owners left there."""
        self.home = _home(parent)
        prefix = f"{_namespace()}-{os.getpid()}-{_started(os.getpid())}-"
        for attempt in range(_TRIES):
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                if self.home.stat().st_uid != os.getuid():
                    raise OSError(f"{self.home} belongs to somebody else; set TMPDIR")
                sweep(self.home)
                self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=self.home))
                return
            except FileNotFoundError:  # the last of its folders went just now, and it with that
                if attempt + 1 == _TRIES:
                    raise

    @property
    def environment(self) -> dict[str, str]:
        """What the processes of this scratch are started with."""
        return {MARK: str(self.path), "TMPDIR": str(self.path)}

    def claim(self, display: int, user: int | None) -> None:
        """Write down the X display that belongs to the folder, and the throw-away user whose processes do, so that
        both are gone with it. Other users may then pass through the folder, and read nothing of it."""
        (self.path / _CLAIM).write_text(f"{display} {'' if user is None else user}", encoding="ascii")
        if user is not None:
            self.home.chmod(0o711)
            self.path.chmod(0o711)

    def kill(self) -> None:
        """Kill its processes."""
        _kill(self.path)

    def clear(self) -> None:
        """Kill its processes and remove the folder; the parent too when nothing else is in it."""
        _clear(self.path)
        with contextlib.suppress(OSError):
            self.home.rmdir()


def clear_leftovers(parent: Path | None = None) -> None:
    """Clear away what dead owners left, where ``Scratch`` would; for who ends such an owner and starts no other."""
    home = _home(parent)
    sweep(home)
    with contextlib.suppress(OSError):
        home.rmdir()


def _home(parent: Path | None) -> Path:
    return Path(parent or tempfile.gettempdir()) / f"mmturn-gui-{os.getuid()}"


def sweep(home: Path) -> list[Path]:
    """Clear away the folders below ``home`` whose owner is gone, with their processes; what was cleared."""
    swept = []
    for folder in sorted(home.iterdir()) if home.is_dir() else []:
        namespace, pid, started, *_ = (*folder.name.split("-"), "", "", "")
        if namespace != _namespace() or not pid.isdigit():
            continue  # its owner cannot be seen from here
        if _started(int(pid)) != started:
            log.warning("clearing away what a process that is gone left in %s", folder)
            _clear(folder)
            swept.append(folder)
    return swept


def processes_of(folder: Path) -> list[int]:
    """Processes that were started with the folder's mark, or name it on their command line; itself never."""
    mark, text = f"{MARK}={folder}".encode(), str(folder).encode()
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        environment, command = _read(pid, "environ"), _read(pid, "cmdline")
        if mark in environment.split(b"\0") or text in command:
            found.append(pid)
    return found


def _clear(folder: Path) -> None:
    """Processes first: they would write on. A killed one may have children that were just about to start."""
    display, user = _claimed(folder)
    _kill(folder)
    if display is not None:
        _forget_display(display)
    if user is not None:
        _remove_files_of(user)
    shutil.rmtree(folder, ignore_errors=True)


def _kill(folder: Path) -> None:
    user = _claimed(folder)[1]
    for _ in range(100):
        pids = [*processes_of(folder), *(_processes_of_user(user) if user is not None else ())]
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def display_paths(display: int) -> tuple[Path, Path]:
    """Where an X server locks its number and listens: it removes both, unless it is killed."""
    return Path(f"/tmp/.X{display}-lock"), Path(f"/tmp/.X11-unix/X{display}")


def _claimed(folder: Path) -> tuple[int | None, int | None]:
    try:
        display, user = (folder / _CLAIM).read_text(encoding="ascii").split(" ")
        return int(display), int(user) if user else None
    except (OSError, ValueError):
        return None, None


def _forget_display(display: int) -> None:
    """Remove what a killed X server left. A process that dies lets go of its memory first, and is there a bit longer;
    a server that lives is another one."""
    for _ in range(200):
        if not _lives(display):
            for path in display_paths(display):
                path.unlink(missing_ok=True)
            return
        time.sleep(0.005)


def _remove_files_of(user: int) -> None:
    """What a throw-away user wrote where every user may: a terminal takes any path."""
    for shared in _SHARED:
        with contextlib.suppress(OSError), os.scandir(shared) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid != user:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


def _lives(display: int) -> bool:
    """Whether a process holds the lock of an X display."""
    try:
        return bool(_started(int(display_paths(display)[0].read_text(encoding="ascii"))))
    except (OSError, ValueError):
        return False


def _processes_of_user(user: int) -> list[int]:
    """Whatever a throw-away user runs, also what has taken the folder's mark off."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}").stat().st_uid == user and _started(pid):
                found.append(pid)
    return found


def _pids() -> Iterator[int]:
    proc = Path("/proc")
    for entry in proc.iterdir() if proc.is_dir() else ():
        if entry.name.isdigit():
            yield int(entry.name)


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _started(pid: int) -> str:
    """When a process started, in clock ticks since the boot; empty when there is none, or only its corpse."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return fields[19].decode() if len(fields) > 19 and fields[0] != b"Z" else ""


def _namespace() -> str:
    """Which process ids are meant: a folder may be shared with other containers."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"
