"""Programs that own a world and end in several ways."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from mmturn.envs.gui.scratch import processes_of


def run_owner(program: Path, how: str, folder: Path) -> Path:
    """Run it with temporary files, and a home, in ``folder``; the scratch folder that it printed."""
    places = {name: str(folder) for name in ("TMPDIR", "HOME")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | places
    done = subprocess.run(
        [sys.executable, str(program), how], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == {"end": 0, "kill": -9, "raise": 1}[how], done.stderr
    return Path(done.stdout.strip())


def wait_gone(folder: Path) -> bool:
    """Whether its processes end within ten seconds."""
    until = time.monotonic() + 10
    while processes_of(folder) and time.monotonic() < until:
        time.sleep(0.1)
    return not processes_of(folder)
