"""Measures a machine for a plan: ``python -m mmturn.jobs.plan.probe '{"device": "auto", ...}'`` prints JSON.

A process of its own, so that what it holds after importing everything is what a run's process will hold too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_ROWS = {"cpu": 1024, "cuda": 8192}
_FEW = 8
_STREAM_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}
_LONG_S = 0.4
_FEWEST_RUNS = 3
_UNSEEN = 55_000_000
"""What DeepSpeed's first step and the log bring in beside what is imported here."""


def main() -> None:
    """Print what was found."""
    torch.set_grad_enabled(False)
    wanted = json.loads(sys.argv[1])
    import mmturn.jobs.train  # noqa: F401  # for what its modules weigh
    from mmturn.training.processes import start_processes

    processes = start_processes(None if wanted["device"] == "auto" else wanted["device"])
    print(json.dumps(_found(processes.device, getattr(torch, wanted["dtype"]), wanted["inner"], wanted["outer"])))


def _found(device: torch.device, dtype: torch.dtype, inner: int, outer: int) -> dict[str, Any]:
    from mmturn.models.kernels import PackedLinears

    held = _resident() + _UNSEEN
    memory = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    left = torch.randn(_ROWS[device.type], inner, device=device).to(dtype)
    right = torch.randn(inner, outer, device=device).to(dtype)
    wide = torch.ones(1 << (25 if device.type == "cpu" else 28), device=device)
    small, layer = torch.ones(4, 4, device=device), torch.nn.Linear(4, 4, device=device)
    count = -(-_STREAM_BYTES[device.type] // (inner * outer * right.element_size()))
    layers = [torch.nn.Linear(inner, outer, bias=False, device=device, dtype=dtype) for _ in range(count)]
    few, linear = left[:_FEW], PackedLinears()  # as decoding runs them
    other = torch.empty_like(wide)
    return {
        "device": device.type,
        "memory_bytes": memory,
        "process_bytes": held,
        "flops": 2.0 * left.shape[0] * inner * outer / _best_s(device, lambda: left @ right),
        "bytes_per_s": 2.0 * wide.numel() * 4 / _best_s(device, lambda: other.copy_(wide)),
        "call_s": _best_s(device, lambda: [layer(small) for _ in range(100)]) / 100,
        "weight_s": _best_s(device, lambda: [linear(one, few) for one in layers]) / (count * inner * outer),
    }


def _best_s(device: torch.device, run: Callable[[], object]) -> float:
    """Shortest of some runs after a first one; of a few at least, however slow a busy machine makes them."""
    best, begun, runs = float("inf"), time.perf_counter(), 0
    run()
    while runs < _FEWEST_RUNS or time.perf_counter() - begun < _LONG_S:
        runs += 1
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
