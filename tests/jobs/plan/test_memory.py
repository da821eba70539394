"""Memory by part: what scales with what, and constants that the code shares."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmturn.errors import ConfigError
from mmturn.families.shape import shape_of
from mmturn.jobs.plan import held as holding
from mmturn.jobs.plan.held import Held, Precision
from mmturn.jobs.plan.machine import Machine, machine_of, memory_bytes
from mmturn.jobs.plan.memory import DECODED_BYTES, VIEW_BYTES, memory_of, training_of
from mmturn.jobs.plan.planning import Plan, plan_of
from mmturn.jobs.plan.workload import Wishes
from mmturn.models.settings import LoraSettings
from mmturn.recipe import Recipe, read_recipe

LEARNS = "model.freeze_vision=false"


def planned(*overrides: str, **wishes: Any) -> Plan:
    return plan_of(read_recipe("nano_rl", overrides)[0], Wishes(**wishes), probe=False)


def test_constants_are_those_of_the_code() -> None:
    from mmturn.media import ImageStore
    from mmturn.models import head, step

    assert holding.HEAD_ROWS == head._ROWS and holding.HEAD_TILE == head._TILE_ELEMENTS
    assert inspect.signature(step.encode_views).parameters["max_patches"].default == holding.ENCODE_PATCHES
    store = inspect.signature(ImageStore).parameters
    assert (store["decoded_bytes"].default, store["view_bytes"].default) == (DECODED_BYTES, VIEW_BYTES)


def test_weights_and_optimizer_by_way_of_training(repo: Path) -> None:
    shape = shape_of(repo / "checkpoints" / "nano")
    everything = sum(shape.parameters().values())
    plain = planned(LEARNS).memory
    assert plain.lasting["weights"] == 4 * everything and plain.lasting["optimizer"] == 8 * everything
    assert plain.phases["update"]["gradients"] == 4 * everything
    frozen = planned().memory
    assert frozen.lasting["optimizer"] == 8 * (everything - shape.vision.parameters)
    assert "images" not in frozen.phases
    half = planned(LEARNS, "model.dtype=bfloat16").memory
    assert half.lasting["weights"] == 2 * everything and half.lasting["optimizer"] == 12 * everything
    shared = planned(LEARNS, "training.zero_stage=3", processes=4).memory
    assert shared.lasting["weights"] == everything and shared.lasting["optimizer"] == 3 * everything
    assert shared.phases["rollout"]["gathered weights"] == 4 * everything
    adapters = planned("model.lora={rank: 4}")
    assert adapters.training.trainable == shape.adapter_parameters(4, LoraSettings().layers)
    matrices = 4 * (shape.layers * shape.layer_weights + shape.vocabulary * shape.hidden)
    assert plain.phases["rollout"]["packed matrices"] == matrices and "packed matrices" not in half.phases["rollout"]
    assert adapters.memory.phases["rollout"]["packed matrices"] == 4 * shape.vocabulary * shape.hidden
    assert planned("rl.kl_coef=0.1").memory.lasting["reference policy"] == 4 * everything


def test_settings_that_take_less_memory() -> None:
    settings = (
        "training.activation_checkpointing=true", "training.micro_batch_rows=4", "training.micro_batch_tokens=500",
    )  # fmt: skip
    before = planned(LEARNS).memory
    for setting in settings:
        assert planned(LEARNS, setting).memory.of("update") < before.of("update"), setting
    assert planned(LEARNS, "training.image_patches=256").memory.of("images") < before.of("images")
    assert planned(LEARNS, "engine.cache_bytes=10000000").memory.of("rollout") < before.of("rollout")


def test_micro_batches_are_cut_as_the_trainer_cuts_them(repo: Path) -> None:
    """Rows of the planned lengths through the trainer's own function."""
    from mmturn.training.microbatches import cut_groups
    from mmturn.types import Row

    recipe = read_recipe("nano_rl", ("rl.groups_per_update=5",))[0]
    work = plan_of(recipe, probe=False).work
    rows = [
        Row("", tuple([1] * work.prompt + [10 + index] * work.own), (0,) * work.context, (), None, (), group=str(group))
        for group in range(5)
        for index in range(8)
    ]
    shape = shape_of(repo / "checkpoints" / "nano")
    for most, budget in ((32, 0), (8, 0), (3, 0), (32, 1000), (16, 2500), (64, 6000), (64, 10)):
        training = replace(recipe.training, micro_batch_rows=most, micro_batch_tokens=budget)
        own = Held(shape, Precision(4, True), work, training, "cpu").tokens
        assert own == max(found.tokens for found in cut_groups(rows, 0, most, budget)), (most, budget)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_what_autograd_keeps_of_a_layer_is_what_is_counted(kind: Any, checkpointing: bool, tmp_path: Path) -> None:
    """Every tensor that the backward pass waits for, seen by autograd's own hooks, each storage once."""
    from mmturn.batching.tree import Tree
    from mmturn.models.load import load_model
    from mmturn.testing.tiny import tiny_model

    loaded = load_model(tiny_model(kind, tmp_path / kind), activation_checkpointing=checkpointing)
    shape, tokens = shape_of(loaded.folder), 256
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    text = loaded.base.model.language_model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        shown = torch.randn(1, tokens, shape.hidden, requires_grad=True)
        where = torch.arange(tokens).expand(3, 1, -1)
        text(
            inputs_embeds=shown, position_ids=where, use_cache=False, attention_mask=None,
            trees=(Tree(0, 56, (100, 100)),),
        )  # fmt: skip
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    for parameter in loaded.base.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    layer = tokens * Held(shape, Precision(4, True), planned().work, Recipe().training, "cpu").layer
    if checkpointing:
        assert sum(storages.values()) < layer
    else:
        assert sum(storages.values()) == pytest.approx(shape.layers * layer, rel=0.1)


