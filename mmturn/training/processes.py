"""The processes of a run: one alone without a launcher, or those that ``deepspeed`` or ``torchrun`` started."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from mmturn.errors import ConfigError

_TIMEOUT = timedelta(hours=4)
"""Rollouts of one process may take that much longer than another's before a collective gives up."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the run."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This process's part of something that all processes hold."""
        return list(items[self.rank :: self.world_size])

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, in order of rank; for small things."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum of each value over the processes, in order of rank; a key may be missing in some."""
        total: dict[str, float] = {}
        for part in self.gather(dict(values)):
            for key, value in part.items():
                total[key] = total.get(key, 0.0) + value
        return total

    def maximum(self, value: int) -> int:
        """Largest value over the processes."""
        return int(max(self.gather(value)))

    def hand(self, value: Any, source: int, target: int) -> Any:
        """``value`` of process ``source`` in process ``target``, None in all others; for those two to call, or all."""
        parcel = [value if self.rank == source else None]
        if self.rank == source:
            dist.send_object_list(parcel, dst=target, device=self.device)
        elif self.rank == target:
            dist.recv_object_list(parcel, src=source, device=self.device)
        return parcel[0] if self.rank == target else None

    def agree(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put the numbers of the first process into the tensors of all, in place. All processes must call it."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world_size > 1:
            dist.barrier()


def start_processes(device: str | torch.device | None = None) -> Processes:
    """Join the run's process group, once per process; without a launcher it is a group of one that needs no port.

    ``device``: ``cpu``, ``cuda`` or None for what there is. Raises ConfigError for a device that is not there.
    """
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training on cuda was asked for, but torch sees no GPU here; use cpu")
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.setdefault("LOCAL_RANK", "0"))  # deepspeed.initialize insists on it
    _import_deepspeed(kind)
    chosen = (
        torch.device(kind, local_rank if world_size > 1 else torch.cuda.current_device())
        if kind == "cuda"
        else torch.device("cpu")
    )
    if kind == "cuda":
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        backend = "nccl" if kind == "cuda" else "gloo"
        if world_size == 1 and "MASTER_ADDR" not in os.environ:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=_TIMEOUT)
        else:
            dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=_TIMEOUT)
    import deepspeed

    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False, verbose=False, dist_init_required=None)
    return Processes(dist.get_rank(), dist.get_world_size(), chosen)


def stop_processes() -> None:
    """Leave the process group, so that the interpreter ends without a warning."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _import_deepspeed(kind: str) -> None:
    """Import deepspeed quietly, for a kind of device, such that it never calls a compiler."""
    os.environ.setdefault("DS_ACCELERATOR", kind)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\..*")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
        import deepspeed.ops
        from deepspeed.accelerator import get_accelerator, set_accelerator
        from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
        from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator
        from deepspeed.ops.op_builder.all_ops import ALL_OPS
    if get_accelerator().device_name().split(":")[0] != kind:  # imported before, by transformers or accelerate
        set_accelerator(CPU_Accelerator() if kind == "cpu" else CUDA_Accelerator())
    # Its shared-memory collectives for CPU would be compiled at this point; gloo does the same work.
    deepspeed.ops.__compatible_ops__ = dict.fromkeys(ALL_OPS, False)
    for name in ("DeepSpeed", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
