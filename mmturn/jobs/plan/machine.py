"""What the machine has and how fast it is, as far as a plan needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mmturn.errors import MmturnError
from mmturn.families.shape import Shape

PROCESS_BYTES = 885_000_000
"""Python, torch for CPU, transformers and DeepSpeed, once an update has been made; ``measure`` asks this machine."""
_PROBE_S = 300


@dataclass(frozen=True)
class Machine:
    """Where a process of the run computes."""

    device: str
    """cpu or cuda."""
    memory_bytes: int | None
    """Of that device, all processes on it together; None: not known without asking it."""
    process_bytes: int = PROCESS_BYTES
    """Resident set of a process that holds no weight yet."""
    flops: float | None = None
    """In a second, of a matrix product as wide as the model; None: not measured."""
    bytes_per_s: float | None = None
    """Read and written by a plain pass over memory."""
    call_s: float | None = None
    """Seconds of an operation on next to nothing."""


def machine_of(device: str) -> Machine:
    """This machine, unmeasured. ``device`` as in ``model.device``; auto takes a CPU: nothing is asked of a driver."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    return Machine(kind, memory_bytes() if kind == "cpu" else None)


def memory_bytes() -> int:
    """Memory that programs on this machine may still take: a container's limit where there is a lower one."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            available = int(value.split()[0]) * 1024
    limit, used = (_lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].strip().isdigit():
        available = min(available, max(int(limit[0]) - int(used[0]), 0))
    return available


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def measure(device: str, shape: Shape, dtype: str) -> Machine:
    """This machine with what a process of its own finds out in a few seconds. Raises MmturnError when that fails."""
    wanted = {
        "device": device, "dtype": dtype, "inner": shape.hidden, "outer": shape.intermediate,
    }  # fmt: skip
    command = [sys.executable, "-m", "mmturn.jobs.plan.probe", json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=False)
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        reason = done.stderr.strip().splitlines()
        raise MmturnError(
            f"the machine could not be measured: {reason[-1] if reason else f'exit status {done.returncode}'}; "
            "--no-probe does without"
        ) from None
    memory = found.pop("memory_bytes")
    return Machine(memory_bytes=memory_bytes() if memory is None else memory, **found)
