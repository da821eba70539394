"""Settings of the workers that run environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmturn.errors import ConfigError


@dataclass(frozen=True)
class WorkersConfig:
    """Where environments run, and when a worker is given up."""

    kind: Literal["thread", "process", "ray"] = "thread"
    """thread: beside the engine, in this process. process: in worker processes of this machine. ray: in Ray actors, on
    every machine of a cluster (`pip install mmturn[ray]`)."""
    count: int = 0
    """Worker processes or actors, each with the environments of several episodes; 0: as many as rollout.env_workers."""
    address: str = ""
    """Ray cluster to join, as `ray.init` takes it; empty: a cluster of this machine alone, bound to loopback."""
    start_timeout_s: float = 60.0
    """Seconds that an episode waits for a worker, its start included, before it fails."""
    health_timeout_s: float = 5.0
    """Seconds that a worker may take to say that it is well: before each episode, and after a step that took too long.
    One that does not is killed."""
    restart_backoff_s: float = 0.5
    """Seconds before another takes the place of a worker that failed; twice as many after each further failure."""
    most_backoff_s: float = 30.0
    """Most seconds of that."""

    def __post_init__(self) -> None:
        if self.kind not in ("thread", "process", "ray"):
            raise ConfigError(f"rollout.workers.kind must be thread, process or ray, got {self.kind!r}")
        if self.count < 0:
            raise ConfigError(f"rollout.workers.count must be 0 or more, got {self.count}")
        for name in ("start_timeout_s", "health_timeout_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"rollout.workers.{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.restart_backoff_s <= self.most_backoff_s < float("inf"):
            raise ConfigError(
                "rollout.workers.restart_backoff_s must be from 0 to most_backoff_s, got "
                f"{self.restart_backoff_s} and {self.most_backoff_s}"
            )
        if self.address and self.kind != "ray":
            raise ConfigError(f"rollout.workers.address is for kind ray, but kind is {self.kind}")
