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


class Scratch:
    """A folder of this process for what its browsers or displays write, and a mark for their processes.

    ``<temporary folder>/mmturn-gui-<user>/<pid namespace>-<pid>-<start time>-<number>``: the owner is known by its id
    and when it started, so that a new process with an old id is not taken for it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """``parent``: where (default: the temporary folder). Clears away first what dead owners left there."""
        self.home = Path(parent or tempfile.gettempdir()) / f"mmturn-gui-{os.getuid()}"
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.home.stat().st_uid != os.getuid():
            raise OSError(f"{self.home} belongs to somebody else; set TMPDIR")
        sweep(self.home)
        prefix = f"{_namespace()}-{os.getpid()}-{_started(os.getpid())}-"
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=self.home))

    @property
    def environment(self) -> dict[str, str]:
        """What the processes of this scratch are started with."""
        return {MARK: str(self.path), "TMPDIR": str(self.path)}

    def clear(self) -> None:
        """Kill its processes and remove the folder; the parent too when nothing else is in it."""
        _clear(self.path)
        with contextlib.suppress(OSError):
            self.home.rmdir()


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
    for _ in range(100):
        pids = processes_of(folder)
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


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
