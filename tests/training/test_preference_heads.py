"""Objectives with an output layer of their own (MAH-DPO): the loss, who learns what, and the plain model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmturn.credit.pairs import Pair
from mmturn.errors import CheckpointError, ConfigError
from mmturn.losses.preference import mah_dpo_loss, orpo_loss
from mmturn.models.load import load_model
from mmturn.models.mixture import read_mixture
from mmturn.models.settings import LoraSettings
from mmturn.training import preference
from mmturn.training.log import read_metrics
from mmturn.training.settings import PreferenceConfig
from tests.training.preference_world import PAIRS, parts_of, rows_of, siblings
from tests.training.small_world import TRAINING, World, make_world, weights_of

STEP = replace(TRAINING, updates=2, eps=1e-3, lr=1e-2, max_grad_norm=0.0, save_every=0)
FOUND = (*PAIRS, Pair(1, 4, objective="look"), Pair(3, 2, turn=1, objective="look"))
CONFIG = PreferenceConfig(
    objectives={"total": 3.0, "look": 1.0}, heads="per_objective", pairs_per_update=5, beta=0.4, shuffle=False
)
NAMES = tuple(CONFIG.objectives)


def logprobs(world: World, rows: list[Any], pair: Pair, side: int, head: int | None) -> tuple[Tensor, int]:
    """Summed log-prob of one side of a pair under a head (None: the model's own layer), and how many tokens."""
    total, count = torch.zeros(()), 0
    for row in rows[pair.members[side]]:
        mask = tuple(int(own and at >= pair.turn) for own, at in zip(row.loss_mask, row.turn_index, strict=True))
        batch = world.feed.batch([replace(row, loss_mask=mask)])
        batch = batch if head is None else replace(batch, head=torch.tensor([head]))
        total, count = total + world.policy(batch).logprobs.sum(), count + sum(mask)
    return total, count


@torch.no_grad()
def by_hand(moved: World, first: World, found: Any, config: PreferenceConfig) -> float:
    rows = rows_of(first, siblings(first))
    heads = [NAMES.index(pair.objective) for pair in found]
    both = [
        [logprobs(moved, rows, pair, side, head) for side in (0, 1)] for pair, head in zip(found, heads, strict=True)
    ]
    counts = torch.tensor([heads.count(0), heads.count(1)])
    if config.loss == "orpo":
        good, bad = (torch.stack([sides[k][0] / sides[k][1] for sides in both]) for k in (0, 1))
        losses = orpo_loss(good, bad, config.orpo_weight)
        return sum(float(losses[[h == k for h in heads]].mean()) for k in (0, 1)) / 2
    known = [[logprobs(first, rows, pair, side, None)[0] for side in (0, 1)] for pair in found]
    chosen, rejected = (
        torch.stack([sides[k][0] - base[k] for sides, base in zip(both, known, strict=True)]) for k in (0, 1)
    )
    return float(mah_dpo_loss(chosen, rejected, torch.tensor(heads), counts, config.beta))


@pytest.mark.parametrize(
    ("loss", "changes"),
    [("m_dpo", {}), ("m_dpo", {"micro_batch_rows": 2}), ("m_dpo", {"layout": "padded"}), ("orpo", {})],
)
def test_the_loss_is_that_of_the_paper(qwen3: Path, tmp_path: Path, loss: Any, changes: dict[str, Any]) -> None:
    config, one, two = replace(CONFIG, loss=loss), make_world(qwen3), make_world(qwen3)
    preference.train(parts_of(one, tmp_path / "one", replace(STEP, updates=1, **changes), config, FOUND))
    preference.train(parts_of(two, tmp_path / "two", replace(STEP, **changes), config, FOUND))
    lines = read_metrics(tmp_path / "two")
    want = by_hand(one, make_world(qwen3), FOUND, config)
    assert lines[1]["preference/loss"] == pytest.approx(want, abs=1e-5)
    assert abs(lines[0]["preference/loss"] - want) > 1e-3, "it must have moved"
    shared = replace(config, heads="shared", objectives={"total": 0.5, "look": 0.5})
    preference.train(parts_of(make_world(qwen3), tmp_path / "shared", STEP, shared, FOUND))
    line = read_metrics(tmp_path / "shared")[1]
    assert line["preference/loss"] != pytest.approx(want, abs=1e-4), "one head for all is another policy"


def heads_of(world: World) -> list[Tensor]:
    assert world.policy.heads is not None
    return [layer.weight.detach().clone() for layer in world.policy.heads.layers]


@pytest.mark.parametrize("model", ["qwen3", "qwen2_5"])
def test_a_head_learns_from_its_own_pairs_and_the_trunk_from_all(
    request: pytest.FixtureRequest, tmp_path: Path, model: str
) -> None:
    """Qwen3's output layer is the embedding table, Qwen2.5's is not."""
    world = make_world(request.getfixturevalue(model))
    before = weights_of(world)
    job = parts_of(world, tmp_path, replace(STEP, updates=1), CONFIG, FOUND[3:])
    first, second = heads_of(world)
    preference.train(job)
    after = heads_of(world)
    assert torch.equal(after[0], first) and not torch.equal(after[1], second)
    loss = read_metrics(tmp_path)[0]["preference/loss"]
    assert loss == pytest.approx(0.6931, abs=1e-3), "heads without pairs do not count"
    moved = {name for name, weight in weights_of(world).items() if not torch.equal(weight, before[name])}
    assert "model.language_model.embed_tokens.weight" in moved and "lm_head.weight" not in moved


@pytest.mark.parametrize("model", ["qwen3", "qwen2_5"])
@pytest.mark.parametrize(
    ("stage", "load"),
    [(0, {}), (2, {}), (3, {}), (2, {"dtype": "bfloat16"}), (0, {"lora": LoraSettings(rank=2)})],
    ids=["0", "2", "3", "bfloat16", "lora"],
)
def test_what_is_exported_is_a_plain_model_that_mixes_the_heads(
    request: pytest.FixtureRequest, tmp_path: Path, model: str, stage: Any, load: dict[str, Any]
) -> None:
    world, seen = make_world(request.getfixturevalue(model), **load), {}
    row = world.feed.rows(world.trajectory(7))[0]

    @torch.no_grad()
    def evaluate(update: int) -> dict[str, float]:
        seen[update] = world.policy(world.feed.batch([row])).logprobs
        return {"eval/accuracy": 0.0}

    training = replace(STEP, zero_stage=stage, eval_every=1, eval_at_start=True)
    job = parts_of(world, tmp_path, training, CONFIG, FOUND, evaluate=evaluate, assets=world.loaded.folder)
    last = preference.train(job)
    exported = load_model(last / "policy", dtype=load.get("dtype", "float32"))
    assert exported.base.lm_head.weight is not exported.base.get_input_embeddings().weight
    config = json.loads((last / "policy" / "config.json").read_text())
    assert not config.get("tie_word_embeddings") and not config["text_config"].get("tie_word_embeddings")
    mixture = read_mixture(last / "heads.safetensors")
    assert mixture.weights == CONFIG.objectives and mixture.own is None
    mixed = 0.75 * mixture.layers["total"].float() + 0.25 * mixture.layers["look"].float()
    atol = 2e-2 if "dtype" in load else 1e-6
    torch.testing.assert_close(exported.base.lm_head.weight.float(), mixed, rtol=0, atol=atol)
    assert not torch.allclose(mixture.layers["total"], mixture.layers["look"], atol=1e-4)
    plain = make_world(last / "policy", **{key: value for key, value in load.items() if key != "lora"})
    with torch.no_grad():
        alone = plain.policy(world.feed.batch([row])).logprobs
    torch.testing.assert_close(alone, seen[2], rtol=0, atol=0.1 if "dtype" in load else 1e-4)
    assert not torch.allclose(seen[0], seen[2], atol=1e-3)


@pytest.mark.parametrize(
    ("stage", "load"), [(0, {}), (3, {}), (0, {"lora": LoraSettings(rank=2)})], ids=["0", "3", "lora"]
)
def test_it_goes_on_where_it_stopped(qwen3: Path, tmp_path: Path, stage: Any, load: dict[str, Any]) -> None:
    def begun() -> World:
        torch.manual_seed(0)  # adapters are drawn at random
        return make_world(qwen3, **load)

    training = replace(TRAINING, updates=4, lr=1e-2, zero_stage=stage)
    config = replace(CONFIG, pairs_per_update=2, shuffle=True)
    found = []
    for name, updates, resume in (("whole", 4, False), ("cut", 2, False), ("cut", 4, True)):
        world = begun()
        job = parts_of(world, tmp_path / name, replace(training, updates=updates), config, FOUND, resume=resume)
        preference.train(job)
        with job.setup.updater.gathered():
            found.append((weights_of(world), heads_of(world)))
    (want, heads), (_, half_heads), (weights, again) = found
    assert all(torch.equal(weight, want[name]) for name, weight in weights.items())
    assert all(map(torch.equal, again, heads)) and not any(map(torch.equal, half_heads, heads))
    keys = [key for key in read_metrics(tmp_path / "whole")[0] if key.startswith("preference/")]
    lines = [
        [{key: line.get(key) for key in keys} for line in read_metrics(tmp_path / name)] for name in ("whole", "cut")
    ]
    assert lines[0] == lines[1]


def test_a_run_with_one_output_layer_keeps_no_heads(qwen3: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, heads="shared")
    last = preference.train(parts_of(make_world(qwen3), tmp_path, replace(STEP, updates=1), config, FOUND))
    assert not (last / "heads.safetensors").exists()
    with pytest.raises(CheckpointError, match="DeepSpeed cannot read its state back"):
        preference.train(parts_of(make_world(qwen3), tmp_path, STEP, CONFIG, FOUND, resume=True))


def test_labels_have_one_policy() -> None:
    with pytest.raises(ConfigError, match=r"preference\.heads per_objective learns from pairs"):
        replace(CONFIG, loss="m_kto", pairs="thresholds")
