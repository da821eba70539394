"""Who an episode's applications run as and what they are kept from: prefixes of commands, by setpriv and unshare."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_FIRST_USER, _USERS = 61184, 4000
"""Ids that Linux distributions keep for users that exist for a while (systemd's dynamic users)."""
_PROBE_S = 5.0


def user_of(display: int, folder: Path) -> int | None:
    """Id of the throw-away user of a display, where the trainer is root; None: its applications run as the trainer.

    They do so, with a warning, when ``folder`` is beyond the reach of other users too (a private TMPDIR).
    """
    if os.geteuid() != 0:
        return None
    closed = next((place for place in folder.resolve().parents if not place.stat().st_mode & 0o001), None)
    if closed is not None:
        log.warning("applications run as root because no other user may enter %s; set TMPDIR", closed)
        return None
    return _FIRST_USER + display % _USERS


def is_throw_away(user: int) -> bool:
    """Whether an id is one that ``user_of`` gives."""
    return _FIRST_USER <= user < _FIRST_USER + _USERS


def prefix(user: int | None, network: bool) -> tuple[str, ...]:
    """What to put before a command: another user, no new privileges, and a network of its own with nothing in it.

    Without ``unshare``'s permission the network stays as it is (``isolates_network`` tells).
    """
    words: list[str] = []
    if not network:
        words += isolation()
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
