"""One optimizer step through DeepSpeed is the step that plain torch takes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmturn.errors import ConfigError
from mmturn.families import FAMILY_KEY
from mmturn.losses.aggregate import Denominators
from mmturn.models.load import load_model
from mmturn.models.settings import LoraSettings
from mmturn.training.export import save_policy
from mmturn.training.microbatches import MicroBatch
from mmturn.training.objective import PolicyObjective
from mmturn.training.processes import start_processes
from mmturn.training.reference import Reference
from mmturn.training.settings import RlConfig, TrainingConfig
from mmturn.training.updater import Updater, parameter_groups
from tests.training.small_world import World, make_world, weights_of

# Adam divides by the size of a gradient: a large eps keeps rounding of tiny ones from becoming a whole step.
CONFIG = TrainingConfig(lr=1e-2, eps=1e-3, weight_decay=0.1, max_grad_norm=0.5, log=(), progress=False)
STEPS = 3


def counts(pieces: list[MicroBatch]) -> Denominators:
    return Denominators(int(sum(p.batch.loss_mask.sum() for p in pieces)), sum(len(p.batch.num_tokens) for p in pieces))


def objective(pieces: list[MicroBatch]) -> PolicyObjective:
    return PolicyObjective(RlConfig(aggregation="seq_mean_token_mean"), counts(pieces), True)


def by_deepspeed(world: World, config: TrainingConfig, rows: int = 2) -> list[dict[str, float]]:
    """``STEPS`` updates on four trajectories; metrics of each."""
    pieces = world.pieces([world.trajectory(seed) for seed in range(4)], rows)
    updater = Updater(world.policy, config, start_processes("cpu"))
    filler = world.feed.filler()
    return [updater.update(pieces, objective(pieces), filler=filler, lr=config.lr) for _ in range(STEPS)]


def by_torch(world: World, config: TrainingConfig) -> list[dict[str, float]]:
    """The same in plain torch, all rows in one batch."""
    pieces = world.pieces([world.trajectory(seed) for seed in range(4)], rows=100)
    groups = parameter_groups(world.policy, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, eps=config.eps)
    metrics = []
    for _ in range(STEPS):
        loss = objective(pieces)(world.policy(pieces[0].batch), pieces[0]).value
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(world.policy.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        metrics.append({"loss": loss.item(), "grad_norm": float(norm)})
    return metrics


def assert_same(first: World, second: World, tolerance: float = 1e-6) -> None:
    other = weights_of(second)
    for name, weight in weights_of(first).items():
        assert torch.allclose(weight, other[name], atol=tolerance, rtol=tolerance), name


@pytest.fixture(scope="module")
def plain(qwen3: Path) -> tuple[World, list[dict[str, float]]]:
    world = make_world(qwen3)
    return world, by_torch(world, CONFIG)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_step_equals_plain_adamw(qwen3: Path, plain: tuple[World, list[dict[str, float]]], stage: Any) -> None:
    world = make_world(qwen3)
    metrics = by_deepspeed(world, replace(CONFIG, zero_stage=stage))
    for ours, theirs in zip(metrics, plain[1], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        assert ours["grad_norm"] > CONFIG.max_grad_norm, "the test must clip"
    assert_same(world, plain[0])


def test_qwen2_5_takes_the_same_steps(qwen2_5: Path) -> None:
    ours, theirs = make_world(qwen2_5), make_world(qwen2_5)
    by_deepspeed(ours, CONFIG)
    by_torch(theirs, CONFIG)
    assert_same(ours, theirs)


def test_a_wrong_denominator_would_show(qwen3: Path, plain: tuple[World, list[dict[str, float]]]) -> None:
    world = make_world(qwen3)
    pieces = world.pieces([world.trajectory(seed) for seed in range(4)], 2)
    updater = Updater(world.policy, CONFIG, start_processes("cpu"))
    wrong = PolicyObjective(RlConfig(), replace(counts(pieces), tokens=7), True)
    metrics = updater.update(pieces, wrong, filler=world.feed.filler(), lr=CONFIG.lr)
    assert metrics["loss"] != pytest.approx(plain[1][0]["loss"], abs=1e-3)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_cut_into_micro_batches_does_not_matter(
    qwen3: Path, plain: tuple[World, list[dict[str, float]]], rows: int
) -> None:
    world = make_world(qwen3)
    by_deepspeed(world, CONFIG, rows)
    assert_same(world, plain[0])


def test_activation_checkpointing_changes_nothing(qwen3: Path, plain: tuple[World, list[dict[str, float]]]) -> None:
    world = make_world(qwen3, activation_checkpointing=True)
    by_deepspeed(world, CONFIG)
    assert_same(world, plain[0])


def test_a_frozen_tower_stays(qwen3: Path) -> None:
    world = make_world(qwen3, freeze_vision=True)
    before = weights_of(world)
    by_deepspeed(world, CONFIG)
    changed = {name for name, weight in weights_of(world).items() if not torch.equal(weight, before[name])}
    assert changed
    assert not any(".visual." in name for name in changed)


def test_nothing_to_do_is_no_error_and_moves_nothing(qwen3: Path) -> None:
    world = make_world(qwen3)
    before = weights_of(world)
    updater = Updater(world.policy, replace(CONFIG, weight_decay=0.0), start_processes("cpu"))
    metrics = updater.update([], objective([]), filler=world.feed.filler(), lr=CONFIG.lr)
    assert metrics["loss"] == 0.0
    assert metrics["grad_norm"] == 0.0
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(world).items())


def test_all_frozen_is_refused(qwen3: Path) -> None:
    world = make_world(qwen3)
    world.policy.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        Updater(world.policy, CONFIG, start_processes("cpu"))


def test_float16_is_refused(qwen3: Path) -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        Updater(make_world(qwen3, dtype="float16").policy, CONFIG, start_processes("cpu"))


def test_bfloat16_keeps_float32_weights_in_the_optimizer(qwen3: Path) -> None:
    world = make_world(qwen3, dtype="bfloat16")
    before = weights_of(world)
    config = replace(CONFIG, weight_decay=0.0, eps=1e-8)
    pieces = world.pieces([world.trajectory(seed) for seed in range(2)])
    updater = Updater(world.policy, config, start_processes("cpu"))
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    large = before[name].abs() > 0.05
    changed = []
    # One step is far below bfloat16's resolution at these weights: only a float32 copy can add steps up.
    for _ in range(20):
        updater.update(pieces, objective(pieces), filler=world.feed.filler(), lr=1e-5)
        changed.append((weights_of(world)[name] != before[name])[large].float().mean().item())
    assert weights_of(world)[name].dtype == torch.bfloat16
    assert changed[0] == 0.0
    assert changed[-1] > 0.03


class TestLora:
    """Low-rank adapters."""

    def test_only_adapters_change_and_the_export_is_a_plain_model(self, qwen3: Path, tmp_path: Path) -> None:
        world = make_world(qwen3, lora=LoraSettings(rank=4))
        before = weights_of(world)
        pieces = world.pieces([world.trajectory(seed) for seed in range(4)])
        updater = Updater(world.policy, CONFIG, start_processes("cpu"))
        for _ in range(STEPS):
            updater.update(pieces, objective(pieces), filler=world.feed.filler(), lr=CONFIG.lr)
        changed = {name for name, weight in weights_of(world).items() if not torch.equal(weight, before[name])}
        assert changed
        assert all(".lora_" in name for name in changed)

        weights = updater.weights()
        assert weights is not None
        save_policy(tmp_path / "policy", world.policy.model, weights, world.loaded.folder)
        exported = make_world(tmp_path / "policy")
        assert not hasattr(exported.policy.model, "peft_config")
        with torch.no_grad():
            ours, theirs = world.policy(pieces[0].batch), exported.policy(pieces[0].batch)
        assert torch.allclose(ours.logprobs, theirs.logprobs, atol=1e-4)

    def test_the_reference_is_the_base_model(self, qwen3: Path) -> None:
        world, original = make_world(qwen3, lora=LoraSettings(rank=4)), make_world(qwen3)
        processes = start_processes("cpu")
        reference = Reference(world.policy, CONFIG, processes)
        pieces = world.pieces([world.trajectory(seed) for seed in range(2)])
        updater = Updater(world.policy, CONFIG, processes)
        updater.update(pieces, objective(pieces), filler=world.feed.filler(), lr=CONFIG.lr)
        known = reference.logprobs(pieces, world.feed.filler())
        with torch.no_grad():
            want = [original.policy(piece.batch).logprobs for piece in pieces]
            moved = [world.policy(piece.batch).logprobs for piece in pieces]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(known, want, strict=True))
        assert not torch.allclose(moved[0], want[0], atol=1e-3)


def test_the_reference_copy_does_not_move(qwen3: Path) -> None:
    world = make_world(qwen3)
    processes = start_processes("cpu")
    reference = Reference(world.policy, CONFIG, processes)
    pieces = world.pieces([world.trajectory(seed) for seed in range(2)])
    before = reference.logprobs(pieces, world.feed.filler())
    updater = Updater(world.policy, CONFIG, processes)
    updater.update(pieces, objective(pieces), filler=world.feed.filler(), lr=CONFIG.lr)
    after = reference.logprobs(pieces, world.feed.filler())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.allclose(updater.score(pieces, filler=world.feed.filler())[0].logprobs, before[0], atol=1e-3)


def test_an_exported_policy_is_the_policy(qwen3: Path, tmp_path: Path) -> None:
    named = shutil.copytree(qwen3, tmp_path / "named")
    config = json.loads((named / "config.json").read_text())
    (named / "config.json").write_text(json.dumps({**config, FAMILY_KEY: "qwen3_vl"}))
    (named / "notes.json").write_text("{}")
    world = make_world(named)
    by_deepspeed(world, CONFIG)
    updater = Updater(world.policy, CONFIG, start_processes("cpu"))
    weights = updater.weights()
    assert weights is not None
    save_policy(tmp_path / "policy", world.policy.model, weights, world.loaded.folder)
    assert_same(world, make_world(tmp_path / "policy"), 0.0)
    written = (tmp_path / "policy" / "model.safetensors").stat().st_size
    assert written <= (qwen3 / "model.safetensors").stat().st_size + 4096, "a tied weight is written once"
    assert load_model(tmp_path / "policy").tokenizer.chat_template == world.loaded.tokenizer.chat_template
    names = {path.name for path in (tmp_path / "policy").iterdir()}
    assert "preprocessor_config.json" in names and "notes.json" not in names
    assert json.loads((tmp_path / "policy" / "config.json").read_text())[FAMILY_KEY] == "qwen3_vl"
