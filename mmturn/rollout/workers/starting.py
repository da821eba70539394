"""Settings -> a pool of workers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

from mmturn.errors import ConfigError
from mmturn.rollout.settings import RolloutConfig
from mmturn.rollout.workers.link import Link, Start
from mmturn.rollout.workers.pool import WorkerPool
from mmturn.rollout.workers.process import ProcessLink
from mmturn.rollout.workers.settings import WorkersConfig


def check_workers(config: WorkersConfig) -> None:
    """Raises ConfigError for workers that cannot be had here; a cluster elsewhere is joined now."""
    if config.kind != "ray":
        return
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("rollout.workers.kind is ray, but ray is not installed: pip install mmturn[ray]")
    if config.address:
        from mmturn.rollout.workers.ray_actor import joined_cluster

        joined_cluster(config.address, 0)


def make_pool(config: RolloutConfig, start: Start) -> WorkerPool | None:
    """The workers that run environments; None: threads do. None is started yet. Raises ConfigError for workers that
    cannot be had here."""
    workers = config.workers
    if workers.kind == "thread":
        return None
    check_workers(workers)
    count = workers.count or config.env_workers
    open_link: Callable[[], Link] = partial(ProcessLink, start)
    if workers.kind == "ray":
        from mmturn.rollout.workers.ray_actor import RayLink, joined_cluster  # ray is an extra, and slow to import

        joined_cluster(workers.address, count)
        open_link = partial(RayLink, start, workers.address, count)
    return WorkerPool(open_link, count, workers, config.env_timeout_s)
