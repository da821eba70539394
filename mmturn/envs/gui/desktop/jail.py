"""Who an episode's applications run as and what they are kept from: prefixes of commands, by setpriv and unshare."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from mmturn.errors import EnvError

log = logging.getLogger(__name__)

_FIRST_USER, _USERS = 61184, 4000
"""Ids that Linux distributions keep for users that exist for a while (systemd's dynamic users)."""
_PROBE_S = 5.0
_MOST_FILE = 1 << 28
"""Bytes of the longest file that applications may write."""
_PROCESSES = "--nproc=400"
"""Processes of a throw-away user; another user's are not counted by episode."""


def user_of(display: int, folder: Path) -> int | None:
    """Id of the throw-away user of a display, where the trainer is root; None: its applications run as the trainer.

    Raises EnvError where ``folder`` is beyond the reach of that user (a private TMPDIR): nothing that a policy types
    may run as root.
    """
    if os.geteuid() != 0:
        return None
    closed = next((place for place in folder.resolve().parents if not place.stat().st_mode & 0o001), None)
    if closed is not None:
        raise EnvError(f"applications must not run as root, and no other user may enter {closed}; set TMPDIR")
    return _FIRST_USER + display % _USERS


def prefix(user: int | None, network: bool) -> tuple[str, ...]:
    """What to put before a command: another user, no new privileges, limits, a network of its own with nothing in it.

    Without ``unshare``'s permission the network stays as it is (``isolates_network`` tells).
    """
    words: list[str] = []
    if not network:
        words += isolation()
    if shutil.which("prlimit") is not None:
        words += ["prlimit", "--core=0", f"--fsize={_MOST_FILE}", *([] if user is None else [_PROCESSES]), "--"]
    if shutil.which("setpriv") is not None:
        words += ["setpriv", "--no-new-privs"]
        if user is not None:
            words += [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
        words.append("--")
    return tuple(words)


def isolates_network() -> bool:
    """Whether applications can be kept from the network here."""
    return bool(isolation())


@cache
def isolation() -> tuple[str, ...]:
    """The command that starts another one without a network; empty where the system does not allow it."""
    ways = (("unshare", "--net", "--"), ("unshare", "--map-current-user", "--net", "--"))
    for way in ways:
        try:
            done = subprocess.run([*way, "true"], capture_output=True, timeout=_PROBE_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return way
    log.warning("applications reach the network: a network of their own (unshare --net) is not permitted here")
    return ()
