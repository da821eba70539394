"""A recipe's plan: everything put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmturn.credit.signals import FORWARD
from mmturn.errors import ConfigError
from mmturn.families import family_of
from mmturn.families.shape import Shape, shape_of
from mmturn.jobs.plan.advice import advise
from mmturn.jobs.plan.held import slots_of
from mmturn.jobs.plan.machine import Machine, machine_of, measure
from mmturn.jobs.plan.memory import Memory, Training, dtype_of, memory_of, training_of
from mmturn.jobs.plan.work import Stage, stages_of
from mmturn.jobs.plan.workload import Wishes, Workload, workload_of
from mmturn.models.files import model_folder
from mmturn.recipe import Recipe, check_rl, method_of
from mmturn.training.critic_settings import CriticConfig


@dataclass(frozen=True)
class Plan:
    """What an update will take, of one process unless said otherwise."""

    shape: Shape
    work: Workload
    training: Training
    machine: Machine
    memory: Memory
    stages: tuple[Stage, ...]
    advice: tuple[str, ...]
    decoding_rows: int
    room: float | None
    """Bytes that one process may take of its device; None: not known."""

    @property
    def fits(self) -> bool | None:
        """Whether the peak stays within the room; None: not known."""
        return None if self.room is None else self.memory.peak <= self.room

    @property
    def seconds(self) -> float | None:
        """Of an update; None where the machine was not measured."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None

    def values(self) -> dict[str, Any]:
        """For machines: plain numbers and texts."""
        work, memory = self.work, self.memory
        return {
            "parameters": self.shape.parameters(),
            "trainable": self.training.trainable,
            "processes": self.training.processes,
            "device": self.machine.device,
            "work": {
                "groups": work.groups, "group_size": work.group_size, "turns": work.turns, "prompt": work.prompt,
                "reply": work.reply, "sampled": work.sampled, "context": work.context, "images": len(work.grids),
                "image_tokens": work.image_tokens, "decoding_rows": self.decoding_rows,
            },
            "memory": {
                "lasting": dict(memory.lasting),
                "phases": {phase: dict(parts) for phase, parts in memory.phases.items()},
                "host": memory.host, "peak": memory.peak, "binding": memory.binding, "room": self.room,
                "fits": self.fits,
            },
            "stages": {stage.name: {"flops": stage.flops, "seconds": stage.seconds} for stage in self.stages},
            "seconds": self.seconds,
            "advice": list(self.advice),
        }  # fmt: skip


def plan_of(recipe: Recipe, wishes: Wishes | None = None, *, probe: bool = True) -> Plan:
    """Plan a run of ``mmturn train`` on this machine. Nothing of the model is read but its settings and tokenizer.

    ``probe``: measure the machine for a few seconds; without it there are no seconds, and a GPU is not asked for.
    Raises ConfigError for a recipe that cannot be, CheckpointError for a model that is not there.
    """
    wishes = wishes or Wishes()
    signals, critic = _check(recipe)
    folder = model_folder(recipe.model.path, download=recipe.model.download, weights=False)
    shape, family = shape_of(folder), family_of(folder, recipe.model.family)
    dtype = dtype_of(recipe, folder)
    work = workload_of(recipe, family, folder, wishes)
    training = training_of(recipe, shape, dtype, wishes.processes, signals=signals, critic=critic)
    device = recipe.model.device
    machine = measure(device, shape, dtype) if probe else machine_of(device)
    memory, held = memory_of(recipe, shape, work, training, machine)
    rows = slots_of(shape, work, training.element, recipe.engine.max_batch, recipe.engine.cache_bytes)[0]
    room: float | None = None
    if machine.memory_bytes is not None:  # processes on CPU share what there is, each GPU has one of them
        room = machine.memory_bytes / (wishes.processes if machine.device == "cpu" else 1)
    return Plan(
        shape, work, training, machine, memory,
        tuple(stages_of(recipe, shape, work, training, held, machine, rows)),
        tuple(advise(recipe, memory, held, training, room)), rows, room,
    )  # fmt: skip


def _check(recipe: Recipe) -> tuple[frozenset[str], CriticConfig | None]:
    """Refuse what ``mmturn train`` refuses before it loads weights; the signals that a forward pass computes, and the
    critic, where there is one."""
    check_rl(recipe)
    if recipe.model.dtype == "float16":
        raise ConfigError("training needs a model in float32 or bfloat16 (model.dtype), not float16")
    method, critic = method_of(recipe, allow_code=True)
    return FORWARD & (method.needs | ({critic.signal} if critic else set())), critic
