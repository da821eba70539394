"""Worlds that misbehave as their task's name says, for workers to run."""

from __future__ import annotations

import os
import signal
import sys
import time

from mmturn.errors import NotRunnable
from mmturn.interfaces import Step
from mmturn.testing.fakes import TextWorld
from mmturn.types import Observation


def make(settings, store):
    """Called in the worker."""
    if settings.get("fault"):
        raise ValueError("this world cannot be made")
    return Judging() if settings.get("judges") else World(settings.get("slow_s", 0.0))


class World(TextWorld):
    """Fails, dies or stands still in its first step, and writes to the standard output all the while."""

    def __init__(self, slow_s):
        super().__init__()
        self.slow_s = slow_s

    def reset(self, task, seed):
        self.task = task.id
        if self.task.startswith("exits at once"):
            os._exit(4)
        print("a line that is no message")
        return Observation((f"start {seed}",), facts={"pid": os.getpid()})

    def step(self, actions):
        if self.task.startswith("slow"):
            time.sleep(self.slow_s)
        elif self.task.startswith("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.task.startswith("stops"):
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.task.startswith("exits"):
            sys.exit(3)
        elif self.task.startswith("raises"):
            raise RuntimeError("segfault")
        elif self.task.startswith("number"):
            return 5
        elif self.task.startswith("object"):
            return Step(Observation(("x",)), False, {"it": object()})
        return super().step(actions)


class Judging(TextWorld):
    """Judges an episode at its end, and lacks what some tasks need."""

    def reset(self, task, seed):
        if task.id.startswith("lacks"):
            raise NotRunnable("there is no spreadsheet here")
        return Observation(("start",))

    def conclude(self):
        return {"score": 0.5, "pid": os.getpid()}
