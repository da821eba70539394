"""A process that owns a desktop: prints its scratch folder, then ends as it is told (see test_faults)."""

from __future__ import annotations

import os
import signal
import sys
import time

from mmturn.envs.gui.desktop.env import DesktopConfig, DesktopEnv
from mmturn.gui_actions import act
from mmturn.media import ImageStore
from tests.envs.gui.desktop.conftest import desktop_task

env = DesktopEnv(DesktopConfig(size=(640, 480), prewarmed=1), ImageStore(), lambda size, budget: size, [])
env.reset(desktop_task(applications=[["terminal"]]), 0)
# A process that takes the mark of the episode off: where there is a throw-away user, it is found all the same.
env.step((act("type", text="env -i setsid sleep 100 &\n"), act("wait", duration_s=0.3)))
print(env.display.scratch.path, flush=True)
if sys.argv[1] == "kill":
    time.sleep(0.3)  # another one is being prepared
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "raise":
    raise RuntimeError("as it happens")
