"""What to change where a run does not fit, or where most of its memory goes."""

from __future__ import annotations

from mmturn.jobs.plan.held import Held, grid_text
from mmturn.jobs.plan.memory import ELEMENT, Memory, Training
from mmturn.jobs.plan.workload import patches
from mmturn.recipe import Recipe

_LARGE = 0.1


def advise(recipe: Recipe, memory: Memory, held: Held, training: Training, room: float | None) -> list[str]:
    """Lines, the most effective first; none where everything fits with room to spare.

    ``room``: bytes that a process may take; None: not known.
    """
    if room is not None and memory.peak < 0.8 * room:
        return []
    phase = memory.binding
    parts = {**memory.lasting, **memory.phases[phase]}
    parts.pop("allocator", None)
    lines = []
    for part in sorted(parts, key=lambda name: -parts[name]):
        if parts[part] >= _LARGE * memory.peak:
            found = _line(part, phase, recipe, held, training)
            if found and found not in lines:
                lines.append(found)
    return lines


def _line(part: str, phase: str, recipe: Recipe, held: Held, training: Training) -> str:
    if part == "activations":
        return {"update": _update, "images": _images, "rollout": _rollout}[phase](recipe, held)
    model, processes = recipe.model, training.processes
    if part == "optimizer":
        if training.stage == 0 and processes > 1:
            return "optimizer state binds: set training.zero_stage: 2, which shards it over the processes"
        if model.lora is None:
            return "optimizer state binds: train adapters instead (model.lora.rank: 16), or use more processes (ZeRO 2)"
    if part in ("weights", "reference policy", "gathered weights"):
        if part == "reference policy":
            return "the reference policy binds: without a kl_coef there is none, and model.lora has it for nothing"
        if training.element == ELEMENT["float32"]:
            return "weights bind: set model.dtype: bfloat16, or take a smaller model"
        return "weights bind: take a smaller model, or shard it (training.zero_stage: 3, more processes)"
    if part == "stale policy":
        return "the stale policy binds: rl.cross_policy.share: 0 needs none, and model.lora copies adapters alone"
    if part == "gradients" and not model.freeze_vision and model.lora is None:
        return "gradients bind: set model.freeze_vision: true, or train adapters (model.lora.rank: 16)"
    if part in ("key-value slots", "kept contexts"):
        return (
            f"{part} bind: lower engine.cache_bytes (now {recipe.engine.cache_bytes:,}), engine.max_batch or "
            "rollout.max_new_tokens; what does not fit waits, or is run again"
        )
    if part == "features":
        return f"features of images bind: lower env.{held.work.settings[1]}{_crop(held)}, or engine.feature_bytes"
    return ""


def _update(recipe: Recipe, held: Held) -> str:
    training, rows = recipe.training, held.bin[0] * held.bin[1]
    ways = []
    if not training.activation_checkpointing:
        ways.append("set training.activation_checkpointing: true")
    if held.tokens > held.work.context:
        half = max(held.tokens // 2, held.work.context)
        ways.append(f"set training.micro_batch_tokens: {half} (the largest micro-batch has {held.tokens:,} tokens)")
    else:
        ways.append(f"lower rollout.max_new_tokens or rollout.max_turns (one row has {held.work.context:,} tokens)")
    return f"activations of the update bind, {rows} rows at a time: {', or '.join(ways)}"


def _images(recipe: Recipe, held: Held) -> str:
    largest = max(held.work.pieces)
    if held.chunk > largest:
        half = max(held.chunk // 2, largest)
        return (
            f"activations of the vision tower bind: set training.image_patches: {half} (now {held.chunk:,} at a time)"
        )
    setting = held.work.settings[0 if held.work.pieces[0] == largest else 1]
    return (
        f"activations of the vision tower bind, and one image of {largest:,} patches is all it learns from at a time: "
        f"lower env.{setting}, or set model.freeze_vision: true"
    )


def _rollout(recipe: Recipe, held: Held) -> str:
    if held.encoding >= held.prefill(recipe.engine.prefill_tokens, 1):
        first, later = held.work.settings
        return f"encoding images in rollouts binds: lower env.{first} or env.{later}{_crop(held)}"
    return f"prefills bind: lower engine.prefill_tokens (now {recipe.engine.prefill_tokens:,})"


def _crop(held: Held) -> str:
    work = held.work
    if work.crop is None:
        return ""
    tokens = work.looks * patches(work.crop) // work.merge**2
    return (
        f" (a crop of {grid_text(work.crop, work.patch)} is {tokens:,} tokens, times {work.turns - 1} a trajectory, "
        f"times {work.trajectories} trajectories)"
    )
