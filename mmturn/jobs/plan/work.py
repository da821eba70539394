"""FLOPs of an update by stage, and the seconds that they take at a machine's measured rates."""

from __future__ import annotations

from dataclasses import dataclass

from mmturn.families.shape import Shape, causal_pairs
from mmturn.jobs.plan.held import Held
from mmturn.jobs.plan.machine import Machine
from mmturn.jobs.plan.memory import Training
from mmturn.jobs.plan.workload import Workload
from mmturn.recipe import Recipe

_CALLS = 100
"""What a decoder layer's step costs beside its numbers, in calls of a small module: about 70 operations, and Python."""
_PASSES = 4
"""Times that what a layer keeps crosses memory: written, read again, its gradients written and read."""
_DRAWING = 8
"""Times that a row of logits crosses memory until a token is drawn."""
_OPTIMIZER = 28
"""Bytes that AdamW moves per float32 parameter: three read and written, the gradient read."""


@dataclass(frozen=True)
class Stage:
    """Work of one process in one update."""

    name: str
    flops: float
    seconds: float | None
    """None where the machine was not measured."""


def stages_of(
    recipe: Recipe, shape: Shape, work: Workload, training: Training, held: Held, machine: Machine, rows: int
) -> list[Stage]:
    """Stages in their order. ``rows``: that decode together."""
    frozen = recipe.model.freeze_vision or recipe.model.lora is not None
    images = shape.vision.flops(work.grids)
    passes, vision = _passes(recipe, frozen, training.signals)
    if training.judging:  # turns of earlier updates run once more
        drawn = min(recipe.critic.replay, recipe.critic.steps * recipe.critic.batch)
        passes += drawn / training.processes / work.trajectories
    one = tree_flops(shape, work)
    tokens = work.groups * (work.prompt + work.group_size * work.own)
    kept = shape.layers * held.layer * tokens
    tower = held.patch * sum(a * b for a, b in work.grids)
    parts = [
        ("images of rollouts", images, tower / _PASSES),
        ("prefill", prefill_flops(shape, work), kept / _PASSES / 2),
        ("decode", decode_flops(shape, work), 0.0),
        ("update", passes * one, passes / 3 * _PASSES * kept),
        ("images of the update", vision * images, vision / 3 * _PASSES * tower),
        ("optimizer", 0.0, _OPTIMIZER * training.trainable * recipe.rl.epochs_per_batch * recipe.rl.minibatches),
    ]
    if machine.flops is None or machine.bytes_per_s is None:
        return [Stage(name, flops, None) for name, flops, _ in parts]
    stages = []
    for name, flops, moved in parts:
        seconds = flops / machine.flops + moved / machine.bytes_per_s
        if name == "decode":
            seconds = _decode_s(shape, work, training, machine, rows, flops)
        stages.append(Stage(name, flops, seconds))
    return stages


def _passes(recipe: Recipe, frozen: bool, signals: frozenset[str]) -> tuple[float, float]:
    """How often an update runs the language model, and the tower on each image, in forward passes; backwards is two."""
    rl = recipe.rl
    backward = 1.0 if recipe.model.lora is not None else 2.0
    each = 1 + backward + (1 if recipe.training.activation_checkpointing else 0)
    in_reward = "drift" in signals
    extra = (rl.old_logprobs == "recompute") + (rl.kl_coef > 0) + bool(signals) + in_reward
    language = rl.epochs_per_batch * each + extra
    if frozen:
        return language, 0.0
    again = 1 - 1 / (rl.epochs_per_batch * rl.minibatches)  # features are stale after the first step
    return language, rl.epochs_per_batch * (3 + again) + (rl.kl_coef > 0 or in_reward)


def prefill_flops(shape: Shape, work: Workload) -> float:
    """Every prompt once per group, every reply once per trajectory."""
    total = work.groups * shape.language_flops(work.prompt, causal_pairs(work.prompt))
    for turn in range(1, work.turns):
        past = work.prompt + turn * (work.sampled + work.reply) - work.reply - 1
        total += work.trajectories * shape.language_flops(work.reply + 1, causal_pairs(work.reply + 1, past))
    return total + shape.head_flops(work.groups + work.trajectories * (work.turns - 1))


def decode_flops(shape: Shape, work: Workload) -> float:
    """All sampled tokens but the first of each turn, which a prefill gives."""
    steps = work.sampled - 1
    total = 0.0
    for turn in range(work.turns):
        past = work.prompt + turn * (work.sampled + work.reply)
        total += shape.language_flops(steps, causal_pairs(steps, past))
    return work.trajectories * (total + shape.head_flops(work.turns * steps))


def tree_flops(shape: Shape, work: Workload) -> float:
    """One forward pass of an update over all groups packed as trees."""
    tokens = work.prompt + work.group_size * work.own
    pairs = causal_pairs(work.prompt) + work.group_size * causal_pairs(work.own, work.prompt)
    sampled = work.group_size * work.turns * work.sampled
    return work.groups * (shape.language_flops(tokens, pairs) + shape.head_flops(sampled))


def _decode_s(shape: Shape, work: Workload, training: Training, machine: Machine, rows: int, flops: float) -> float:
    """A step multiplies all weights with a few rows, or computes, whichever takes longer; reads keys and values; and
    calls."""
    assert machine.flops and machine.bytes_per_s and machine.call_s and machine.weight_s
    waves = -(-work.trajectories // rows)
    steps = waves * work.turns * (work.sampled - 1)
    weights = shape.layers * shape.layer_weights + shape.vocabulary * shape.hidden
    products = max(weights * machine.weight_s, flops / max(steps, 1) / machine.flops)
    seen = rows * shape.kv_bytes_per_token(training.element) * (work.prompt + work.own / 2)
    drawn = 4 * rows * shape.vocabulary * _DRAWING
    reading = (seen + drawn) / machine.bytes_per_s
    return steps * (products + reading + _CALLS * shape.layers * machine.call_s)
