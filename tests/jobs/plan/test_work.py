"""FLOPs and seconds of an update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmturn.jobs.plan.held import slots_of
from mmturn.jobs.plan.machine import Machine
from mmturn.jobs.plan.memory import memory_of
from mmturn.jobs.plan.planning import plan_of
from mmturn.jobs.plan.work import Stage, decode_flops, prefill_flops, stages_of, tree_flops
from mmturn.jobs.plan.workload import Wishes
from mmturn.recipe import read_recipe

FAST = Machine("cpu", 10**10, flops=1e11, bytes_per_s=1e10, call_s=1e-6)


def stages(*overrides: str, machine: Machine = FAST, **wishes: Any) -> dict[str, Stage]:
    recipe = read_recipe("nano_rl", overrides)[0]
    made = plan_of(recipe, Wishes(**wishes), probe=False)
    memory_held = memory_of(recipe, made.shape, made.work, made.training, machine)[1]
    rows = slots_of(made.shape, made.work, 4, recipe.engine.max_batch, recipe.engine.cache_bytes)[0]
    found = stages_of(recipe, made.shape, made.work, made.training, memory_held, machine, rows)
    return {stage.name: stage for stage in found}


def test_every_token_is_run_once_in_rollouts() -> None:
    made = plan_of(read_recipe("nano_rl")[0], probe=False)
    shape, work = made.shape, made.work
    rollouts = prefill_flops(shape, work) + decode_flops(shape, work)
    # all but the last token of each trajectory, whose successor is never sampled
    last = work.trajectories * shape.language_flops(1, work.context)
    # a group's first tokens are all drawn from one position
    shared = shape.head_flops(work.trajectories - work.groups)
    assert rollouts + last + shared == pytest.approx(tree_flops(shape, work), rel=1e-9)


def test_passes_of_an_update() -> None:
    plain = stages()["update"].flops
    assert stages("training.activation_checkpointing=true")["update"].flops == pytest.approx(plain * 4 / 3)
    assert stages("rl.kl_coef=0.1")["update"].flops == pytest.approx(plain * 4 / 3)
    assert stages("model.lora={rank: 4}")["update"].flops == pytest.approx(plain * 2 / 3)
    frozen, learns = stages()["images of the update"], stages("model.freeze_vision=false")
    assert frozen.flops == 0 and frozen.seconds == 0
    assert learns["images of the update"].flops == pytest.approx(3 * learns["images of rollouts"].flops)


def test_seconds_follow_the_machine() -> None:
    one, two = stages(), stages(machine=replace(FAST, flops=2e11, bytes_per_s=2e10, call_s=5e-7))
    for name, stage in one.items():
        assert stage.seconds is not None and two[name].seconds == pytest.approx(stage.seconds / 2)
    assert all(stage.seconds is None for stage in stages(machine=Machine("cpu", 10**10)).values())


def test_images_cost_what_the_tower_costs() -> None:
    made = plan_of(read_recipe("nano_rl")[0], probe=False)
    assert stages()["images of rollouts"].flops == made.shape.vision.flops(made.work.grids)
