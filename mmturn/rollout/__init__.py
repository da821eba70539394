"""Rollouts: tasks in, trajectories out."""

from __future__ import annotations

from mmturn.rollout.driver import Driver
from mmturn.rollout.groups import Episode, episodes
from mmturn.rollout.hosts import InlineHost, ThreadHost
from mmturn.rollout.settings import RolloutConfig

__all__ = ["Driver", "Episode", "InlineHost", "RolloutConfig", "ThreadHost", "episodes"]
