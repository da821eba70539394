"""Where the guest of an episode comes from: the user's machines, one episode at a time each, or a new desktop."""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mmturn.envs.gui.desktop.pool import DesktopSettings, desktops_of
from mmturn.envs.gui.osworld.client import Address, Guest, read_address
from mmturn.envs.gui.osworld.server import GuestServer
from mmturn.errors import EnvError

TOKEN = "MMTURN_OSWORLD_TOKEN"
"""Environment variable with the token that guests by address ask for; OSWorld's own ask for none."""


@dataclass(frozen=True, slots=True)
class Lent:
    """A guest for one episode. ``give_back`` may be called from any thread; once more does nothing."""

    guest: Guest
    give_back: Callable[[], None]
    own: bool
    """It is a desktop of ours."""


class _Addresses:
    """The user's guests, of which each is lent to one episode."""

    def __init__(self, addresses: tuple[Address, ...]) -> None:
        self.free: queue.Queue[Address] = queue.Queue()
        for address in addresses:
            self.free.put(address)


_LOCK = threading.Lock()
_KNOWN: dict[tuple[Address, ...], _Addresses] = {}


def lend(
    addresses: tuple[str, ...], desktops: DesktopSettings, request_s: float, ready_s: float, reset_command: str
) -> Lent:
    """A guest that nobody else uses, as it is after ``reset_command``.

    ``request_s``: seconds for one request; ``ready_s``: for a guest to become free, and to show its screen. Raises
    EnvError.
    """
    if not addresses:
        return _own_desktop(desktops, request_s)
    given = tuple(map(read_address, addresses))
    with _LOCK:
        known = _KNOWN.setdefault(given, _Addresses(given))
    try:
        address = known.free.get(timeout=ready_s)
    except queue.Empty:
        count = len(given)
        raise EnvError(
            f"none of the {count} guests became free within {ready_s:g} s; set rollout.episodes to {count}"
        ) from None
    give_back = _once(lambda: known.free.put(address))
    try:
        if reset_command:
            _reset(reset_command, address, ready_s)
        guest = Guest(address, request_s, os.environ.get(TOKEN, ""))
        guest.wait_ready(ready_s)
    except BaseException:
        give_back()
        raise
    return Lent(guest, give_back, own=False)


def _own_desktop(settings: DesktopSettings, request_s: float) -> Lent:
    pool = desktops_of(settings)
    display = pool.fresh(settings.launch_timeout_s)
    try:
        server = GuestServer(display)
    except BaseException:
        pool.give_back(display)
        raise

    def end() -> None:
        server.close()
        pool.give_back(display)

    return Lent(Guest(server.address, request_s, server.token), _once(end), own=True)


def _once(work: Callable[[], None]) -> Callable[[], None]:
    lock = threading.Lock()
    done = False

    def run() -> None:
        nonlocal done
        with lock:
            if done:
                return
            done = True
        work()

    return run


def _reset(command: str, address: Address, limit_s: float) -> None:
    """Run the user's own command that puts a guest back to its snapshot."""
    words = [word.replace("{host}", address.host).replace("{port}", str(address.port)) for word in shlex.split(command)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvError(f"env.reset_command failed: {error}") from error
    if done.returncode:
        raise EnvError(f"env.reset_command ended with {done.returncode}: {done.stderr.strip()[-300:]}")
