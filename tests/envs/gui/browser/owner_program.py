"""A process that owns a browser: prints its scratch folder, then ends as it is told (see test_faults)."""

from __future__ import annotations

import os
import signal
import sys

from mmturn.envs.gui.browser.env import BrowserConfig, BrowserEnv
from mmturn.media import ImageStore
from mmturn.tasks.gui.miniwob import miniwob_task

env = BrowserEnv(BrowserConfig(), ImageStore(), lambda size, budget: size, [])
env.reset(miniwob_task("click-test", 1), 0)
print(env.pool.scratch, flush=True)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "raise":
    raise RuntimeError("as it happens")