def test_a_gpu_is_not_asked_for_its_memory() -> None:
    assert machine_of("cuda").memory_bytes is None
    made = planned("model.device=cuda")
    assert made.fits is None and made.memory.host > made.machine.process_bytes
    assert 1e8 < memory_bytes() < 1e14


def test_what_does_not_fit_is_told_with_what_to_change() -> None:
    from mmturn.jobs.plan.advice import advise

    recipe = read_recipe("nano_rl", (LEARNS,))[0]
    made = plan_of(recipe, probe=False)
    machine = Machine("cpu", memory_bytes=10**9, process_bytes=10**7)
    training = training_of(recipe, made.shape, "float32", 1)
    memory, held = memory_of(recipe, made.shape, made.work, training, machine)
    assert memory.binding == "update"
    first = advise(recipe, memory, held, training, 1e9)[0]
    assert "training.activation_checkpointing: true" in first and "training.micro_batch_tokens" in first
    assert advise(recipe, memory, held, training, 1e12) == []
    wide = read_recipe("nano_rl", (LEARNS, "training.micro_batch_rows=1", "training.image_patches=99999"))[0]
    memory, held = memory_of(wide, made.shape, made.work, training, machine)
    assert "training.image_patches" in advise(wide, memory, held, training, 1e9)[0]


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="float16"):
        planned("model.dtype=float16")
    with pytest.raises(ConfigError, match="top_p"):
        planned("rollout.top_p=0.5")


def test_a_critics_head_is_counted(repo: Path) -> None:
    head = shape_of(repo / "checkpoints" / "nano").hidden + 1
    plain, valued = planned(), planned("method.credit={name: gae}", "method.normalise=[{name: whiten}]")
    assert valued.training.trainable == plain.training.trainable + head
    assert valued.memory.lasting["weights"] == plain.memory.lasting["weights"] + 4 * head
    assert valued.memory.lasting["optimizer"] == plain.memory.lasting["optimizer"] + 8 * head
    update = [{stage.name: stage.flops for stage in made.stages}["update"] for made in (plain, valued)]
    assert update[1] > update[0], "values take a forward pass of their own"
    assert planned("critic.enabled=true").training.trainable == valued.training.trainable
    with pytest.raises(ConfigError, match=r"critic\.anchor is last"):
        planned("method.credit={name: turn_gae}", "critic.anchor=last")


def test_a_reference_is_counted_where_the_reward_has_the_penalty() -> None:
    plain, penalised = (
        planned(f"method.credit={{name: token_returns, kl_coef: {coef}}}", "method.normalise=[{name: whiten}]")
        for coef in ("0.0", "0.1")
    )
    assert penalised.memory.lasting["reference policy"] == penalised.memory.lasting["weights"]
    assert "reference policy" not in plain.memory.lasting
    update = [{stage.name: stage.flops for stage in made.stages}["update"] for made in (plain, penalised)]
    assert update[1] == pytest.approx(update[0] * 5 / 3), "one pass of the policy, one of the reference"


def test_a_stale_policy_is_counted_with_an_engine_of_its_own() -> None:
    on = ("rl.old_logprobs=sampler", "rl.cross_policy.share=0.5")
    for how in ((), (LEARNS,), ("model.lora={rank: 4}",)):
        plain, crossed = planned(*how), planned(*how, *on)
        before, after = plain.memory, crossed.memory
        assert after.lasting["stale policy"] == 4 * plain.training.trainable and "stale policy" not in before.lasting
        for part in ("key-value slots", "kept contexts", "packed matrices"):
            assert after.phases["rollout"][part] == 2 * before.phases["rollout"][part]
        own_tower = 2 if how == (LEARNS,) else 1
        assert after.lasting["features"] == own_tower * before.lasting["features"]


def test_a_critic_over_utterances_is_counted(repo: Path) -> None:
    hidden = shape_of(repo / "checkpoints" / "nano").hidden
    judge = ("method.credit={name: q_minus_v}", "method.normalise=[]", "critic.kind=utterance", "critic.detach=true")
    plain, judged = planned(), planned(*judge)
    assert judged.training.trainable == plain.training.trainable, "DeepSpeed knows nothing of it"
    assert judged.memory.lasting["critic"] == 20 * 4 * (hidden**2 + 2 * hidden + 1)
    assert judged.memory.peak == plain.memory.peak + judged.memory.lasting["critic"]
    flops = [
        {stage.name: stage.flops for stage in made.stages}["update"]
        for made in (plain, planned(*judge, "critic.replay=0"), planned(*judge, "critic.replay=64"))
    ]
    assert flops[0] < flops[1] < flops[2], "a forward pass for what is judged, and one for what is replayed"
