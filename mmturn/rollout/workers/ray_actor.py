"""A worker as a Ray actor, on whichever machine of the cluster has room."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmturn.errors import ConfigError
from mmturn.resources import child_environment
from mmturn.rollout.workers.link import Gone, Message, Start
from mmturn.rollout.workers.service import Service
from mmturn.types import Json

_CALLS = 64
"""Questions that one actor answers at once."""
_ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# 0 is Ray's way to say that there is one machine: its servers listen on loopback.
_ALONE = {_ONE_MACHINE: "0", "RAY_AUTH_MODE": "token"}
"""Environment of a cluster of this machine alone; its token is drawn anew, and written nowhere."""
_REACH_S = 5.0
_END_S = 5.0
_PREFIX = "mmturn-ray-"
_STORE_BYTES = 80 << 20  # the least that Ray takes: pictures are small, and go by the answers
_LOCK = threading.Lock()


class RayWorker:
    """The actor: JSON text and bytes in, the same out, so that Ray's pickle carries nothing else."""

    def __init__(self, make: str, settings: str) -> None:
        self._service: Service | None = None
        self._fault = ""
        try:
            self._service = Service(Start(make, json.loads(settings)))
        except Exception as error:  # told when it is asked: Ray aborts an actor that cannot be made, with a long trace
            self._fault = f"{type(error).__name__}: {error}"

    def answer(self, head: str) -> tuple[str, Sequence[bytes]]:
        """See ``Service.answer``."""
        assert self._service is not None, "the first sign of life told that it could not start"
        message = self._service.answer(json.loads(head))
        return json.dumps(message.head), message.blobs

    def ping(self) -> str:
        """A sign of life, from a thread of its own; what was wrong with the start, else nothing."""
        return self._fault

    def end(self) -> None:
        """Close the environments."""
        if self._service is not None:
            self._service.close()


class RayLink:
    """Starts an actor and talks to it. It ends with this process, and with the cluster."""

    def __init__(self, start: Start, address: str, count: int) -> None:
        self._ray = joined_cluster(address, count)
        kind = self._ray.remote(concurrency_groups={"health": 1}, max_concurrency=_CALLS, max_restarts=0)(RayWorker)
        actor = kind.options(num_cpus=1, scheduling_strategy="SPREAD")
        self._actor: Any = actor.remote(start.make, json.dumps(start.settings))

    def call(self, head: dict[str, Json], timeout_s: float) -> Message:
        """See ``Link``."""
        from ray.exceptions import GetTimeoutError, RayError

        try:
            got = self._ray.get(self._sent(head), timeout=max(timeout_s, 0.0))
        except GetTimeoutError:
            raise TimeoutError(f"no answer within {timeout_s:g} s") from None
        except RayError as error:
            raise Gone(f"failed: {_last_line(error)}") from error
        if isinstance(got, str):
            if got:
                raise Gone(f"could not start: {got}")
            return Message({})
        text, blobs = got
        return Message(json.loads(text), blobs)

    def post(self, head: dict[str, Json]) -> None:
        """See ``Link``."""
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            if self._ray.is_initialized():
                self._sent(head)

    def kill(self) -> None:
        """See ``Link``."""
        if self._ray.is_initialized():
            self._ray.kill(self._actor)

    def close(self, timeout_s: float) -> None:
        """See ``Link``."""
        from ray.exceptions import GetTimeoutError, RayError

        if not self._ray.is_initialized():
            return
        try:
            self._ray.get(self._actor.end.remote(), timeout=timeout_s)
            self._ray.get(self._actor.__ray_terminate__.remote(), timeout=timeout_s)  # what it does at its exit too
        except GetTimeoutError:
            self.kill()
        except RayError:
            return  # it has ended

    def _sent(self, head: dict[str, Json]) -> Any:
        if head["do"] == "ping":
            return self._actor.ping.options(concurrency_group="health").remote()
        return self._actor.answer.remote(json.dumps(head))


def joined_cluster(address: str, count: int) -> Any:
    """The module ``ray``, joined to a cluster: the one that this process is in already, the one at ``address``, or one
    of this machine alone, which listens on loopback and ends with this process. Raises ConfigError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported home
    if not address and "ray" not in sys.modules:  # it reads them as it is imported
        for name, value in {**_ALONE, "RAY_AUTH_TOKEN": secrets.token_hex(16)}.items():
            os.environ.setdefault(name, value)
    import ray

    with _LOCK:
        if ray.is_initialized():
            return ray
        settings: dict[str, Any] = {"namespace": "mmturn", "logging_level": logging.WARNING}
        try:
            if address:
                _check_reachable(address)
                ray.init(address=address, **settings)
            else:
                _start_cluster(ray, count, settings)
        except (OSError, RuntimeError, ValueError) as error:
            what = f"the cluster at {address!r} cannot be joined" if address else "no cluster can be started"
            raise ConfigError(f"rollout.workers.address: {what}: {_last_line(error)}") from error
    return ray


def _start_cluster(ray: Any, count: int, settings: dict[str, Any]) -> None:
    if os.environ.get(_ONE_MACHINE) != "0":
        raise RuntimeError(f"ray was imported before {_ONE_MACHINE}=0 was set, and would listen beyond loopback")
    folder = _folder()

    def end() -> None:
        ray.shutdown()
        until = time.monotonic() + _END_S  # its processes write for as long as they live
        while folder.exists() and time.monotonic() < until:
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.05)

    atexit.register(end)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = child_environment()["PYTHONPATH"]  # actors are to import this very mmturn
    try:
        ray.init(
            num_cpus=count, num_gpus=0, include_dashboard=False, object_store_memory=_STORE_BYTES,
            _temp_dir=str(folder), **settings,
        )  # fmt: skip
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes. Raises OSError and ValueError."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.port is not None:
        socket.create_connection((parts.hostname or "", parts.port), _REACH_S).close()


def _folder() -> Path:
    """For what Ray writes; what a process that was killed left is cleared away. Sockets have to lie at short paths."""
    home = Path(tempfile.gettempdir())
    if len(str(home)) > 24:
        home = Path("/tmp")
    for old in home.glob(f"{_PREFIX}*-*"):
        pid = old.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and time.time() - old.stat().st_mtime > 1:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=home))


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1]:.300}" if lines else type(error).__name__
